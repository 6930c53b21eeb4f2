"""SIGTERM and SIGUSR1 ask a run to end after the round under way."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Signals that ask to stop go to ``handler`` inside; may be nested. Outside the main thread nothing changes:
    Python lets none but that one handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def leave(number: int, _: FrameType | None) -> None:
    """A handler for ``handled``: SystemExit, so that whoever started processes ends them and leaves none behind."""
    raise SystemExit(128 + number)


@contextmanager
def held() -> Iterator[None]:
    """What asks to stop inside is asked again afterwards. For the start of a process: what a handler raises in there
    loses the process before anybody knows it, and Python itself drops it where it is raised in a hook of a fork."""
    came: list[int] = []
    with handled(lambda number, _: came.append(number)):
        yield
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def passed_on(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process. What tells this one to stop inside, the start included, tells that one, whose end then ends
    what waits for it.

    Args:
        command: What to run.
        **options: As ``subprocess.Popen`` takes them.
    """
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:
            early.append(number)
        else:
            process.send_signal(number)

    with handled(pass_on):
        process = subprocess.Popen(command, **options)
        for number in early[:1]:
            process.send_signal(number)
        yield process


class StopSignals:
    """Remembers the first signal that came; ``received`` is its number."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._active = False

    @property
    def too_early(self) -> str:
        """What to say where it came before anything was started."""
        return f"told to stop (signal {self.received}) before the training began; the same command starts it"

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Inside, the signals are remembered; in a thread other than the main one nothing is changed. May be nested."""
        if threading.current_thread() is not threading.main_thread():
            yield  # the caller has its own way to stop
            return
        previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        self._active = True
        self.catch()
        try:
            yield
        finally:
            self._active = False
            for number, handler in previous.items():
                signal.signal(number, handler)

    def catch(self) -> None:
        """Take the signals again: Ray installs handlers of its own when it starts."""
        if self._active:
            for number in STOP_SIGNALS:
                signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = number
