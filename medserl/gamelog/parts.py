"""Where the parts of a game log lie, and which of them count. Light."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = "games"
ROUND, VALIDATION = "round", "validation"
_PART = re.compile(rf"({ROUND}|{VALIDATION})-([0-9]{{6,}})\.parquet")
_UNFINISHED = re.compile(r"\..*\.parquet\.[0-9]+")


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
