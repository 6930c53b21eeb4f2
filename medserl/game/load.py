"""Reading note files: JSON Lines, MEDEC's published CSV, Parquet.

Four row forms are known: plain (``note_id``, ``text``), pairs (``note_id``, ``correct_note``,
``incorrect_note``), MEDEC's (``Text ID``, ``Text``, ``Error Flag``, ``Corrected Text``) and the output of
``medserl data prepare``. Plain rows and pairs must be flawless. MEDEC's published files are not, so unusable
rows of that form are dropped and counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medserl.errors import DataError
from medserl.game.labels import Label
from medserl.game.records import Note, base_id
from medserl.game.rows import MEDEC_COLUMNS, Row, read_rows

_EXTRAS = ("error_type", "error_sentence", "corrected_sentence")


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

    def summary(self) -> str:
        """One line for a log."""
        line = f"{self.path}: {self.rows} rows, {self.notes} notes, {self.with_error} of them with a gold error"
        if self.dropped:
            line += "; dropped " + ", ".join(f"{count} ({why})" for why, count in sorted(self.dropped.items()))
        return line


class _Dropped(Exception):
    """A row of an unclean source that is left out; the message is the reason."""


@dataclass(slots=True)
class _Collector:
    path: Path
    split: str | None = None
    rows: int = 0
    notes: dict[str, Note] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        self.rows += 1
        try:
            note = _note_of(row, self.split)
            known = self.notes.setdefault(note.note_id, note)
            if known is not note:
                self._merge(row, known, note)
        except _Dropped as reason:
            self.dropped[str(reason)] = self.dropped.get(str(reason), 0) + 1

    def _merge(self, row: Row, known: Note, note: Note) -> None:
        """The id was used before: for the same row, or for the same note without its error (or with it)."""
        if (known.text, known.error_text) == (note.text, note.error_text):
            raise _Dropped("repeated row")
        if known.text != note.text or None not in (known.error_text, note.error_text):
            raise row.bad(f"note id {note.note_id!r} was used before for a different text")
        if known.error_text is None:
            self.notes[note.note_id] = note
        raise _Dropped("correct version of a note that is there with its error")

    def finish(self) -> tuple[list[Note], LoadReport]:
        notes = list(self.notes.values())
        with_error = sum(note.error_text is not None for note in notes)
        report = LoadReport(self.path, self.rows, len(notes), with_error, dict(self.dropped))
        if not notes:
            raise DataError(f"{self.path} holds no usable note: {report.summary().partition(': ')[2]}")
        return notes, report


def load_notes(path: Path | str, split: str | None = None) -> list[Note]:
    """The notes of a ``.jsonl``, ``.csv`` or ``.parquet`` file, in file order.

    With ``split``, rows of a prepared file that belong to another split are an error.

    Raises DataError, naming file and row, for a file that is missing, empty or not what its ending says, and
    for a row that cannot be used (see the module's text for the one form that may hold such rows).
    """
    return load_notes_with_report(path, split)[0]


def load_notes_with_report(path: Path | str, split: str | None = None) -> tuple[list[Note], LoadReport]:
    """Like `load_notes`, with an account of what was dropped."""
    collector = _Collector(Path(path), split)
    for row in read_rows(path):
        if not row.blank:
            collector.add(row)
    return collector.finish()


def _note_of(row: Row, split: str | None) -> Note:
    if "extra_info" in row.values:
        return _prepared_note(row, split)
    if all(column in row.values for column in MEDEC_COLUMNS):
        return _medec_note(row)
    extras = {key: row.optional(key) for key in _EXTRAS}
    if "correct_note" in row.values or "incorrect_note" in row.values:
        text, error_text = row.text("correct_note"), row.optional("incorrect_note")
    else:
        text, error_text = row.text("text"), row.optional("error_text")
    note_id = row.text("note_id")
    if error_text is not None and error_text.split() == text.split():
        raise row.bad("the note and its error variant are the same")
    return Note(note_id, text, error_text, **extras)


def _medec_note(row: Row) -> Note:
    note_id, text, flag = row.cell("Text ID"), row.cell("Text"), row.cell("Error Flag")
    if text is None:
        raise _Dropped("blank text")
    if note_id is None:
        raise _Dropped("no text id")
    flag = None if flag is None else flag.strip()
    if flag in ("0", "0.0"):
        return Note(note_id.strip(), text)
    if flag not in ("1", "1.0"):
        raise _Dropped("no error flag") if flag is None else row.bad(f"'Error Flag' is {flag!r}, not 0 or 1")
    corrected = row.cell("Corrected Text")
    if corrected is None:
        raise _Dropped("error without corrected text")
    if corrected.split() == text.split():
        raise _Dropped("error and correction are the same")
    kind = row.cell("Error Type")
    return Note(
        note_id.strip(),
        corrected,
        text,
        None if kind is None else kind.strip().lower(),
        row.cell("Error Sentence"),
        row.cell("Corrected Sentence"),
    )


def _prepared_note(row: Row, split: str | None) -> Note:
    """A row of ``medserl data prepare`` (medserl/data/write.py has its columns)."""
    info = row.values["extra_info"]
    if not isinstance(info, Mapping):
        raise row.bad("'extra_info' is not a structure as `medserl data prepare` writes it")
    row = Row(row.path, row.number, row.line, info)
    if split is not None and row.optional("split") not in (None, split):
        raise row.bad(f"'split' is {row.optional('split')!r}; only rows of the split {split!r} may be read here")
    note_id, text, label = base_id(row.text("note_id")), row.text("text"), row.text("label")
    if label == Label.CORRECT:
        return Note(note_id, text)
    if label != Label.INCORRECT:
        raise row.bad(f"'label' is {label!r}, not {Label.CORRECT} or {Label.INCORRECT}")
    corrected = row.optional("corrected_text")
    if corrected is None:
        raise _Dropped("error without corrected text")
    if corrected.split() == text.split():
        raise _Dropped("error and correction are the same")
    return Note(note_id, corrected, text, *(row.optional(key) for key in _EXTRAS))
