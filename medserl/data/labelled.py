"""Labelled texts of a file, one example per published row: what evaluation reads."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medserl.data.convert import Converted, Dropped, check_usable, convert
from medserl.data.records import LabelledExample
from medserl.errors import DataError
from medserl.game.rows import Row, read_rows

_log = logging.getLogger("medserl.data")


@dataclass(frozen=True, slots=True)
class DroppedRow:
    """A row that was left out (or kept with a remark), as the manifest lists it."""

    file: str
    row: int
    note_id: str | None
    reason: str


@dataclass(slots=True)
class ReadReport:
    """What became of a file's rows."""

    rows: int = 0
    examples: int = 0
    dropped: list[DroppedRow] = field(default_factory=list)
    remarks: list[DroppedRow] = field(default_factory=list)
    """Rows that were kept although something about them is odd."""


def id_of(row: Row) -> str | None:
    """The note id of a row, whatever its form, where it has one."""
    info = row.values.get("extra_info")
    for key in ("Text ID", "note_id"):
        value = (info if isinstance(info, dict) else row.values).get(key)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def converted_rows(path: Path, report: ReadReport) -> Iterator[tuple[Row, Converted]]:
    """The usable rows of a file, in order; ``report`` learns of the others. Raises DataError."""
    for row in read_rows(path):
        report.rows += 1
        try:
            converted = convert(row)
        except Dropped as reason:
            report.dropped.append(DroppedRow(path.name, row.number, id_of(row), str(reason)))
            continue
        for remark in converted.remarks:
            report.remarks.append(DroppedRow(path.name, row.number, id_of(row), remark))
        report.examples += len(converted.examples)
        yield row, converted


def read_labelled_with_report(path: Path | str) -> tuple[list[LabelledExample], ReadReport]:
    """Like `read_labelled`, with an account of what was dropped."""
    path = Path(path)
    report = ReadReport()
    seen: dict[str, bytes] = {}
    found: list[LabelledExample] = []
    for row, converted in converted_rows(path, report):
        for example in converted.examples:
            digest = hashlib.blake2b(f"{example.label} {example.text}".encode(), digest_size=16).digest()
            known = seen.setdefault(example.note_id, digest)
            if known is digest:
                found.append(example)
            elif known == digest:
                report.dropped.append(DroppedRow(path.name, row.number, example.note_id, "repeated row"))
                report.examples -= 1
            else:
                raise DataError(f"{row.where}: note id {example.note_id!r} was used before for a different text")
    check_usable(path, report.examples, report.rows)
    return found, report


def read_labelled(path: Path | str) -> list[LabelledExample]:
    """The labelled texts of a MEDEC CSV, a pairs or plain file, or a file of ``medserl data prepare``.

    A MEDEC row is one example with exactly its published flag. A pair is two: its erroneous note, and its
    correct one. Rows that cannot be used (blank ones, say) are left out, and a warning says how many.

    Raises:
        DataError: a file or row that is wrong, naming file, row and column; no usable row.
    """
    found, report = read_labelled_with_report(path)
    if report.dropped:
        reasons = sorted({item.reason for item in report.dropped})
        _log.warning("%s: %d of %d rows dropped: %s", path, len(report.dropped), report.rows, ", ".join(reasons))
    return found
