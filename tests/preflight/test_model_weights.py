"""A model directory that is damaged, or does not fit itself, is told before anything starts."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from medserl.config.load import load_config
from medserl.errors import ConfigError, all_told
from medserl.planning.shapes import check_divides, shape_of
from medserl.preflight.checks import check_lengths
from medserl.preflight.model_files import check_files, read_model_config
from medserl.ward import model_dir
from tests.preflight.models import split_weights, write_index

KEY = "actor_rollout_ref.model.path"
WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_dir(), tmp_path / "model"))


def look(path: Path, tp: int = 1) -> dict[str, Any]:
    with all_told() as found:
        config = read_model_config(path, KEY)
        check_files(path, KEY, config, found)
        check_divides(shape_of(config, KEY), tp, 1, 1)
    check_lengths(load_config("embedded"), config)
    return config


def refused(path: Path, tp: int = 1) -> str:
    with pytest.raises(ConfigError) as error:
        look(path, tp)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_shipped_model_is_whole(model: Path) -> None:
    look(model)
    look(model, tp=2)


@pytest.mark.parametrize("harm", ["empty", "cut", "longer", "garbage", "pointer", "folder", "bin", "shard", "index"])
def test_damaged_weights(model: Path, harm: str) -> None:
    file = model / WEIGHTS
    whole = file.read_bytes()
    if harm == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif harm == "longer":
        file.write_bytes(whole + b"x")
    elif harm == "garbage":
        file.write_bytes(bytes(range(256)) * 400)
    elif harm == "pointer":
        file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1235824\n")
    elif harm in ("folder", "bin"):
        file.unlink()
        file.mkdir() if harm == "folder" else (model / "pytorch_model.bin").write_bytes(whole)
    elif harm == "shard":
        file.rename(model / "model-00001-of-00002.safetensors")
        index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "model-00002-of-00002.safetensors"}}
        (model / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    elif harm == "index":
        (model / f"{WEIGHTS}.index.json").write_text("[]")
    else:
        file.write_bytes(b"")
    message = refused(model)
    assert message.startswith(f"{KEY}: {model}")
    assert harm not in ("folder", "bin") or "weights" in message


def test_any_cut_is_seen(model: Path) -> None:
    file = model / WEIGHTS
    whole = file.read_bytes()
    for length in (1, 7, 8, 9, 100, len(whole) // 3, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(model)


def test_weights_in_several_files(model: Path) -> None:
    files = split_weights(model)
    look(model)
    for file in set(files.values()):  # as in the cache of Hugging Face's hub
        (model / file).rename(model / f"blob-{file}")
        (model / file).symlink_to(f"blob-{file}")
    look(model)
    (model / max(files.values())).unlink()
    assert f"lacks {max(files.values())}" in refused(model)


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({NORM: None}, f"does not name {NORM}"),
        ({NORM: "other"}, f"lacks {NORM}, which model.safetensors.index.json promises"),
        ({"model.rotary_emb.inv_freq": "more"}, "names model.rotary_emb.inv_freq, which the model"),
        ({NORM: 1}, "names 1, which is no .safetensors file right in the folder"),
        *(
            ({NORM: name}, f"names {name!r}, which is no .safetensors file right in the folder")
            for name in ("", ".", "..", "../m.safetensors", "/m.safetensors", "below/m.safetensors", "./m.safetensors",
                         "m.safetensors/", "config.json")
        ),
    ],
)  # fmt: skip
def test_an_index_that_is_not_of_its_files(model: Path, change: dict[str, Any], told: str) -> None:
    files: dict[str, Any] = split_weights(model)
    for tensor, name in change.items():
        if name == "other":
            name = next(file for file in files.values() if file != files[tensor])
        if name == "more":  # a tensor that is in its file too
            name = files[NORM]
            with_tensor(model / name, tensor)
        files[tensor] = name
    write_index(model, {tensor: name for tensor, name in files.items() if name is not None})
    assert told in refused(model)


def with_tensor(file: Path, name: str) -> None:
    whole = file.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    end = len(whole) - 8 - length
    header = {**json.loads(whole[8 : 8 + length]), name: {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}}
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + length :] + bytes(4))


def test_a_tied_models_index_may_name_a_head_that_is_nowhere(model: Path) -> None:
    files = split_weights(model)
    write_index(model, {**files, "lm_head.weight": files[NORM]})
    look(model)


def test_files_that_are_not_the_whole_model(model: Path) -> None:
    split_weights(model)
    (model / f"{WEIGHTS}.index.json").unlink()
    assert "model-00001-of-00002.safetensors, one of several files, and no model.safetensors.index" in refused(model)
    for file in model.glob("*.safetensors"):
        file.unlink()
    shutil.copy(model_dir() / WEIGHTS, model / "consolidated.safetensors")
    assert "Mistral's own format" in refused(model)
