"""Which split a row belongs to."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path

from medserl.errors import ConfigError, DataError
from medserl.game.cells import shown_value
from medserl.game.records import base_id
from medserl.game.rows import Row, shown_path

SPLITS = ("train", "validation", "test")
RATIOS = (0.8, 0.1, 0.1)
_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
_IN_FILE_NAME = re.compile(
    r"(?:^|[-_. ])(training|train|validation|valid|val|dev|test)(?:[-_ ]?set)?(?=$|[-_. ])", re.IGNORECASE
)


def split_named(name: str) -> str | None:
    """``train``, ``validation`` or ``test`` for a usual name of one, in any case."""
    return _NAMES.get(name.strip().lower())


def split_of_file(path: Path) -> str | None:
    """The split that a file's name tells (``MEDEC-MS-ValidationSet.csv``); None for none or several."""
    found = _splits_in(path)
    return found.pop() if len(found) == 1 else None


def _splits_in(path: Path) -> set[str]:
    return {_NAMES[match.lower()] for match in _IN_FILE_NAME.findall(path.stem)}


def split_of_id(note_id: str, ratios: Sequence[float]) -> str:
    """The split that the SHA-256 hash of the note's id draws; all versions of a note draw the same.

    ``ratios`` are the shares of train, validation and test; they add up to 1.
    """
    digest = hashlib.sha256(base_id(note_id).encode("utf-8")).digest()
    draw = int.from_bytes(digest[:8], "big") / 2**64
    if draw < ratios[0]:
        return SPLITS[0]
    return SPLITS[1] if draw < ratios[0] + ratios[1] else SPLITS[2]


def parse_ratios(text: str) -> tuple[float, float, float]:
    """``0.8,0.1,0.1`` as three shares. Raises ConfigError where they are not three or do not add up to 1."""
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    usable = len(shares) == 3 and all(math.isfinite(share) and share >= 0 for share in shares)
    if not usable or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"--ratios {text}: give the shares of train, validation and test, adding up to 1")
    return shares[0], shares[1], shares[2]


def parse_named_files(items: Sequence[str]) -> dict[Path, str]:
    """``train=FILE`` items as file → split. Raises ConfigError for another form or a file in two splits."""
    named: dict[Path, str] = {}
    for item in items:
        name, equals, file = item.partition("=")
        split = split_named(name)
        if not equals or not file or split is None:
            raise ConfigError(f"--split {item}: give SPLIT=FILE, where SPLIT is one of {', '.join(SPLITS)}")
        if named.setdefault(Path(file), split) != split:
            raise ConfigError(f"--split {item}: the file is given for the split {named[Path(file)]!r} too")
    return named


class SplitRule:
    """How the rows of one source get their split: given > the row's own > the file's name > by ratio."""

    def __init__(self, path: Path, given: str | None, ratios: Sequence[float]) -> None:
        self._given = given
        self._path, self._named = path, split_of_file(path)
        self._several = len(_splits_in(path)) > 1
        self._ratios = ratios
        self.used: set[str] = set()
        """Which of the ways decided, for the manifest."""

    def split(self, row: Row, own: str | None, note_id: str) -> str:
        """The split of one row; DataError for a column ``split`` that names none."""
        if self._given is not None:
            self.used.add("--split")
            return self._given
        if own is not None:
            self.used.add("column split")
            named = split_named(own)
            if named is None:
                raise DataError(f"{row.where}: 'split' {shown_value(own)}; it must be one of {', '.join(SPLITS)}")
            return named
        if self._named is not None:
            self.used.add("file name")
            return self._named
        if self._several:
            raise DataError(f"{shown_path(self._path)}: the name suggests more than one split; give --split SPLIT=FILE")
        self.used.add("ratios")
        return split_of_id(note_id, self._ratios)
