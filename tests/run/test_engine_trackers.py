"""Numbers for trackers, with the libraries themselves: MLflow's file store, Weights & Biases without a network."""

import getpass
import json
import socket
from pathlib import Path

import pytest

from medserl.run.trackers import STATE_FILE, Trackers, check_trackers

pytestmark = pytest.mark.engine


def play(run_dir: Path, name: str, numbers: range) -> str:
    """A start that plays these rounds; returns the run's id there."""
    rows = [{"round": number, "mean_reward": number / 10} for number in range(numbers.start)]
    lines = Trackers(run_dir, [name], {"lr": 0.001}, rows)
    for number in numbers:
        lines.send(number, {"mean_reward": number / 10, "mean_reward/assessor": 0.5, "actor/entropy": 1.5})
    lines.close()
    run: str = json.loads((run_dir / STATE_FILE).read_text())[name]["run"]
    return run


def test_mlflow_keeps_one_run_over_two_starts_and_numbers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/store")
    check_trackers(["mlflow"])
    run_dir = tmp_path / "run_a"
    run_dir.mkdir()
    first = play(run_dir, "mlflow", range(3))
    assert play(run_dir, "mlflow", range(2, 5)) == first
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"file:{tmp_path}/store")
    run = client.get_run(first)
    assert run.info.status == "FINISHED" and run.info.run_name == "run_a"
    assert run.data.params == {"lr": "0.001"} and run.data.tags == {"mlflow.runName": "run_a"}
    assert [(m.step, m.value) for m in client.get_metric_history(first, "round/mean_reward")] == [
        (number, number / 10) for number in range(5)
    ]
    assert set(run.data.metrics) == {"round/mean_reward", "mean_reward/assessor", "verl/actor/entropy"}
    assert run.info.user_id == "unknown"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / STATE_FILE).write_text(json.dumps({"mlflow": {"run": "0" * 32, "round": 9}}))
    new = play(tmp_path / "other", "mlflow", range(1, 3))
    assert len(client.get_metric_history(new, "round/mean_reward")) == 3, (
        "a run that is gone there begins anew, with all rounds"
    )


def test_wandb_writes_numbers_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])
    run_dir = tmp_path / "run_a"
    run_dir.mkdir()
    monkeypatch.setenv("SECRET_OF_THE_SHELL", "swordfish-7")
    known = play(run_dir, "wandb", range(3))
    assert play(run_dir, "wandb", range(3, 5)) == known
    written = sorted((run_dir / "wandb").glob("offline-run-*/*.wandb"))
    assert len(written) == 2 and all(file.name == f"run-{known}.wandb" for file in written)
    sent = b"".join(file.read_bytes() for file in written)
    assert b"mean_reward" in sent and b"verl/actor/entropy" in sent
    for word in (str(tmp_path), "swordfish-7", str(Path.cwd()), "trackers.py", "pytest"):
        assert word.encode() not in sent, word
    for word in {socket.gethostname(), getpass.getuser()}:
        if len(word) > 4:  # a shorter one may come about in binary data
            assert word.encode() not in sent, word
