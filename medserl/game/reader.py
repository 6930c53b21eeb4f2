"""Any file of notes as rows of one type: what `train`, `sft`, `evaluate` and `data` all read through."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medserl.errors import DataError
from medserl.game.cells import shown_id
from medserl.game.convert import Converted, Dropped, convert
from medserl.game.records import LabelledExample
from medserl.game.rows import Row, read_rows, shown_path

REPEATED = "repeated row"


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
    labelled: bool = False
    """Whether a row had a form that can say that its text holds an error."""
    ignored: dict[str, None] = field(default_factory=dict)
    """Names of columns that nothing was read from, in the order in which they were met."""
    dropped: list[DroppedRow] = field(default_factory=list)
    remarks: list[DroppedRow] = field(default_factory=list)
    """Rows that were kept although something about them is odd."""


def id_of(row: Row) -> str | None:
    """The note id of a row, whatever its form, where it has one."""
    info = row.values.get("extra_info")
    value = (info if isinstance(info, dict) else row.values).get("note_id")
    return value.strip() or None if isinstance(value, str) else None if value is None else str(value)


def converted_rows(path: Path, report: ReadReport, *, repair: bool = False) -> Iterator[tuple[Row, Converted]]:
    """The usable rows of a file, in order; ``report`` learns of the others.

    With ``repair``, text that was saved in a wrong encoding is put right, and the report says where.

    Raises DataError, naming file, row and column.
    """
    for row in read_rows(path, repair=repair):
        report.rows += 1
        try:
            converted = convert(row)
        except Dropped as reason:
            report.dropped.append(DroppedRow(path.name, row.number, id_of(row), str(reason)))
            continue
        for remark in converted.remarks:
            report.remarks.append(DroppedRow(path.name, row.number, id_of(row), remark))
        report.examples += len(converted.examples)
        if row.columns is not None:
            report.labelled = report.labelled or row.columns.labelled
            report.ignored |= dict.fromkeys(row.columns.ignored)
        yield row, converted


def distinct_rows(path: Path, report: ReadReport) -> Iterator[tuple[Row, tuple[LabelledExample, ...]]]:
    """Like `converted_rows`, without repeated rows. Raises DataError for an id with two texts or labels."""
    seen: dict[str, tuple[bytes, int]] = {}
    for row, converted in converted_rows(path, report):
        kept: list[LabelledExample] = []
        for example in converted.examples:
            digest = hashlib.blake2b(f"{example.label} {example.text}".encode(), digest_size=16).digest()
            known = seen.get(example.note_id)
            if known is None:
                seen[example.note_id] = digest, row.number
                kept.append(example)
            elif known[0] != digest:
                raise used_before(row, example.note_id, f"{shown_path(path)}, row {known[1]}")
        report.examples -= len(converted.examples) - len(kept)
        if not kept:
            report.dropped.append(DroppedRow(path.name, row.number, id_of(row), REPEATED))
        else:
            yield row, tuple(kept)


def used_before(row: Row, note_id: str, place: str) -> DataError:
    """The error for an id that stands for two texts or labels."""
    return row.bad(f"note id {shown_id(note_id)} was used before for a different text or label, in {place}")


def check_usable(path: Path, report: ReadReport) -> None:
    """Raise DataError for a file without a single usable row, with what became of its rows."""
    if report.examples > 0:
        return
    if not report.rows:
        raise DataError(f"{shown_path(path)} holds no usable note: it has no rows")
    counts = Counter(item.reason for item in report.dropped)
    reasons = ", ".join(f"{count} ({reason})" for reason, count in sorted(counts.items()))
    first = report.dropped[0].row if report.dropped else 1
    raise DataError(f"{shown_path(path)}, row {first}: holds no usable note, nor does any other row; dropped {reasons}")
