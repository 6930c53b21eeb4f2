"""Runs the cells of a grid as processes of their own, some at a time; finished cells are not run again."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medserl.ablation.fingerprint import FINGERPRINT, difference, fingerprint
from medserl.ablation.grid import Cell, Grid
from medserl.ablation.notes import check_all_notes
from medserl.config.load import is_sft_config
from medserl.errors import ConfigError
from medserl.files import PRIVATE_FOLDER, open_private, read_json
from medserl.run.stop_signals import handled, held, leave

logger = logging.getLogger("medserl.ablation")
RESULT = "result.json"
_POLL = 1.0
COMMON_TEST_SPLITS = ("test", "test_heldout")


class Bench:
    """A grid in a directory.

    Args:
        grid: The runs.
        out: Directory of the bench; each cell has a folder below ``runs``.
        jobs: Runs at a time.
        notes: Patients of each test split that a finished model is judged on.
    """

    def __init__(self, grid: Grid, out: Path, jobs: int, notes: int) -> None:
        self.grid, self.out, self.jobs, self.notes = grid, out.absolute(), jobs, notes

    def folder(self, cell: Cell) -> Path:
        """Where a cell's run lies."""
        return self.out / "runs" / cell.name

    def run(self, only: Sequence[str] = ()) -> list[Cell]:
        """Run what is not finished; returns the cells that failed.

        Raises:
            ConfigError: a configuration that cannot be composed, notes of one that cannot be used, or a result that was
            made with another configuration, with other weights or another commit; nothing was started.
        """
        chosen = [cell for cell in self.grid.cells() if not only or cell.arm.name in only]
        waiting = [cell for cell in chosen if self.finished(cell) is None]
        check_all_notes(waiting)
        (self.out / "runs").mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        running: dict[subprocess.Popen[bytes], tuple[Cell, float]] = {}
        failed: list[Cell] = []
        total = len(waiting)
        logger.info("%d runs, %d at a time", total, self.jobs)
        try:
            with handled(leave):  # so that the runs below are ended too
                while waiting or running:
                    while waiting and len(running) < self.jobs:
                        cell = waiting.pop(0)
                        logger.info("%s begins", cell.name)
                        with held():
                            running[self._start(cell)] = (cell, time.monotonic())
                    for process in [p for p in running if p.poll() is not None]:
                        cell, began = running.pop(process)
                        if process.returncode != 0:
                            failed.append(cell)
                        self._tell_end(cell, process.returncode, time.monotonic() - began, len(waiting) + len(running))
                    time.sleep(_POLL)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
        return failed

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """A cell's result, if it has one and is what the grid, the code and the weights of today would make.

        Raises:
            ConfigError: it is of something else.
        """
        now, result = fingerprint(cell, self.notes), read_result(self.folder(cell))
        if result is not None and (reason := difference(result.get(FINGERPRINT), now)) is not None:
            raise ConfigError(
                f"{self.folder(cell) / RESULT}: {reason}; give another --out, or remove that folder to run it again"
            )
        return result

    def _tell_end(self, cell: Cell, code: int, seconds: float, left: int) -> None:
        end = "finished" if code == 0 else f"FAILED with code {code}, see {self._log(cell)}"
        logger.info("%s %s after %.0f s; %d to go", cell.name, end, seconds, left)

    def _log(self, cell: Cell) -> Path:
        return self.out / "runs" / f"{cell.name}.log"

    def _start(self, cell: Cell) -> subprocess.Popen[bytes]:
        command = [
            sys.executable,
            "-m",
            "medserl.ablation.cell",
            str(self.folder(cell)),
            str(self.notes),
            cell.arm.config,
        ]
        kind = "sft" if is_sft_config(cell.arm.config) else "train"
        command += [kind, json.dumps(fingerprint(cell, self.notes)), *cell.arm.overrides, f"medserl.seed={cell.seed}"]
        with open_private(self._log(cell)) as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a finished cell measured; None while it is not finished. Raises ConfigError for a damaged file."""
    path = folder / RESULT
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = type(error).__name__
        raise ConfigError(f"{path}: cannot be read ({why}); remove it to run that cell again") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: is not a result of a cell; remove it to run that cell again")
    return found
