"""The worker processes of a warm start on this node: started by torch's launcher, followed, ended with it. No torch."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from medserl.files import PRIVATE_FILE
from medserl.run.causes import first_raised, first_signal
from medserl.run.leftovers import RUN_TOKEN, Guard
from medserl.run.stop_signals import handled, held, leave
from medserl.sft.nodes import Place
from medserl.sft.step_lines import STEP, figures, step_line

logger = logging.getLogger("medserl.sft")
_LINES = 50  # of a training, at most about so many
# What is told of each step: its number and verl's figures.
Heard = Callable[[int, dict[str, float]], object]


class SftFailed(RuntimeError):
    """A training process ended with an error."""


def launch(
    place: Place,
    workers: int,
    resolved: Path,
    log: Path,
    variables: Mapping[str, str],
    steps: int,
    heard: Heard | None = None,
) -> None:
    """Start this node's workers and wait for them.

    Args:
        place: This node among the others.
        workers: How many to start here.
        resolved: The configuration that they read.
        log: Where what they print goes.
        variables: Additions to their environment, the run's token among them.
        steps: Of the whole training.
        heard: Told of every step, as its line comes.

    Raises:
        SftFailed: one of them ended with an error.
    """
    command = [
        *(sys.executable, "-m", "medserl.sft.torch_run", *place.launcher_options()),
        *(f"--nproc-per-node={workers}", "-m", "medserl.sft.worker", str(resolved)),
    ]
    with open(os.open(log, os.O_WRONLY | os.O_CREAT, PRIVATE_FILE), "wb") as output:
        environment = {**os.environ, **variables}
        with handled(leave), ExitStack() as ends:
            with held():
                ends.callback(Guard(variables[RUN_TOKEN], None, log.parent).dismiss)
                process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
                ends.callback(_end, process)
            _follow(process, log, max(1, steps // _LINES), heard)
    if process.returncode != 0:
        printed = log.read_text(encoding="utf-8", errors="replace")
        said = first_raised(printed) or _ended(printed, process.returncode)
        raise SftFailed(
            f"{said}; everything that was printed is in {log}; the same command continues after the last checkpoint"
        )


def _follow(process: subprocess.Popen[bytes], log: Path, every: int, heard: Heard | None) -> None:
    """Pass verl's step lines on as they come: each ``every``-th to the log, the figures of all to ``heard``."""
    position = 0
    while True:
        ended = _wait(process)
        with log.open("rb") as file:
            file.seek(position)
            text = file.read()
        whole = text.rfind(b"\n") + 1
        position += whole
        for match in STEP.finditer(text[:whole].decode("utf-8", "replace")):
            if heard is not None:
                heard(int(match["step"]), figures(match))
            if int(match["step"]) % every == 0:
                logger.info("%s", step_line(match))
        if ended:
            return


def _ended(output: str, code: int) -> str:
    """Of a process that raised nothing."""
    by_signal = first_signal(output)
    return f"a training process was ended by {by_signal}" if by_signal else f"a training process ended with code {code}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Where it has not ended by itself; torch's launcher ends its workers."""
    process.terminate()
    process.wait()


def _wait(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=2.0)
    except subprocess.TimeoutExpired:
        return False
    return True
