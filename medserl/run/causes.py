"""What ended a run, and what that means for it, in a sentence each. No torch, no Ray."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from medserl.run import checkpoint

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The last line of a Python traceback: the exception's name, then what it says.
_RAISED = re.compile(r"^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:: .*)?$")
# Ray 2.60, src/ray/raylet: what its memory monitor says of workers that it killed.
_LOW_ON_MEMORY = re.compile(r"^.*due to the node running low on memory.*$", re.MULTILINE)
# torch 2.11, distributed/elastic: what its launcher says of the first process that a signal ended.
_SIGNALLED = re.compile(r"^\s*exitcode\s*: -(\d+) \(pid", re.MULTILINE)
_LONGEST = 500


def innermost(error: BaseException) -> str:
    """The exception that began it, as ``Name: what it says``, on one line of at most 500 characters.

    Ray wraps the exception of a worker in a ``RayTaskError`` whose text holds the worker's whole traceback, and whose
    first line names processes only (ray 2.60, python/ray/exceptions.py). Exceptions that were raised ``from`` another
    lead to that one, as far as it says something.
    """
    text = _COLOUR.sub("", str(error)).strip()
    if low := _LOW_ON_MEMORY.search(text):  # Ray's own remarks and lists stand behind it, among them "ray::" names
        line = low[0].strip()
        return (line if _RAISED.match(line) else f"{type(error).__name__}: {line}")[:_LONGEST]
    if "ray::" in text and "\n" in text:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raised = [line for line in lines if _RAISED.match(line) and not line.startswith("ray::")]
        return (raised or lines)[-1][:_LONGEST]
    first = text.splitlines()[0].strip() if text else ""
    if not first and error.__cause__ is not None:
        return innermost(error.__cause__)
    return (f"{type(error).__name__}: {first}" if first else type(error).__name__)[:_LONGEST]


def first_raised(output: str) -> str | None:
    """The exception that the first traceback in a program's output ends with, as `innermost` says it; None: none does.

    torch's launcher shows the tracebacks of all processes, with ``[rank0]:`` before each line, and its own at the end
    (torch 2.11, distributed/elastic); the first is what began it.
    """
    inside = False
    for line in _COLOUR.sub("", output).splitlines():
        text = re.sub(r"^\[rank\d+\]:\s?", "", line.rpartition("\r")[2])
        if text.startswith("Traceback (most recent call last):"):
            inside = True
        elif inside and text.strip() and not text[0].isspace() and _RAISED.match(text.strip()):
            return text.strip()[:_LONGEST]
    return None


def first_signal(output: str) -> str | None:
    """The signal that ended the process whose end torch's launcher tells of, and what that often means; None: none."""
    if (found := _SIGNALLED.search(_COLOUR.sub("", output))) is None:
        return None
    number = int(found[1])
    name = signal.Signals(number).name if number in {*signal.Signals} else f"signal {number}"
    return name + (", which Linux sends where memory runs out" if number == signal.SIGKILL else "")


def how_to_go_on(checkpoints: Path, finished: int | None, saved: int = 0) -> str:
    """What a run that ended in its midst has lost, and where the same command goes on, in a phrase.

    Args:
        checkpoints: The folder of all checkpoints.
        finished: The last round that was finished, whether or not a checkpoint holds it; None where this start had not
            come to its first round, so that it can have lost none.
        saved: The last round of which this start has read or written a checkpoint itself. Others count where they are
            later and whole: a later one may be damaged, and passed over for that.
    """
    if finished is None:
        last = lost = checkpoint.latest_step(checkpoints, content=False)
    else:
        later = [step for step in checkpoint.steps(checkpoints) if saved < step <= finished]
        whole = (step for step in later if checkpoint.damage(checkpoint.folder(checkpoints, step)) is None)
        last, lost = max(whole, default=saved), finished
    phrase = {0: "no finished round is lost", 1: "one finished round is lost"}.get(
        lost - last, f"{lost - last} finished rounds are lost"
    )
    if not last:
        return f"there is no checkpoint yet: {phrase}, and the same command begins anew"
    return f"{phrase}; the same command resumes after round {last}"
