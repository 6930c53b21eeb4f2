"""A run that is killed again and again, each time at a random moment of another phase, and what must hold after each
kill. tests/e2e/victim.py is the program that dies."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medserl.run import checkpoint
from medserl.run.leftovers import RUN_TOKEN, SOCKETS
from medserl.run.run_log import METRICS_FILE, parse_metrics
from tests.e2e.runs import MARK, SESSION, SWEEP_LIMIT, processes
from tests.e2e.victim import REACHED

VICTIM = Path(__file__).with_name("victim.py")
PHASES = ("start", "round", "validation", "save", "retention", "requeue")
TINY = (
    "medserl.rollout_batch_size=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=8",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=16",
    "medserl.validation.count=8",
    "trainer.val_before_train=false",
    "trainer.test_freq=1",
    "trainer.save_freq=1",
    "trainer.max_actor_ckpt_to_keep=2",
)
"""The embedded default with rounds of seconds; retention has something to remove from the third checkpoint on."""
RUN_LIMIT = 3600  # seconds of one start and what it plays: nightly, perhaps beside much else
MORE = 2  # rounds that are played after the last kill


@dataclass(frozen=True)
class Pace:
    """Seconds that the phases of an undisturbed run take on this machine."""

    start: float
    round: float
    validation: float
    save: float
    end: float


@dataclass(frozen=True)
class Kill:
    """When to kill.

    Args:
        phase: One of PHASES.
        plan: What the victim is told.
        tree: All processes at once, as a node's death does; otherwise the main one, and its guard ends the others.
    """

    phase: str
    plan: dict[str, Any]
    tree: bool

    def __str__(self) -> str:
        when = ", ".join(f"{key} {value}" for key, value in self.plan.items())
        return f"{self.phase} ({when}; {'the whole tree' if self.tree else 'the main process'})"


def kills(seed: int, count: int, pace: Pace) -> list[Kill]:
    """``count`` kills, the phases in random order but equally often, each at a random moment of its own."""
    rng = random.Random(seed)
    phases = [PHASES[i % len(PHASES)] for i in range(count)]
    rng.shuffle(phases)
    return [Kill(phase, _moment(phase, pace, rng), rng.random() < 0.7) for phase in phases]


def _moment(phase: str, pace: Pace, rng: random.Random) -> dict[str, Any]:
    def seconds(longest: float, name: str = phase) -> dict[str, Any]:
        return {"phase": name, "seconds": round(rng.uniform(0.0, longest), 3)}

    def operations(most: int, name: str = phase) -> dict[str, Any]:
        return {"phase": name, "operations": rng.randrange(most)}

    match phase:
        case "start":
            return operations(16, "record") if rng.random() < 0.25 else seconds(pace.start)
        case "round":
            return seconds(pace.round)
        case "validation":
            return seconds(pace.validation)
        case "save":
            return operations(90, "publish") if rng.random() < 0.5 else seconds(pace.save)
        case "retention":
            return operations(40)
    return seconds(pace.round + pace.validation + pace.save + pace.end)


@dataclass
class Chain:
    """A run directory and what was done to it.

    Args:
        path: The run directory.
    """

    path: Path
    counted: Counter[str] = field(default_factory=Counter)
    saved: int = 0
    """The newest round of which a checkpoint was seen whole."""
    complaints: list[str] = field(default_factory=list)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def command(self, rounds: int) -> list[str]:
        return ["train", "--run-dir", str(self.path), "--max-rounds", str(rounds), *TINY]

    def suffer(self, kill: Kill, rounds: int) -> str:
        """Start the run, kill it, look at what is left; returns a line about it."""
        told, began = self.path.with_suffix(".told"), time.monotonic()
        told.unlink(missing_ok=True)
        before = len(self._log())
        plan = json.dumps({**kill.plan, "told": str(told)})
        command = [sys.executable, str(VICTIM), plan, *self.command(rounds)]
        with self.path.with_suffix(".out").open("a") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, MARK: SESSION},
            )  # fmt: skip
            try:
                code = process.wait(timeout=RUN_LIMIT)
            finally:
                left = self._clear(kill.tree or process.poll() is None)
        said = self._log()[before:]
        if code != -signal.SIGKILL or not (told.is_file() and told.read_text() == REACHED):
            self.complaints.append(f"{kill}: was not killed, ended with {code}")
        if left:
            self.complaints.append(f"{kill}: {len(left)} processes were left behind: {left[:3]}")
        self.counted[kill.phase] += 1
        found = self.look(said)
        self.complaints += [f"{kill}: {complaint}" for complaint in found]
        whole = checkpoint.steps(self.checkpoints)
        return f"{kill}: after {time.monotonic() - began:.0f} s, checkpoints {whole}, {len(found)} complaints"

    def _log(self) -> str:
        log = self.path / "train.log"
        return log.read_text() if log.is_file() else ""

    def _clear(self, tree: bool) -> list[str]:
        """End what is left, unless the run's guard is to do that; returns what that one has left behind."""
        left: list[str] = []
        tokens, shared = _belongings()
        deadline = time.monotonic() + SWEEP_LIMIT
        while processes() and not tree and time.monotonic() < deadline:
            time.sleep(0.1)
        if not tree:
            left = list(processes().values())
        while found := processes():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        for token in tokens:
            for socket in Path("/tmp").glob(f"{SOCKETS}{token}-*"):
                socket.unlink(missing_ok=True)
        for file in shared:  # a node that died has no memory left, this machine has
            Path(file).unlink(missing_ok=True)
        return left

    def look(self, said: str) -> list[str]:
        """What of that which was saved is lost or damaged, a sentence each.

        Args:
            said: What the start that was killed has written into train.log.
        """
        found = []
        steps = checkpoint.steps(self.checkpoints)
        for step in steps:
            if reason := checkpoint.damage(checkpoint.folder(self.checkpoints, step)):
                found.append(f"the published checkpoint of round {step} is damaged: {reason}")
        newest = checkpoint.latest_step(self.checkpoints)
        announced = [int(number) for number in re.findall(r"checkpoint \S+global_step_(\d+) \(", said)]
        wanted = max([self.saved, *announced])
        if newest < wanted:
            found.append(f"the checkpoint of round {wanted} was saved and is gone; the newest is {newest}")
        self.saved = max(newest, self.saved)
        best = checkpoint.best(self.checkpoints)
        if best is not None and best["step"] not in steps:
            found.append(f"best.json names round {best['step']}, of which there is no checkpoint")
        return found + self._look_at_metrics(newest)

    def _look_at_metrics(self, newest: int) -> list[str]:
        path = self.path / METRICS_FILE
        rows, bad = parse_metrics(path.read_bytes()) if path.is_file() else ([], [])
        numbers = [row["round"] for row in rows if not row.get("validation")]
        found = [f"line {number} of {METRICS_FILE} cannot be read" for number, _ in bad]
        if numbers != list(range(1, len(numbers) + 1)):
            found.append(f"{METRICS_FILE} has the rounds {numbers}")
        if len(numbers) < newest:
            found.append(f"{METRICS_FILE} ends with round {len(numbers)}, but that of {newest} was saved")
        return found


