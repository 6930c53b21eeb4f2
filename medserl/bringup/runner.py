"""Runs the checks in child processes and writes a line for each as soon as it is known. Standard library only.

A check can end its process (an illegal instruction, an abort of CUDA's) or never end; neither stops those after it.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from medserl.bringup.checks import CPU, FAILED, LEFT_OUT, NOT_RUN, Check
from medserl.bringup.machine import missing
from medserl.run.stop_signals import held

LAST_WORDS = 3
"""Lines of a dead child's output that its answer quotes."""
Report = Callable[[dict[str, Any]], None]


class Child:
    """One process of `medserl.bringup.child`, in a process group of its own."""

    def __init__(self, device: str, folder: Path, environment: Mapping[str, str]) -> None:
        reader, writer = os.pipe()
        self.log = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by `end`)
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "medserl.bringup.child", device, str(folder), str(writer)],
                stdin=subprocess.PIPE,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(writer)
        self._answers = open(reader, "rb", buffering=0)  # noqa: SIM115
        self._read = b""

    def ask(self, call: str, seconds: float) -> dict[str, Any]:
        """Have it run a check; its answer, or what became of it where none came."""
        orders: IO[bytes] = self.process.stdin  # type: ignore[assignment]
        with contextlib.suppress(BrokenPipeError):
            orders.write(f"{call}\n".encode())
            orders.flush()
        line = self._line(time.monotonic() + seconds)
        if line is None:
            self._kill()
            return {"status": FAILED, "why": f"no answer after {seconds:.0f} s; the check was stopped"}
        if not line:
            return {"status": FAILED, "why": self._obituary()}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _line(self, deadline: float) -> bytes | None:
        """One line; nothing where the child has gone, None where it is too late."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._read:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                if not (more := self._answers.read(65536)):
                    return b""
                self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _obituary(self) -> str:
        code = self.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        words = " | ".join(lines[-LAST_WORDS:])[-500:]
        return f"the process ended with {how}" + (f": {words}" if words else "")

    @property
    def usable(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        """End it and every process that it started."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()  # type: ignore[union-attr]
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=2)
        self._kill()
        self._answers.close()
        self.log.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Runner:
    """Runs checks on one device.

    Attributes:
        device: ``cpu`` or ``cuda``.
        environment: Of the children.
        report: Called with each line as soon as it is known.
        minutes: Leave out what is not expected to end within them; None for no limit.
    """

    device: str
    environment: Mapping[str, str]
    report: Report
    minutes: float | None = None
    _child: Child | None = None
    _group: str = ""
    _began: float = field(default_factory=time.monotonic)

    def run(self, checks: Sequence[Check]) -> list[dict[str, Any]]:
        """One line for each check, in their order."""
        lines = []
        with _folder() as folder:
            try:
                for check in checks:
                    began = time.monotonic()
                    found = self._skipped(check) or self._run(check, folder)
                    lines.append(self._line(check, found, time.monotonic() - began))
                    self.report(lines[-1])
            finally:
                self._close()
        return lines

    def _skipped(self, check: Check) -> dict[str, Any] | None:
        seconds = check.seconds(self.device)
        if seconds is None:
            return {"status": NOT_RUN, "why": "no GPU" if self.device == CPU else "it is for CPUs"}
        if (lacking := missing(check.needs(self.device))) is not None:
            return {"status": NOT_RUN, "why": f"{lacking} is not installed"}
        if (left := self._left()) is not None and seconds > left:
            return {"status": LEFT_OUT, "why": f"takes about {seconds:.0f} s, {max(0.0, left):.0f} s are left"}
        return None

    def _left(self) -> float | None:
        return None if self.minutes is None else 60 * self.minutes - (time.monotonic() - self._began)

    def _run(self, check: Check, folder: Path) -> dict[str, Any]:
        if self._child is None or not self._child.usable or check.fresh or check.group != self._group:
            self._close()
            try:
                with held():  # it is in a session of its own and has the GPU: it must not be lost
                    self._child = Child(self.device, folder, self.environment)
            except OSError as error:  # no memory for a process, no file left to open
                return {"status": FAILED, "why": f"no process could be started ({error.strerror})"}
        limit, left = check.limit(self.device), self._left()
        answer = self._child.ask(check.call, limit if left is None else min(limit, left))
        if check.fresh or not self._child.usable:
            self._close()
        self._group = check.group
        return answer

    def _line(self, check: Check, found: dict[str, Any], seconds: float) -> dict[str, Any]:
        named = {"check": check.key, "title": check.title, "status": found["status"], "device": self.device}
        rest = {name: value for name, value in found.items() if name != "status"}
        return named | {"expected": check.expected} | rest | {"seconds": round(seconds, 1)}

    def _close(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="medserl-bringup-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
