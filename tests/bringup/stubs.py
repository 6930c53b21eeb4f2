"""Checks for tests/bringup/test_runner.py: each does what a real one can do to its process."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

from medserl.bringup.checks import NotRun, Unexpected
from medserl.bringup.child import Place


def passes(place: Place) -> dict[str, Any]:
    print("what a library prints")
    return {"pid": os.getpid(), "device": place.device, "there": place.folder.is_dir()}


def raises(place: Place) -> dict[str, Any]:
    raise RuntimeError("no kernel image\nand a page of details")


def is_unexpected(place: Place) -> dict[str, Any]:
    raise Unexpected("too slow", {"mfu": 0.1})


def is_not_run(place: Place) -> dict[str, Any]:
    raise NotRun("this GPU is too old")


def dies(place: Place) -> dict[str, Any]:
    print("CUDA error: device-side assert triggered", flush=True)
    os.kill(os.getpid(), signal.SIGILL)
    return {}


def leaves(place: Place) -> dict[str, Any]:
    os._exit(3)


def hangs(place: Place) -> dict[str, Any]:
    """With a child of its own, which must not stay behind either."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (place.folder.parent / f"{place.folder.name}.pids").write_text(f"{os.getpid()} {child.pid}")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
    return {}


def cannot_be_written(place: Place) -> dict[str, Any]:
    return {"path": place.folder}  # no JSON of its own
