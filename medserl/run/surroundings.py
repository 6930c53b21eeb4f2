"""What a run changes of the process around it, and gives back: environment, standard output, the log. No torch."""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from medserl.files import open_private
from medserl.run.run_log import set_up_logging


class Surroundings:
    """One start's changes; made before the first of them."""

    def __init__(self) -> None:
        self._environment = KeptEnvironment()
        self.output: DivertedOutput | None = None
        self._undo_logging: Callable[[], None] | None = None

    def log_to(self, run_dir: Path, output: Path | None) -> None:
        """Write ``train.log``, and send what other libraries print to the file ``output``; None: leave it."""
        if output is not None:
            self.output = DivertedOutput(output)
        self._undo_logging = set_up_logging(run_dir, self.console)

    @property
    def console(self) -> TextIO | None:
        """Where people look; None: standard error."""
        return None if self.output is None else self.output.console

    @property
    def logging(self) -> bool:
        """Whether what the run says goes to its log."""
        return self._undo_logging is not None

    def started(self) -> None:
        """Variables that are others now were set by the run."""
        self._environment.changed()

    def failed(self) -> None:
        """In an exception's handler: keep its traceback where the rest of the output is."""
        self._environment.changed()
        if self.output is not None:
            traceback.print_exc()

    def close(self) -> None:
        """Everything is the caller's again."""
        if self._undo_logging is not None:
            self._undo_logging()
            self._undo_logging = None
        if self.output is not None:
            self.output.close()
            self.output = None
        self._environment.close()


class KeptEnvironment:
    """Remembers ``os.environ`` and gives it back: what ``changed`` saw to be new, unless it was set again since."""

    def __init__(self) -> None:
        self._before = dict(os.environ)
        self._set: dict[str, str | None] = {}

    def changed(self) -> None:
        """Everything that is another now was set by this run."""
        names = self._before.keys() | os.environ.keys()
        self._set = {name: os.environ.get(name) for name in names if os.environ.get(name) != self._before.get(name)}

    def close(self) -> None:
        """Give it back."""
        for name, value in self._set.items():
            if os.environ.get(name) != value:
                continue
            if name in self._before:
                os.environ[name] = self._before[name]
            else:
                os.environ.pop(name, None)
        self._set = {}


@contextmanager
def environment_kept() -> Iterator[None]:
    """What is set in ``os.environ`` inside is not there afterwards."""
    kept = KeptEnvironment()
    try:
        yield
    finally:
        kept.changed()
        kept.close()


class DivertedOutput:
    """Sends this process's standard output and error, prints of C++ libraries included, to a private file, until
    ``close``.

    verl, vLLM and Ray print thousands of lines that help nobody who watches a run, and help much when one
    failed.

    Args:
        path: The file; appended to.
    """

    def __init__(self, path: Path) -> None:
        self._before: tuple[int, ...] = (os.dup(1), os.dup(2))
        self.console = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
        """The standard error as it was before, for what people should see."""
        _flush()
        with open_private(path) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)

    def close(self) -> None:
        """Give both back."""
        if not self._before:
            return
        _flush()
        for number, kept in enumerate(self._before, 1):
            os.dup2(kept, number)
            os.close(kept)
        self._before = ()
        self.console.close()


def _flush() -> None:
    """Python's own buffers, and those of C libraries."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
