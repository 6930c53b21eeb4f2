"""Exports are checked copies, whole or absent. Exports of trained checkpoints: tests/e2e."""

import json
import shutil
from pathlib import Path

import pytest

from medserl.errors import ConfigError
from medserl.run import checkpoint
from medserl.training.export import RECORD, export_checkpoint, find_checkpoint
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
    with pytest.raises(ConfigError, match="exists; give another --out"):
        export_checkpoint(find_checkpoint(run), tmp_path / "out")


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
