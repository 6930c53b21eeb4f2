"""Checkpoints of `medserl sft` are whole or absent: verl's handler, made to write beside and to publish."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from medserl.config.load import load_sft_config, verl_config_dir
from medserl.run import checkpoint
from medserl.sft.checkpoints import layout_of, make_whole, newest

LAYOUT = {"tp": 1, "pp": 1, "workers": 2, "reshardable": False}


class Handler:
    """What is used of verl's, without torch."""

    def __init__(self, root: Path, rank: int = 0, keep: int | None = 1) -> None:
        self.default_local_dir, self.max_ckpt_to_keep, self.rank = str(root), keep, rank
        self.fails: Exception | None = None
        self.seen: list[tuple[str, int | None]] = []

    def save_checkpoint(self, step: int) -> None:
        self.seen.append((self.default_local_dir, self.max_ckpt_to_keep))
        folder = Path(self.default_local_dir) / f"global_step_{step}" / "model/huggingface"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text(f"weights of {step}")
        (Path(self.default_local_dir) / checkpoint.TRACKER).write_text(str(step))
        if self.fails is not None:
            raise self.fails


def made(root: Path, **how: Any) -> tuple[Handler, list[str]]:
    handler, met = Handler(root, **how), []
    make_whole(handler, LAYOUT, lambda: met.append(handler.default_local_dir))
    return handler, met


def test_a_checkpoint_is_published_with_its_manifest_and_the_one_before_goes(tmp_path: Path) -> None:
    handler, met = made(tmp_path)
    for step in (20, 40):
        handler.save_checkpoint(step=step)
    assert checkpoint.steps(tmp_path) == [40] and checkpoint.damage(tmp_path / "global_step_40") is None
    assert checkpoint.load_state(tmp_path / "global_step_40") == {"layout": LAYOUT}
    assert (tmp_path / checkpoint.TRACKER).read_text() == "40"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_40", checkpoint.TRACKER]
    assert handler.seen == [(str(tmp_path / checkpoint.STAGING), None)] * 2, "retention is not verl's"
    assert (handler.default_local_dir, handler.max_ckpt_to_keep) == (str(tmp_path), 1)
    assert met == [str(tmp_path)] * 4, "all meet when the folder is there, and when the checkpoint is"


def test_another_process_writes_its_part_and_publishes_nothing(tmp_path: Path) -> None:
    (tmp_path / checkpoint.STAGING).mkdir()
    handler, met = made(tmp_path, rank=1)
    handler.save_checkpoint(step=20)
    assert checkpoint.steps(tmp_path) == [] and len(met) == 2


def test_one_that_cannot_be_written_costs_no_other(tmp_path: Path) -> None:
    handler, _ = made(tmp_path)
    handler.save_checkpoint(step=20)
    handler.fails = OSError(28, "No space left on device")
    with pytest.raises(checkpoint.CheckpointFailed, match=r"of step 40 could not .*\(No space left .* of step 20 is w"):
        handler.save_checkpoint(step=40)
    assert checkpoint.damage(tmp_path / "global_step_20") is None
    assert handler.default_local_dir == str(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_20", checkpoint.TRACKER]


@pytest.mark.parametrize("harm", ["cut", "gone", "other content", "no manifest", "folder gone"])
def test_the_last_sound_one_is_found_behind_a_damaged_one(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    handler, _ = made(tmp_path, keep=None)
    assert newest(tmp_path) is None
    for step in (20, 40):
        handler.save_checkpoint(step=step)
    assert newest(tmp_path) == tmp_path / "global_step_40"
    weights = tmp_path / "global_step_40/model/huggingface/model.safetensors"
    match harm:
        case "cut":
            os.truncate(weights, 3)
        case "gone":
            weights.unlink()
        case "other content":
            weights.write_text("WEIGHTS of 40")
        case "no manifest":
            (tmp_path / "global_step_40" / checkpoint.MANIFEST).unlink()
        case _:
            shutil.rmtree(tmp_path / "global_step_40")
    assert newest(tmp_path) == tmp_path / "global_step_20"
    assert ("global_step_40 is damaged" in caplog.text) is (harm != "folder gone")


def test_the_layout_is_the_configurations() -> None:
    config = load_sft_config("sft_embedded", ["engine.tensor_model_parallel_size=2"])
    assert layout_of(config) == {"tp": 2, "pp": 1, "workers": 2, "reshardable": False}


def test_verls_handler_still_writes_where_and_keeps_what_it_is_told_at_the_time() -> None:
    text = (verl_config_dir().parents[1] / "utils/checkpoint/checkpoint_handler.py").read_text()
    save = text[text.index("def save_checkpoint(self, step):") : text.index("def load_checkpoint(self):")]
    for line in (
        'os.path.join(self.default_local_dir, f"global_step_{step}")',
        "max_ckpt_to_keep = self.max_ckpt_to_keep",
        "get_checkpoint_tracker_filename(self.default_local_dir)",
    ):
        assert line in save
    assert save.rstrip().endswith("torch.distributed.barrier()"), "every process has written when it returns"
    assert "self.rank = torch.distributed.get_rank()" in text
