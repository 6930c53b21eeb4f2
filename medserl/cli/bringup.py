"""``medserl bringup``: checks of a machine in their order, each with what it expects, one line of JSON for each."""

from __future__ import annotations

import argparse
import json
import math
import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TextIO

from medserl.bringup.checks import CHECKS, FAILED, Check, chosen
from medserl.bringup.machine import children_environment, device_here, first_line
from medserl.bringup.runner import Runner
from medserl.bringup.table import listing, summary
from medserl.errors import EXIT_FAILURE, EXIT_OK, ConfigError
from medserl.files import open_private
from medserl.run.stop_signals import handled, leave


def bringup(options: argparse.Namespace, checks: Sequence[Check] = CHECKS) -> int:
    """Run the checks; 1 where one failed, 0 otherwise, also where some could not be run here."""
    picked = chosen(options.only, checks)
    minutes = options.until
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise ConfigError(f"--until: {minutes} is not a number of minutes above 0")
    if options.list:  # which starts nothing, so that no GPU need be here
        print(listing(picked, options.device if options.device != "auto" else device_here()))
        return EXIT_OK
    device = device_here(options.device)
    out = Path(options.out) if options.out else None
    # SIGTERM, which `timeout` sends, ends the check under way too: it is in a session of its own and has the GPU.
    with open_private(out) if out else nullcontext(sys.stdout) as file, handled(leave):
        machine = first_line(device) | {"checks": [check.key for check in picked], "until_minutes": minutes}
        write = writer(file)
        write(machine)
        report = Report(write)
        lines = Runner(device, children_environment(device), report, minutes).run(picked)
    print(summary(machine, lines), file=sys.stdout if out else sys.stderr, flush=True)
    if report.error is not None:
        raise report.error
    return EXIT_FAILURE if any(line["status"] == FAILED for line in lines) else EXIT_OK


class Report:
    """Writes lines; what cannot be written keeps no check from running.

    Attributes:
        error: The first that could not be written, to be told when all is over; the table has what they said.
    """

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self.write = write
        self.error: OSError | None = None

    def __call__(self, line: dict[str, Any]) -> None:
        try:
            self.write(line)
        except OSError as error:
            self.error = self.error or error


def writer(file: TextIO) -> Callable[[dict[str, Any]], None]:
    """Writes a line that survives whatever comes next."""
    on_disk = file is not sys.stdout and stat.S_ISREG(os.fstat(file.fileno()).st_mode)

    def write(line: dict[str, Any]) -> None:
        file.write(json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()
        if on_disk:
            os.fsync(file.fileno())

    return write


def plain(value: Any) -> Any:
    """The same without what JSON has no number for: a loss that is not finite is what a line is to tell."""
    if isinstance(value, dict):
        return {name: plain(own) for name, own in value.items()}
    if isinstance(value, list):
        return [plain(own) for own in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
