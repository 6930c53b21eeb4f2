"""Notes to train on out of any file that `medserl.game.reader` reads: JSON Lines, CSV, Parquet.

Four row forms are known (medserl/game/columns.py): plain (``note_id``, ``text``), pairs (``note_id``,
``correct_note``, ``incorrect_note``), MEDEC's (``Text ID``, ``Text``, ``Error Flag``, …) and the output of
``medserl data prepare``. Rows that nothing can be learned from are dropped and counted.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medserl.errors import DataError
from medserl.game.cells import shown_id
from medserl.game.columns import Form
from medserl.game.convert import NO_CORRECTION, SAME_CORRECTION
from medserl.game.labels import Label
from medserl.game.reader import DroppedRow, ReadReport, check_usable, distinct_rows
from medserl.game.records import LabelledExample, Note, base_id
from medserl.game.rows import Row, shown_path

_log = logging.getLogger("medserl.data")
_SHOWN = 3
_ABOUT_CORRECTIONS = (NO_CORRECTION, SAME_CORRECTION)
"""Remarks that say of a row what its being dropped says too."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What became of a file's rows: ``rows == notes + sum(dropped.values())``."""

    path: Path
    rows: int
    notes: int
    with_error: int
    """Notes that carry their own gold error."""
    dropped: Mapping[str, int]
    """Reason → number of rows."""
    remarks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What is odd about rows that were kept → their note ids (or row numbers)."""

    def summary(self) -> str:
        """One line for a log."""
        counts = f"{self.rows} rows, {self.notes} notes, {self.with_error} of them with a gold error"
        line = f"{shown_path(self.path)}: {counts}"
        if self.dropped:
            line += "; dropped " + ", ".join(f"{count} ({why})" for why, count in sorted(self.dropped.items()))
        for remark, ids in sorted(self.remarks.items()):
            line += f"; kept {len(ids)}: {first_of(remark, ids)}"
        return line


def first_of(remark: str, ids: Sequence[str]) -> str:
    """A remark with the first rows that it is about."""
    return f"{remark} (first: {', '.join(ids[:_SHOWN])})" if ids else remark


def ids_of(rows: Sequence[DroppedRow]) -> dict[str, list[str]]:
    """Reason → ids of the rows, or their numbers where they have none."""
    found: dict[str, list[str]] = {}
    for item in rows:
        shown = f"row {item.row}" if item.note_id is None else shown_id(item.note_id).strip("'")
        found.setdefault(item.reason, []).append(shown)
    return found


class _Collector:
    """Notes out of examples; the two versions of a note become one."""

    def __init__(self) -> None:
        self.notes: dict[str, Note] = {}
        self.dropped: Counter[str] = Counter()

    def add(self, row: Row, examples: Sequence[LabelledExample]) -> None:
        """Enter the examples of one row (of a pair both)."""
        first = examples[0]
        if first.label is Label.CORRECT:
            self._enter(row, Note(_id_of(row, first), first.text))
            return
        if first.corrected_text is not None and first.corrected_text.split() != first.text.split():
            extras = (first.error_type, first.error_sentence, first.corrected_sentence)
            self._enter(row, Note(_id_of(row, first), first.corrected_text, first.text, *extras))
            return
        reason = "error without corrected text" if first.corrected_text is None else "error and correction are the same"
        if len(examples) == 1:
            self.dropped[reason] += 1
        else:  # a pair whose texts are not versions of one note: its correct one is a note
            self._enter(row, Note(_id_of(row, first), examples[1].text))

    def _enter(self, row: Row, note: Note) -> None:
        known = self.notes.setdefault(note.note_id, note)
        if known is note:
            return
        if known.text != note.text or None not in (known.error_text, note.error_text):
            raise row.bad(f"note id {shown_id(note.note_id)} was used before for a different text")
        if known.error_text is None:
            self.notes[note.note_id] = note
        self.dropped["correct version of a note that is there with its error"] += 1


def _id_of(row: Row, example: LabelledExample) -> str:
    """In prepared files the versions of a note are rows of their own."""
    prepared = row.columns is not None and row.columns.form is Form.PREPARED
    return base_id(example.note_id) if prepared else example.note_id


def load_notes(path: Path | str, split: str | None = None) -> list[Note]:
    """The notes of a ``.jsonl``, ``.csv`` or ``.parquet`` file, in file order.

    With ``split``, rows of a prepared file that belong to another split are an error. What was dropped or is odd is
    told in a warning, once for a file.

    Raises DataError, naming file and row, for a file that is missing, empty or not what its ending says, and
    for a row that cannot be used.
    """
    notes, report = load_notes_with_report(path, split)
    if (report.dropped or report.remarks) and (line := report.summary()) not in _told:
        _told.add(line)
        _log.warning("%s", line)
    return notes


_told: set[str] = set()  # a run reads its notes to check them, to count rounds and to play: it is said once


def load_notes_with_report(path: Path | str, split: str | None = None) -> tuple[list[Note], LoadReport]:
    """Like `load_notes`, with an account of what was dropped."""
    path, collector, report = Path(path), _Collector(), ReadReport()
    for row, examples in distinct_rows(path, report):
        _check_split(row, split)
        collector.add(row, examples)
    check_usable(path, report)
    dropped = collector.dropped + Counter(item.reason for item in report.dropped)
    blank = dropped.pop("blank line", 0)
    notes = list(collector.notes.values())
    with_error = sum(note.error_text is not None for note in notes)
    remarks = {reason: ids for reason, ids in ids_of(report.remarks).items() if reason not in _ABOUT_CORRECTIONS}
    loaded = LoadReport(path, report.rows - blank, len(notes), with_error, dict(dropped), remarks)
    if not notes:
        raise DataError(f"{shown_path(path)} holds no usable note: {loaded.summary().partition(': ')[2]}")
    return notes, loaded


def _check_split(row: Row, split: str | None) -> None:
    if split is None or row.columns is None or row.columns.form is not Form.PREPARED:
        return
    found = row.values["extra_info"].get("split")
    if found not in (None, "", split):
        named = repr(found) if found in ("train", "validation", "test") else "another"
        raise row.bad(f"'split' is {named}; only rows of the split {split!r} may be read here")
