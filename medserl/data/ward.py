"""The synthetic ward as files in MEDEC's columns, so that every command that reads MEDEC reads the ward."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path

from medserl.errors import ConfigError
from medserl.files import made_folder, write_all_atomically
from medserl.game.rows import shown_path
from medserl.ward import medec_rows, ward_notes
from medserl.ward.long_notes import lengthened
from medserl.ward.medec import COLUMNS
from medserl.ward.table import Table, load_table

FILES = {
    "train": "WARD-TrainingSet.csv",
    "validation": "WARD-ValidationSet.csv",
    "test": "WARD-TestSet.csv",
}


def write_ward(
    out: Path, count: int, seed: int, *, table: Path | None = None, long: bool = False, overwrite: bool = False
) -> list[Path]:
    """Write the three splits by patient into the folder ``out``, ``count`` notes each, every other one with its error.

    ``table`` is a knowledge table of your own (docs/ward-data.md); None: the shipped one. ``long``: notes of 150 to 300
    words.

    Raises ConfigError for a table that cannot be used, naming line and key, for a count below 2 or above what a split
    has, and for files that are there already.
    """
    if count < 2:
        raise ConfigError(f"--count {count}: must be at least 2, one note with an error and one without")
    known = load_table() if table is None else load_table(table.absolute())
    paths = {split: out / FILES[split] for split in FILES}
    try:
        _check_targets(paths.values(), overwrite)
        return _write_all(out, paths, _rows(count, seed, known, long))
    except OSError as error:
        raise ConfigError(
            f"--out {shown_path(out)}: cannot be written ({error.strerror or error}); give another folder"
        ) from error


def _check_targets(paths: Iterable[Path], overwrite: bool) -> None:
    for path in paths:
        if path.is_dir():
            raise ConfigError(f"{shown_path(path)}: is a folder; give another --out")
        if os.path.lexists(path) and not overwrite:
            raise ConfigError(f"{shown_path(path)} already exists; give another --out or --overwrite")


def _rows(count: int, seed: int, table: Table, long: bool) -> dict[str, list[dict[str, str]]]:
    rows = {}
    for split in FILES:
        notes = ward_notes(split, count, seed, table)
        if long:
            notes = [lengthened(note, table, seed) for note in notes]
        rows[split] = [medec_rows([note], erroneous=i % 2 == 0)[0] for i, note in enumerate(notes)]
    return rows


def _write_all(out: Path, paths: dict[str, Path], rows: dict[str, list[dict[str, str]]]) -> list[Path]:
    with made_folder(out):
        write_all_atomically({path: _text(rows[split]) for split, path in paths.items()})
    return list(paths.values())


def _text(rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
