"""Starts ``medserl train`` in processes of its own, and reads what it wrote."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_LIMIT = 600  # seconds: a loaded machine with two cores
COMMON = ("trainer.save_freq=2", "trainer.max_actor_ckpt_to_keep=null", "medserl.dump_games=true")


@dataclass(frozen=True)
class Run:
    """A finished run: where it wrote, how it ended, what it said."""

    path: Path
    exit_code: int
    output: str

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


def train(run_dir: Path, *arguments: str, stop_after: str | None = None) -> Run:
    """Run ``medserl train``; with ``stop_after``, send SIGTERM as soon as that text is in its log."""
    command = [sys.executable, "-m", "medserl", "train", "--run-dir", str(run_dir), *COMMON, *arguments]
    log = run_dir.with_suffix(".out")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            deadline = time.monotonic() + START_LIMIT
            while stop_after is not None and process.poll() is None and time.monotonic() < deadline:
                if stop_after in log.read_text():
                    process.send_signal(signal.SIGTERM)
                    break
                time.sleep(0.2)
            code = process.wait(timeout=START_LIMIT)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return Run(run_dir, code, log.read_text())


def descendants_of_runs() -> set[int]:
    """Process ids that have a run of these tests in their command line or environment."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if b"medserl-" in text and b"VERL_PLATFORM" in text:
            found.add(int(entry.name))
    return found - {os.getpid()}
