"""``medserl train``, killed by SIGKILL at a moment of a certain phase: ``python tests/e2e/victim.py PLAN train …``.

The program is the real one; a few functions that begin a phase are wrapped, to say so and to start the countdown. Only
the main process dies here, at once: whoever started it (tests/e2e/kills.py) ends the others, or leaves that to the
run's own guard.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

OPERATIONS = ("replace", "rename", "unlink", "rmdir", "mkdir", "open", "fsync")
REACHED = "reached"


class Victim:
    """Waits for its phase and dies in it.

    Args:
        plan: ``phase``; ``seconds`` or ``operations`` (on files) that the phase lasts before the kill; ``told``, the
            file in which it says that the phase was reached.
    """

    def __init__(self, plan: dict[str, Any]) -> None:
        self.phase: str = plan["phase"]
        self._seconds: float | None = plan.get("seconds")
        self._operations: int | None = plan.get("operations")
        self._told = Path(plan["told"])
        self._armed = False
        self._done = 0

    def begins(self, phase: str) -> None:
        """A phase begins; the countdown starts with the first one that is ours."""
        if phase != self.phase or self._armed:
            return
        self._armed = True
        self._told.write_text(REACHED)
        if self._seconds is not None:
            threading.Thread(target=self._die_later, daemon=True).start()
        if self._operations is not None:
            for name in OPERATIONS:
                setattr(os, name, self._counted(getattr(os, name)))

    def ends(self, phase: str) -> None:
        """A phase that is over before the countdown is."""
        if phase == self.phase and self._armed:
            die()

    def _die_later(self) -> None:
        time.sleep(self._seconds or 0.0)
        die()

    def _counted(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **named: Any) -> Any:
            if self._done >= (self._operations or 0):
                die()
            self._done += 1
            return real(*arguments, **named)

        return operation

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """The phase is what a function of ``owner`` does."""
        real = getattr(owner, name)

        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.begins(phase)
            try:
                return real(*arguments, **named)
            finally:
                self.ends(phase)

        setattr(owner, name, wrapped)


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def prepare(victim: Victim) -> None:
    """Have the phases say when they begin. Nothing heavy is imported here: the program sets its environment first."""
    from medserl.run import checkpoint
    from medserl.run.run_dir import RunDir
    from medserl.training.api import MedSeRLTrainer

    if victim.phase == "requeue":
        _signalled_in_a_round(victim, MedSeRLTrainer)
        return
    victim.wrap(MedSeRLTrainer, "training_step", "round")
    victim.wrap(checkpoint, "publish", "publish")
    _retention(victim, checkpoint)
    victim.wrap(RunDir, "open", "record")
    started, saving = MedSeRLTrainer._start_trainer, checkpoint.saving

    def start_trainer(self: MedSeRLTrainer, began: float) -> None:
        started(self, began)
        victim.ends("start")
        victim.wrap(self.trainer, "validate", "validation")

    @contextlib.contextmanager
    def saved(*arguments: Any) -> Any:
        victim.begins("save")
        with saving(*arguments) as staging:
            yield staging
        victim.ends("save")

    MedSeRLTrainer._start_trainer = start_trainer  # type: ignore[method-assign]
    checkpoint.saving = saved


def _retention(victim: Victim, checkpoint: Any) -> None:
    """The first one that has something to remove."""
    clear = checkpoint._clear_old

    def cleared(root: Path, new: Path, keep: int | None) -> None:
        removes = keep is not None and len(checkpoint.steps(root)) > keep
        if removes:
            victim.begins("retention")
        clear(root, new, keep)
        if removes:
            victim.ends("retention")

    checkpoint._clear_old = cleared


def _signalled_in_a_round(victim: Victim, trainer: Any) -> None:
    """As a launcher does before a job's time is over: SIGUSR1 in a round, which is played to its end and saved."""
    played = trainer.training_step

    def training_step(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGUSR1)
        victim.begins("requeue")
        return played(*arguments)

    trainer.training_step = training_step


def main(plan: dict[str, Any], arguments: list[str]) -> int:
    victim = Victim(plan)
    victim.begins("start")
    prepare(victim)
    from medserl.cli.main import main as medserl

    code = medserl(arguments)
    victim.ends("requeue")
    return code


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1]), sys.argv[2:]))
