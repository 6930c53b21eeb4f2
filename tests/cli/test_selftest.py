"""`medserl selftest`: what its checks let through, and what they do not."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import selftest
from medserl.cli.selftest import METRICS, Check, check_checkpoint, check_metrics, look_at, read_tensors
from medserl.run import checkpoint


def row(number: int = 1, **changed: Any) -> dict[str, Any]:
    return {"round": number, "epoch": 0, **dict.fromkeys(METRICS, 0.995), **changed}


def write_tensors(path: Path, **tensors: tuple[str, bytes]) -> None:
    """A safetensors file (https://github.com/huggingface/safetensors) of one-dimensional tensors."""
    header, data = {}, b""
    for name, (dtype, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": [0], "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of one round with a whole checkpoint."""
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row()) + "\n")
    staged = checkpoint.staging_dir(tmp_path / "checkpoints") / "global_step_1"
    model = staged / "actor" / "model" / "huggingface"
    model.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    write_tensors(model / "model.safetensors", w=("F32", struct.pack("<2f", 1.0, -2.0)))
    checkpoint.publish(tmp_path / "checkpoints", 1, {}, None)
    return tmp_path


def test_metrics_must_be_there_finite_and_of_the_same_weights() -> None:
    assert check_metrics([row(), row(2)]).passed
    for change, told in (
        ({"mean_reward": float("nan")}, "mean_reward is nan"),
        ({"actor/loss": float("inf")}, "actor/loss is inf"),
        ({METRICS[-1]: 0.9}, "is 0.9000, less than 0.99"),
    ):
        check = check_metrics([row(), row(2, **change)])
        assert not check.passed
        assert told in check.found
    lacking = row()
    del lacking["actor/grad_norm"]
    assert check_metrics([lacking]).found == "round 1 has no actor/grad_norm"
    assert not check_metrics([]).passed


def test_a_whole_run_passes_but_for_tensorboard(run_dir: Path) -> None:
    pytest.importorskip("tensorboard")
    passed = {check.name: check.passed for check in look_at(run_dir, 1)}
    assert passed == {"rounds": True, "metrics": True, "checkpoint": True, "TensorBoard": False}
    assert not look_at(run_dir, 2)[0].passed


def test_a_checkpoint_must_be_whole_the_last_rounds_and_finite(run_dir: Path) -> None:
    assert check_checkpoint(run_dir, 1) == Check(
        "checkpoint", True, "global_step_1, 1 finite weight tensors of 2 numbers"
    )
    assert check_checkpoint(run_dir, 2).found == "the newest is global_step_1"
    weights = run_dir / "checkpoints" / "global_step_1" / "actor" / "model" / "huggingface" / "model.safetensors"
    write_tensors(weights, w=("F32", struct.pack("<2f", 1.0, float("nan"))))
    assert "is damaged" in check_checkpoint(run_dir, 1).found, "another content than was saved"
    staged = checkpoint.staging_dir(run_dir / "checkpoints") / "global_step_1"
    ignore = shutil.ignore_patterns(checkpoint.MANIFEST)
    shutil.copytree(run_dir / "checkpoints" / "global_step_1", staged, ignore=ignore)
    checkpoint.publish(run_dir / "checkpoints", 1, {}, None)
    assert check_checkpoint(run_dir, 1).found == "weights that are not finite: w"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "is damaged" in check_checkpoint(run_dir, 1).found


def test_tensors_of_every_width_are_read(tmp_path: Path) -> None:
    write_tensors(
        tmp_path / "m.safetensors",
        good=("BF16", struct.pack("<2H", 0x3F80, 0xBF80)),
        bad=("BF16", struct.pack("<H", 0x7F80)),
        half=("F16", struct.pack("<e", 0.5)),
        whole=("I64", struct.pack("<q", 1)),
    )
    assert list(read_tensors(tmp_path / "m.safetensors")) == [("good", 2, True), ("bad", 1, False), ("half", 1, True)]


def test_gpu_packages_without_a_gpu_are_told_plainly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("medserl.cpu.environment.vllm_is_cpu_build", lambda: False)
    from medserl.cli.main import main

    assert main(["selftest"]) == 1
    assert capsys.readouterr().out.startswith("selftest failed: the installed packages are those for GPUs, and no GPU")
    assert selftest.CONFIGS["cuda"] == "embedded_gpu"


@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_no_rounds_are_refused(rounds: str, capsys: pytest.CaptureFixture[str]) -> None:
    from medserl.cli.main import main

    assert main(["selftest", "--rounds", rounds]) == 2
    assert f"--rounds: {rounds} is less than 1" in capsys.readouterr().err


def test_what_training_refuses_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medserl.cli.main import main

    monkeypatch.setattr(
        selftest.tempfile, "mkdtemp", lambda prefix: str((tmp_path / prefix).mkdir() or tmp_path / prefix)
    )
    monkeypatch.setattr(selftest, "_train", lambda *_: 2)
    assert main(["selftest", "nope=1"]) == 2
    assert not any(tmp_path.iterdir())
