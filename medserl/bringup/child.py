"""A process that runs checks: ``python -m medserl.bringup.child DEVICE FOLDER FD``.

Reads names of functions from standard input, one a line, and answers each with one line of JSON on the file
descriptor FD. What a library prints goes elsewhere and does not matter. Standard library only, until a check runs.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from medserl.bringup.checks import FAILED, NOT_RUN, PASSED, NotRun, Unexpected


@dataclass(frozen=True)
class Place:
    """Where a check runs: on ``cpu`` or ``cuda``, with a folder for what it writes (gone when all is over)."""

    device: str
    folder: Path


def answer(call: str, place: Place) -> dict[str, Any]:
    """Run one check; whatever it raises becomes an answer."""
    try:
        module, _, name = call.partition(":")
        measured = getattr(importlib.import_module(module), name)(place)
    except NotRun as reason:
        return {"status": NOT_RUN, "why": str(reason)}
    except Unexpected as found:
        return {"status": FAILED, "why": str(found), "measured": found.measured}
    except Exception as error:
        traceback.print_exc()
        return {"status": FAILED, "why": sentence(error)}
    return {"status": PASSED, "measured": measured}


def sentence(error: BaseException) -> str:
    """The kind of an exception and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def serve(place: Place, orders: TextIO, answers: TextIO) -> None:
    """Run what is ordered until nothing more comes."""
    for line in orders:
        answers.write(json.dumps(answer(line.strip(), place), default=str) + "\n")
        answers.flush()


def main(arguments: list[str]) -> int:
    device, folder, descriptor = arguments
    with os.fdopen(int(descriptor), "w", encoding="utf-8") as answers:
        serve(Place(device, Path(folder)), sys.stdin, answers)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    # Without the interpreter's end: process groups and CUDA contexts of several libraries do not always survive it.
    os._exit(code)
