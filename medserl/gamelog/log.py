"""Writes the game log: ``RUN_DIR/games``, a Parquet part for each round and each validation that stands by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from medserl.files import PRIVATE_FOLDER, replacing
from medserl.gamelog.kinds import Row
from medserl.gamelog.parts import FOLDER, ROUND, parts, round_of
from medserl.gamelog.rows import redacted, to_table

MEGABYTE = 1_000_000
logger = logging.getLogger("medserl.run")


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
