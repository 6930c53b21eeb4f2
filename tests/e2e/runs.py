"""Starts ``medserl train`` in processes of its own, harms it where a test asks for it, and reads what it wrote."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_LIMIT = 600  # seconds: a loaded machine with two cores
SWEEP_LIMIT = 30  # seconds until nothing of a run is left
COMMON = ("trainer.save_freq=2", "trainer.max_actor_ckpt_to_keep=null", "medserl.dump_games=true")
MARK = "MEDSERL_TEST_RUN"
SESSION = uuid.uuid4().hex
"""In the environment of every process that these tests start: runs of others on this machine are left alone."""
Action = Callable[[subprocess.Popen[bytes]], None]


@dataclass(frozen=True)
class Run:
    """A finished run: where it wrote, how it ended, what it said."""

    path: Path
    exit_code: int
    output: str
    left_behind: list[str] = field(default_factory=list)
    """Command lines of its processes that were still there when it had ended."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row a round."""
        return [row for row in self._rows if not row.get("validation")]

    @property
    def validations(self) -> list[dict[str, Any]]:
        """Rows of validations that stand by themselves: before the first round."""
        return [row for row in self._rows if row.get("validation")]

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    def games(self, number: int) -> list[dict[str, Any]]:
        return [
            json.loads(line) for line in (self.path / "games" / f"round_{number:06d}.jsonl").read_text().splitlines()
        ]


def train(
    run_dir: Path,
    *arguments: str,
    after: str | None = None,
    do: Action | None = None,
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Run ``medserl train``; as soon as ``after`` is in its log, ``do`` something to it."""
    command = [sys.executable, "-m", "medserl", "train", "--run-dir", str(run_dir), *COMMON, *arguments]
    log = run_dir.with_suffix(".out")
    variables = {**os.environ, **(environment or {}), MARK: SESSION}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=variables
        )
        try:
            deadline = time.monotonic() + START_LIMIT
            while after is not None and process.poll() is None and time.monotonic() < deadline:
                if after in log.read_text():
                    assert do is not None
                    do(process)
                    break
                time.sleep(0.2)
            code = process.wait(timeout=START_LIMIT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + SWEEP_LIMIT
    while processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    return Run(run_dir, code, log.read_text(), list(processes().values()))


def send(number: int) -> Action:
    """A signal to the main process."""
    return lambda process: process.send_signal(number)


def kill_part(name: str) -> Action:
    """SIGKILL to the newest process of the run whose title contains ``name``."""

    def kill(_: subprocess.Popen[bytes]) -> None:
        os.kill(max(pid for pid, title in processes().items() if name in title), signal.SIGKILL)

    return kill


def processes() -> dict[int, str]:
    """Processes that these tests have started and that are there: id, command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            marked = f"{MARK}={SESSION}".encode() in (entry / "environ").read_bytes()
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if marked and title:  # a zombie has no title
            found[int(entry.name)] = title
    return found
