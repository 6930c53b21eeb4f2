"""When `fit` stops, what it leaves, and with which exit code `medserl train` ends; rounds and clock are stand-ins."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from medserl.cli.train import _exit_code
from medserl.config.settings import GameSettings
from medserl.errors import ConfigError
from medserl.report.alarms import Alarms, AlarmSettings
from medserl.run import checkpoint
from medserl.run.best import BestSoFar
from medserl.run.deadline import Deadline
from medserl.run.run_dir import RunDir
from medserl.run.stop_signals import StopSignals
from medserl.training.api import MedSeRLTrainer

START = 1.7e9
SET_UP, ROUND, SAVE = 100.0, 10.0, 5.0
CONFIG = OmegaConf.create({"trainer": {"test_freq": -1, "save_freq": 5, "val_before_train": False}})


class Run(MedSeRLTrainer):
    """`fit`, and what it decides with; Ray, verl and vLLM left out."""

    def __init__(self, path: Path, seconds: float | None, rounds: int = 4, signalled_in: int | None = None) -> None:
        self.now = START
        self.config, self.settings, self.rounds = CONFIG, GameSettings(max_rounds=rounds), rounds
        self.run_dir = RunDir(path)
        deadline = None if seconds is None else START + seconds
        self._deadline = Deadline(deadline, 0.0, lambda: self.now)
        self._out_of_time, self._stop, self._best = None, StopSignals(), BestSoFar("none")
        self._alarms = Alarms(self.settings.alarms)
        self._trainer = self._log = self._manager = self._cluster = self._watch = None
        self.signalled_in = signalled_in
        self._finished: int | None = None
        self._saved_round = self._first_round = 0
        self._surroundings = SimpleNamespace(logging=True, close=lambda: None)

    def start(self) -> None:
        self.run_dir.open(self.config, "test", [])
        done = checkpoint.latest_step(self.run_dir.checkpoints)
        self._trainer: Any = SimpleNamespace(global_steps=done, total_training_steps=self.rounds, save=self.write)
        self._saved_round = self._first_round = self._finished = done
        self.now += SET_UP
        self._deadline.set_up_took(SET_UP)

    def sample_batch(self) -> Any:
        return None

    def training_step(self, batch: Any) -> dict[str, float]:
        self._trainer.global_steps += 1
        if self.round == self.signalled_in:
            os.kill(os.getpid(), signal.SIGUSR1)
        self.now += ROUND
        self._deadline.measured("round", ROUND)
        return {"mean_reward": 0.0}

    def write(self) -> Path:
        self.now += SAVE
        with checkpoint.saving(self.run_dir.checkpoints, self.round) as staging:
            (staging / f"global_step_{self.round}").mkdir()
            return checkpoint.publish(self.run_dir.checkpoints, self.round, {}, None)


def play(path: Path, seconds: float | None, **how: Any) -> tuple[int, int]:
    """Exit code, and round of the newest checkpoint afterwards."""
    run = Run(path, seconds, **how)
    try:
        run.fit()
        return _exit_code(run), checkpoint.latest_step(run.run_dir.checkpoints)
    finally:
        run.run_dir.close()


@pytest.mark.parametrize(("left", "code", "rounds"), [(239.0, 75, 0), (241.0, 75, 11), (1e4, 0, 20)])
def test_it_plays_what_fits_and_the_next_start_goes_on(tmp_path: Path, left: float, code: int, rounds: int) -> None:
    """At first a round and a checkpoint are guessed to take 1.2 times the set-up each, later 12 s and that."""
    assert play(tmp_path, SET_UP + left, rounds=20) == (code, rounds)
    assert play(tmp_path, None, rounds=20) == (0, 20)


def test_a_time_limit_that_never_suffices_is_told_the_second_time(tmp_path: Path) -> None:
    """A job that is started again and again must not do so for ever."""
    assert play(tmp_path, SET_UP + 1) == (75, 0)
    with pytest.raises(ConfigError, match="MEDSERL_DEADLINE: for the second time no round could be played"):
        play(tmp_path, SET_UP + 1)


def test_usr1_ends_it_after_the_round_with_a_checkpoint(tmp_path: Path) -> None:
    assert play(tmp_path, None, signalled_in=2) == (128 + signal.SIGUSR1, 2)
    assert RunDir(tmp_path).path.joinpath("provenance.json").read_text().count("signal 10") == 1


def test_a_signal_in_the_last_round_leaves_nothing_to_go_on_with(tmp_path: Path) -> None:
    """128 + N says that there are rounds to go: a launcher would start the job again for nothing."""
    assert play(tmp_path, None, signalled_in=4) == (0, 4)


def test_a_signal_before_anything_was_started_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, None)
    run._stop.received = signal.SIGUSR1
    run.fit()
    assert _exit_code(run) == 128 + signal.SIGUSR1
    assert run._trainer is None
    assert "told to stop (signal 10) before the training began; the same command starts it" in capsys.readouterr().out
    assert play(tmp_path, None) == (0, 4)
    run.fit()
    assert _exit_code(run) == 0, "the run is complete: there is nothing to go on with"


def takes(number: int, process: "subprocess.Popen[str]") -> bool:
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_while_it_imports_ends_it_with_its_code(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "medserl", "train", "--run-dir", str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 60
        while not takes(number, process):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        output = process.communicate(timeout=100)[0]
    finally:
        process.kill()
    assert process.returncode == 128 + number, output
    assert f"told to stop (signal {number:d}) before the training began" in output
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_what_is_lost_and_is_written_down(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path, None)
    run.start()
    run._finished = 3
    caplog.set_level("INFO", "medserl.run")
    run.interrupted()
    assert "interrupted; there is no checkpoint yet: 3 finished rounds are lost" in caplog.text
    started = json.loads((tmp_path / "provenance.json").read_text())["starts"]
    assert started[-1]["ended"]["stopped_by"] == "Ctrl-C" and started[-1]["ended"]["rounds"] == [0, 3]


def test_a_start_that_dies_before_its_first_round_has_lost_none(tmp_path: Path) -> None:
    """It has loaded nothing yet, and two rounds were saved before: not "-2 finished rounds are lost"."""
    assert play(tmp_path, None, signalled_in=2)[1] == 2
    run = Run(tmp_path, None)
    assert run.how_to_go_on() == "no finished round is lost; the same command resumes after round 2"


class AlarmedRun(Run):
    """Whose filter accepts nothing from round 3 on."""

    def training_step(self, batch: Any) -> dict[str, float]:
        metrics = super().training_step(batch)
        self._alarms.see(self.round, {"vcf_acceptance_rate": 0.6 if self.round < 3 else 0.0})
        return metrics


@pytest.mark.parametrize(("stop", "code", "rounds"), [(True, 1, 3), (False, 0, 6)])
def test_an_alarm_ends_a_run_that_asked_for_it(tmp_path: Path, stop: bool, code: int, rounds: int) -> None:
    run = AlarmedRun(tmp_path, None, rounds=6)
    run._alarms = Alarms(AlarmSettings(rounds=1, stop=stop))
    try:
        run.fit()
        assert _exit_code(run) == code
        assert checkpoint.latest_step(run.run_dir.checkpoints) == rounds
    finally:
        run.run_dir.close()
    assert ("alarm acceptance" in (tmp_path / "provenance.json").read_text()) is stop
