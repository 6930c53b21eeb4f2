"""SIGTERM and SIGUSR1 ask a run to end after the round under way."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

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
def passed_on(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """What tells this process to stop inside tells ``process``, whose end then ends what waits for it."""

    def pass_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    with handled(pass_on):
        yield


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