def _belongings() -> tuple[set[str], set[str]]:
    """Run tokens and shared memory of the processes that are there."""
    tokens: set[str] = set()
    shared: set[str] = set()
    for pid in processes():
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
            tokens |= {item.partition("=")[2] for item in environment if item.startswith(f"{RUN_TOKEN}=")}
            shared |= set(re.findall(r" (/dev/shm/\S+)$", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE))
    return tokens, shared


def paced(path: Path, rounds: int) -> Pace:
    """Run it undisturbed to its end; how long its phases took.

    Raises:
        AssertionError: it failed.
    """
    began = time.time()
    with path.with_suffix(".out").open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "medserl", *Chain(path).command(rounds)],
            stdout=output, stderr=subprocess.STDOUT, env={**os.environ, MARK: SESSION}, timeout=RUN_LIMIT,
            check=False,
        )  # fmt: skip
    said = path.with_suffix(".out").read_text()
    assert done.returncode == 0, said
    ready = re.search(r"ready after (\d+) s", said)
    assert ready is not None, said
    rows, _ = parse_metrics((path / METRICS_FILE).read_bytes())
    saves = [float(seconds) for seconds in re.findall(r"global_step_\d+ \(([\d.]+) s\)", said)]
    last = (path / METRICS_FILE).stat().st_mtime
    steps = sorted(row["timing_s/step"] for row in rows)
    return Pace(
        start=float(ready[1]) + (path / "config.yaml").stat().st_mtime - began,
        round=steps[len(steps) // 2],
        validation=max(row["timing_s/validate"] for row in rows),
        save=max(saves),
        end=time.time() - last,
    )
