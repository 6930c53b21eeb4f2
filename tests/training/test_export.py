"""Exports are checked copies, whole or absent. Exports of trained checkpoints: tests/e2e."""

import json
import os
import shutil
from pathlib import Path

import pytest

from medserl.errors import ConfigError, UserError
from medserl.run import checkpoint
from medserl.training.export import RECORD, export_checkpoint, find_checkpoint, readers
from medserl.ward import MODEL_DIR


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with two checkpoints that hold the tiny model."""
    root = tmp_path / "run" / "checkpoints"
    for step in (2, 4):
        staged = checkpoint.staging_dir(root) / f"global_step_{step}"
        shutil.copytree(MODEL_DIR, staged / "actor/model/huggingface")
        checkpoint.publish(root, step, {}, None)
    return tmp_path / "run"


def test_newest_checkpoint_is_meant_unless_one_is_marked_best(run: Path) -> None:
    assert find_checkpoint(run).name == "global_step_4"
    checkpoint.mark_best(run / "checkpoints", 2, "val/greedy/mcc", 0.5)
    assert find_checkpoint(run).name == find_checkpoint(run / "checkpoints").name == "global_step_2"
    assert find_checkpoint(run / "checkpoints/global_step_4").name == "global_step_4"


def test_export_has_weights_tokenizer_and_a_record(run: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    out = export_checkpoint(find_checkpoint(run), tmp_path / "out")
    assert (out / "model.safetensors").read_bytes() == (MODEL_DIR / "model.safetensors").read_bytes()
    assert len(AutoTokenizer.from_pretrained(out)) > 1000
    assert json.loads((out / RECORD).read_text())["checkpoint"] == "global_step_4"


def test_an_existing_directory_is_not_overwritten(run: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(ConfigError, match="--out .*out: already exists; give another one"):
        export_checkpoint(find_checkpoint(run), tmp_path / "out")
    assert (tmp_path / "out" / "mine").read_text() == "x"


def test_a_place_among_the_checkpoints_is_refused(run: Path) -> None:
    source = run / "checkpoints/global_step_4"
    before = sorted(run.rglob("*"))
    for out in (source / "actor/model/huggingface/out", source / "x/y", run / "checkpoints/global_step_5"):
        with pytest.raises(ConfigError, match="lies among the files of a run's checkpoints"):
            export_checkpoint(source, out)
    assert sorted(run.rglob("*")) == before


def test_a_link_stays_and_what_it_points_to_is_made(run: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    export_checkpoint(find_checkpoint(run), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target" / RECORD).is_file()


def test_a_damaged_mark_of_the_best_is_no_reason_for_another(run: Path) -> None:
    (run / "checkpoints/best.json").write_text('{"step": 2}')
    with pytest.raises(UserError, match="does not say which checkpoint is the best"):
        find_checkpoint(run)


@pytest.mark.parametrize("harm", ["cut", "no weights", "no tokenizer"])
def test_a_damaged_checkpoint_leaves_nothing_behind(run: Path, tmp_path: Path, harm: str) -> None:
    source = run / "checkpoints/global_step_4"
    model = source / "actor/model/huggingface"
    if harm == "cut":
        (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-10])
    elif harm == "no weights":
        shutil.rmtree(model)
    else:
        (model / "tokenizer.json").unlink()
    for manifest in (True, False):  # without a manifest, as verl's own checkpoints, the files are looked at
        if not manifest:
            (source / checkpoint.MANIFEST).unlink()
        with pytest.raises(ConfigError, match="global_step_4"):
            export_checkpoint(source, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]


def test_a_path_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a checkpoint nor a run directory"):
        find_checkpoint(tmp_path)


def sharded(model: Path, weight_map: dict[str, str] | str) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = weight_map if isinstance(weight_map, str) else json.dumps({"metadata": {}, "weight_map": weight_map})
    (model / "model.safetensors.index.json").write_text(index)


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("weight_map", "sentence"),
    [
        ({"model.embed_tokens.weight": FIRST, "model.norm.weight": SECOND}, f"lacks {SECOND}"),
        ({"model.embed_tokens.weight": FIRST, "model.gone.weight": FIRST}, "lacks model.gone.weight, which model.safe"),
        ("{", "index.json is damaged"),
        ("[]", "index.json is damaged"),
        ('{"weight_map": 3}', "index.json is damaged"),
        ({"model.embed_tokens.weight": f"../{FIRST}"}, "no .safetensors file right in the folder"),
        ({"model.embed_tokens.weight": FIRST}, ""),
    ],
)
def test_what_an_index_promises_must_be_there(tmp_path: Path, weight_map: dict[str, str] | str, sentence: str) -> None:
    source = tmp_path / "global_step_1"
    model = source / "actor/model/huggingface"
    shutil.copytree(MODEL_DIR, model)
    sharded(model, weight_map)
    if not sentence:
        assert export_checkpoint(source, tmp_path / "out").is_dir()
        return
    with pytest.raises(ConfigError, match=sentence):
        export_checkpoint(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["global_step_1"]


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4, b"\xff" * 64, b"\x02" + bytes(7) + b"[]", b"version https://git-lfs"]
)
def test_weights_that_are_no_safetensors_are_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "global_step_1"
    model = source / "actor/model/huggingface"
    shutil.copytree(MODEL_DIR, model)
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.safetensors is not a whole \.safetensors file"):
        export_checkpoint(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("umask", "folder", "file", "who"),
    [(0o022, 0o755, 0o644, "every user"), (0o027, 0o750, 0o640, "its group"), (0o077, 0o700, 0o600, "its owner only")],
)
def test_modes_follow_the_umask_of_who_exports(tmp_path: Path, umask: int, folder: int, file: int, who: str) -> None:
    source = tmp_path / "global_step_1"
    shutil.copytree(MODEL_DIR, source / "actor/model/huggingface")
    for path in (source, *source.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = os.umask(umask)
    try:
        out = export_checkpoint(source, tmp_path / "out")
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == folder and who in readers(out)
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {file}
