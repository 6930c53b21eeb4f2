"""A model directory that cannot be trained is refused before a start, in a sentence that names it and what is wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.cli.main import main
from medserl.config.load import load_config
from medserl.errors import Problems, UserError
from medserl.preflight.checks import _model_problems
from medserl.preflight.model_files import NUMBERS
from medserl.run.weights import DamagedWeights, header, misfit, weight_shapes
from medserl.ward import MODEL_DIR

SMALL = ("medserl.notes.count=64", "medserl.validation.count=4")
WEIGHTS = "model.safetensors"
CONFIG = json.loads((MODEL_DIR / "config.json").read_text())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    copy = tmp_path / "m"
    shutil.copytree(MODEL_DIR, copy)
    for path in (copy, *copy.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return copy


def with_config(**changed: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        config = {**CONFIG, **changed}
        (model / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))

    return change


def with_file(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(content) and None


def with_index(model: Path) -> None:
    (model / WEIGHTS).rename(model / "model-00001-of-00002.safetensors")
    names = {"model.embed_tokens.weight": "model-00001-of-00002.safetensors", "x": "model-00002-of-00002.safetensors"}
    (model / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def as_directory(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / WEIGHTS).mkdir()


def as_bin(model: Path) -> None:
    (model / WEIGHTS).unlink()
    (model / "pytorch_model.bin").write_bytes(b"x")


def cut(model: Path) -> None:
    os.truncate(model / WEIGHTS, 100_000)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "null": (with_file("config.json", b"null"), "is not a model's configuration"),
    "list": (with_file("config.json", b"[]"), "is not a model's configuration"),
    "architecture as text": (with_config(architectures="Qwen3ForCausalLM"), "architectures is not a list"),
    "architecture as number": (with_config(architectures=5), "architectures is not a list"),
    "architectures of numbers": (with_config(architectures=[5]), "holds 5; MedSeRL trains"),
    "no heads": (with_config(num_attention_heads=...), "num_attention_heads is missing"),
    "heads null": (with_config(num_key_value_heads=None), "num_key_value_heads is missing"),
    "no vocabulary": (with_config(vocab_size=...), "vocab_size is missing"),
    "vocabulary as text": (with_config(vocab_size="big"), "vocab_size is 'big'"),
    "heads true": (with_config(num_attention_heads=True), "num_attention_heads is True"),
    "no layers": (with_config(num_hidden_layers=0), "num_hidden_layers is 0"),
    "hidden 97": (with_config(hidden_size=97), "by config.json"),
    "40 layers": (with_config(num_hidden_layers=40), "4 layers, config.json says num_hidden_layers 40"),
    "intermediate 254": (with_config(intermediate_size=254), "by config.json"),
    "intermediate 255": (with_config(intermediate_size=255), "intermediate_size 255 cannot be divided"),
    "short context": (with_config(max_position_embeddings=64), "more than the model's max_position_embeddings 64"),
    "empty weights": (with_file(WEIGHTS, b""), "is empty, cut off or no safetensors file"),
    "cut weights": (cut, "bytes of weights instead of"),
    "random weights": (with_file(WEIGHTS, bytes(range(256)) * 400), "is empty, cut off or no safetensors file"),
    "a pointer": (with_file(WEIGHTS, b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\n"), "git lfs pull"),
    "a directory": (as_directory, "has no weights"),
    "a shard is gone": (with_index, "lacks model-00002-of-00002.safetensors"),
    "only bin": (as_bin, "*.bin is not read"),
    "tokenizer empty": (with_file("tokenizer.json", b"{}"), "no usable tokenizer"),
    "template broken": (with_file("chat_template.jinja", b"{% for x in %}"), "chat template does not render"),
    "template refuses": (with_file("chat_template.jinja", b"{{ raise_exception('no') }}"), "chat template does not"),
    "template constant": (with_file("chat_template.jinja", b"hello"), "drops the system and the user message"),
}


BY_COMMAND = ("null", "no heads", "short context", "cut weights", "tokenizer empty")
"""Of each kind one; the others are looked at without a whole dry run."""


@pytest.mark.parametrize("name", [name for name in DAMAGES if name not in BY_COMMAND])
def test_what_cannot_be_trained_is_a_problem(name: str, model: Path) -> None:
    damage, told = DAMAGES[name]
    damage(model)
    problems = Problems()
    _model_problems(load_config("embedded", [*SMALL, f"actor_rollout_ref.model.path={model}"]), problems, ())
    with pytest.raises(UserError) as error:
        problems.tell()
    assert told in str(error.value)


@pytest.mark.parametrize("name", BY_COMMAND)
def test_what_cannot_be_trained_is_refused(name: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, told = DAMAGES[name]
    damage(model)
    run = model.parent / "run"
    assert main(["train", "--dry-run", "--run-dir", str(run), *SMALL, f"actor_rollout_ref.model.path={model}"]) == 2
    error = capsys.readouterr().err
    first, *others = error.splitlines()
    assert told in error and (not others or first.endswith("things stand in the way of a start:"))
    assert not run.exists()
    if name == "tokenizer empty":  # nothing can be measured without one, so nothing is said of lengths
        assert not others


@pytest.mark.parametrize("value", ["null", "[a]", "''"])
def test_what_is_no_path_is_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--dry-run", *SMALL, f"actor_rollout_ref.model.path={value}"]) == 2
    assert "actor_rollout_ref.model.path" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["cut weights", "a shard is gone", "tokenizer empty"])
def test_a_warm_start_refuses_the_same(name: str, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, told = DAMAGES[name]
    damage(model)
    asked = [
        "sft",
        "--dry-run",
        "--model",
        str(model),
        "--run-dir",
        str(model.parent / "run"),
        "medserl.notes.count=64",
    ]
    assert main(asked) == 2
    assert told in capsys.readouterr().err


def test_the_shipped_model_fits_itself() -> None:
    assert misfit(weight_shapes(MODEL_DIR), CONFIG) is None


@given(st.sampled_from(NUMBERS), st.integers(1, 5000))
def test_every_other_number_is_a_misfit(name: str, value: int) -> None:
    found = misfit(weight_shapes(MODEL_DIR), {**CONFIG, name: value})
    assert (found is None) is (value == CONFIG[name])


@given(st.data())
@settings(max_examples=50)
def test_a_damaged_header_never_ends_in_anything_but_a_sentence(data: st.DataObject) -> None:
    whole = (MODEL_DIR / WEIGHTS).read_bytes()[:4000]
    place = data.draw(st.integers(0, len(whole) - 1))
    content = whole[:place] + data.draw(st.binary(min_size=1, max_size=20)) + whole[place + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / WEIGHTS
        file.write_bytes(content)
        with pytest.raises(DamagedWeights, match=re.escape(WEIGHTS)):
            header(file)
