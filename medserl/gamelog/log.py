"""Writes the game log: ``RUN_DIR/games``, a Parquet part for each round and each validation that stands by itself."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from medserl.files import PRIVATE_FOLDER, replacing
from medserl.gamelog.kinds import Row
from medserl.gamelog.rows import redacted, to_table

FOLDER = "games"
ROUND, VALIDATION = "round", "validation"
_PART = re.compile(rf"({ROUND}|{VALIDATION})-([0-9]{{6,}})\.parquet")
_UNFINISHED = re.compile(r"\..*\.parquet\.[0-9]+")
MEGABYTE = 1_000_000
logger = logging.getLogger("medserl.run")


def parts(run_dir: Path) -> list[Path]:
    """The parts of a run's log, in the order of their rounds; a round's own games before its validation."""
    folder = run_dir / FOLDER
    if not folder.is_dir():
        return []
    found = [(match, path) for path in folder.iterdir() if (match := _PART.fullmatch(path.name))]
    return [path for match, path in sorted(found, key=lambda pair: (int(pair[0][2]), pair[0][1]))]


def round_of(part: Path) -> int:
    """The round of a part, by its name."""
    match = _PART.fullmatch(part.name)
    assert match is not None
    return int(match[2])


def forget_after(run_dir: Path, last: int) -> None:
    """Remove the parts of rounds after ``last``, which an interrupted attempt played and which are played again, so
    that no game is there twice; after 0 all of them: the validation before the first round comes again, too. What a
    start that was killed was writing goes as well."""
    folder = run_dir / FOLDER
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
    for part in parts(run_dir):
        if not last or round_of(part) > last:
            part.unlink(missing_ok=True)


class GameLog:
    """Writes the games of a run, each round's at once: a part is there as a whole or not at all, and is never touched
    again. Nothing but its owner can read it.

    A log that cannot be written (a full disk) ends no run: that round is missing from it, and a line says so.

    Args:
        run_dir: The run directory.
        redact: Keep no text and no note's id.
        keep_rounds: Keep the parts of so many of the newest rounds only.
        max_megabytes: Remove the oldest parts where all of them together take more.
    """

    def __init__(
        self,
        run_dir: Path,
        redact: bool = False,
        keep_rounds: int | None = None,
        max_megabytes: int | None = None,
    ) -> None:
        self._run_dir, self._redact = run_dir, redact
        self._keep_rounds, self._max_megabytes = keep_rounds, max_megabytes
        (run_dir / FOLDER).mkdir(exist_ok=True, mode=PRIVATE_FOLDER)

    def write(self, number: int, rows: Sequence[Row], kind: str = ROUND) -> None:
        """Write one part, in the place of an earlier one of the same round and kind; none where there are no rows.

        Args:
            number: The round.
            rows: Its games, and the held-out answers of a validation that belongs to it.
            kind: ``ROUND``, or ``VALIDATION`` for held-out answers that come by themselves.
        """
        if not rows:
            return
        path = self._run_dir / FOLDER / f"{kind}-{number:06d}.parquet"
        table = to_table([redacted(row) for row in rows] if self._redact else rows)
        try:
            with replacing(path) as file:
                pq.write_table(table, file, compression="zstd")
            self._retire(path)
        except OSError as error:
            logger.warning(
                "the games of round %d could not be written (%s); the run goes on without them", number, error.strerror
            )

    def _retire(self, newest: Path) -> None:
        there = parts(self._run_dir)
        if self._keep_rounds is not None:
            rounds = sorted({round_of(part) for part in there})[-self._keep_rounds :]
            for part in [part for part in there if round_of(part) < rounds[0]]:
                part.unlink(missing_ok=True)
                there.remove(part)
        if self._max_megabytes is None:
            return
        sizes = {part: part.stat().st_size for part in there}
        while sum(sizes.values()) > self._max_megabytes * MEGABYTE and (old := next(iter(sizes))) != newest:
            old.unlink(missing_ok=True)
            del sizes[old]
