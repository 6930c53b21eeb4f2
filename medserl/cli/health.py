"""``medserl health``: whether the training runs of this user on this machine, or in this container, still move.

The images' health check. It costs one start of Python without any heavy import.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

from medserl.errors import EXIT_FAILURE, EXIT_OK, ConfigError

DEFAULT_MINUTES = 30.0
# A round may take this much longer than the longest of the latest ones before the run counts as stuck.
ROUNDS_OF_PATIENCE = 5.0
LATEST_BYTES = 200_000  # of metrics.jsonl; a round takes 7 KB
WRITTEN = ("metrics.jsonl", "train.log", ".lock", "checkpoints", "checkpoints/.saving")


def add_health(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl health``."""
    parser = commands.add_parser(
        "health",
        help="say whether the training runs here still make progress (the images' health check)",
        description="The exit code is 0 if every run that is going on here has written something lately, or "
        "if there is none; otherwise it is 1.",
    )
    parser.set_defaults(run=run_health)
    parser.add_argument(
        "--minutes",
        type=float,
        default=DEFAULT_MINUTES,
        help=f"minutes of silence that are always allowed, also at start-up (default: {DEFAULT_MINUTES:.0f}); "
        f"the time of {ROUNDS_OF_PATIENCE:.0f} of the longest recent rounds is always allowed too",
    )


def run_health(options: argparse.Namespace, overrides: list[str]) -> int:
    """Look at every run that is going on here; a line each."""
    if overrides:
        raise ConfigError(f"{overrides[0]}: health takes no overrides")
    if not 0 < options.minutes < math.inf:
        raise ConfigError(f"--minutes: {options.minutes:g} is not a length of time; give a number above 0")
    found = sorted(running())
    silent = False
    for run_dir in found:
        quiet, allowed = silence(run_dir), allowed_silence(run_dir, options.minutes * 60)
        silent |= quiet > allowed
        word = "stuck" if quiet > allowed else "moves"
        print(f"{word}: {run_dir}: last sign of life {quiet:.0f} s ago, {allowed:.0f} s are allowed")
    if not found:
        print("no training run is going on here")
    return EXIT_FAILURE if silent else EXIT_OK


def running(proc: Path = Path("/proc")) -> set[Path]:
    """Directories of the runs that processes of this user hold: each keeps its ``.lock`` open while it lasts."""
    return {lock.parent for lock in _open_locks(proc) if (lock.parent / "config.yaml").is_file()}


def _open_locks(proc: Path) -> Iterator[Path]:
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # gone in the meantime, or another user's
            for entry in (process / "fd").iterdir():
                with contextlib.suppress(OSError):  # closed in the meantime
                    target = os.readlink(entry)
                    if target.endswith("/.lock"):
                        yield Path(target)


def silence(run_dir: Path) -> float:
    """Seconds since a run wrote a metric, a line of its log or a part of a checkpoint, or since it started."""
    newest = 0.0
    for name in WRITTEN:
        path = run_dir / name
        if path.exists():
            newest = max(newest, path.stat().st_mtime)
        if name.endswith(".saving"):  # a large checkpoint is written for minutes
            newest = max([newest, *(file.stat().st_mtime for file in path.rglob("*") if file.is_file())])
    return max(0.0, time.time() - newest)


def allowed_silence(run_dir: Path, least: float) -> float:
    """Seconds of silence that are no reason to worry: ``least``, or a few of the longest recent rounds."""
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        return least
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LATEST_BYTES))
        lines = file.read().splitlines()
    durations = [0.0]
    for line in lines:  # the first and the last may be cut
        try:
            seconds = float(json.loads(line)["timing_s/step"])
        except (ValueError, TypeError, LookupError):  # cut off, damaged, or a validation
            continue
        if math.isfinite(seconds):
            durations.append(seconds)
    return max(least, ROUNDS_OF_PATIENCE * max(durations))
