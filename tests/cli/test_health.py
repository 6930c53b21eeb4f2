"""`medserl health`: finds the runs that are going on, and knows silence from slowness."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medserl.cli.health import allowed_silence, running, silence
from medserl.cli.main import main


@pytest.fixture
def held_run(tmp_path: Path) -> Iterator[Path]:
    """A run directory that this process holds, as a trainer does."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").write_text("{}\n")
    with (run_dir / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield run_dir


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def health(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "medserl", "health", *words], capture_output=True, text=True)


def test_a_held_run_is_found_and_a_lock_of_something_else_is_not(held_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with (other / ".lock").open("a"):
        assert held_run in running()
        assert other not in running()


def test_a_run_that_was_silent_too_long_is_stuck(held_run: Path) -> None:
    assert f"moves: {held_run}" in health("--minutes", "10").stdout
    age(held_run / ".lock", 900)
    done = health("--minutes", "10")
    assert done.returncode == 1
    assert f"stuck: {held_run}" in done.stdout


def test_silence_ends_with_the_newest_of_metrics_log_and_checkpoint(held_run: Path) -> None:
    age(held_run / ".lock", 1000)
    (held_run / "train.log").write_text("line\n")
    age(held_run / "train.log", 500)
    assert 499 < silence(held_run) < 600
    part = held_run / "checkpoints" / ".saving" / "global_step_5" / "actor" / "weights"
    part.parent.mkdir(parents=True)
    part.write_text("half")
    for folder in (held_run / "checkpoints", held_run / "checkpoints" / ".saving"):
        age(folder, 800)
    assert silence(held_run) < 100


def test_long_rounds_are_no_silence(held_run: Path) -> None:
    rows = [{"round": number, "timing_s/step": 60.0 * number} for number in range(1, 21)]
    (held_run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"round": 21, "cut')
    assert allowed_silence(held_run, 1800) == 5 * 60 * 20
    assert allowed_silence(held_run, 1e6) == 1e6


def test_it_is_cheap(held_run: Path) -> None:
    """Once a minute in every container: nothing heavy may be imported for it."""
    code = "import sys; from medserl.cli import main; main(['health']); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "verl", "ray", "vllm", "omegaconf", "pyarrow"} & set(modules)


@pytest.mark.parametrize("minutes", ["-5", "0", "nan", "inf"])
def test_what_is_no_length_of_time_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health", f"--minutes={minutes}"]) == 2
    assert "--minutes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "row", ['{"timing_s/step": "x"}', '{"timing_s/step": null}', "[1]", "3", "{", '{"timing_s/step": NaN}']
)
def test_damaged_metrics_do_not_end_it(row: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{row}\n{{"timing_s/step": 100}}\n')
    assert allowed_silence(tmp_path, 60.0) == 500.0
