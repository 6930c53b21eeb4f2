"""Reading note files: JSON Lines, MEDEC's published CSV, Parquet.

Three row forms are known: plain (``note_id``, ``text``), pairs (``note_id``, ``correct_note``,
``incorrect_note``) and MEDEC's (``Text ID``, ``Text``, ``Error Flag``, ``Corrected Text``). The first two
must be flawless. MEDEC's published files are not, so unusable rows of that form are dropped and counted.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medserl.errors import DataError
from medserl.game.records import Note

_PARQUET_MAGIC = b"PAR1"
_FIELD_LIMIT = 64 * 2**20  # characters in one CSV field; the csv module's own default refuses long notes
_MEDEC_COLUMNS = ("Text ID", "Text", "Error Flag", "Corrected Text")
_EXTRAS = ("error_type", "error_sentence", "corrected_sentence")
_MISSING = ("", "NA", "N/A", "nan")


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
class _Row:
    """One row with the place that an error message names."""

    where: str
    values: Mapping[str, Any]

    def bad(self, what: str) -> DataError:
        return DataError(f"{self.where}: {what}")

    def text(self, key: str) -> str:
        """A required, non-blank string."""
        if self.values.get(key) is None:
            raise self.bad(f"{key!r} is missing")
        value = self.optional(key)
        if value is None:
            raise self.bad(f"{key!r} is empty")
        return value

    def optional(self, key: str) -> str | None:
        """A string, or None where it is absent, null or blank."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.bad(f"{key!r} must be a string, not {type(value).__name__}")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise self.bad(f"{key!r} holds half of a surrogate pair, which is not text") from None
        return value if value.strip() else None

    def cell(self, key: str) -> str | None:
        """A MEDEC cell: like `optional`, and NA is nothing too."""
        value = self.optional(key)
        return None if value is None or value.strip() in _MISSING else value


@dataclass(slots=True)
class _Collector:
    path: Path
    rows: int = 0
    notes: dict[str, Note] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)

    def add(self, row: _Row) -> None:
        self.rows += 1
        try:
            note = _note_of(row)
            known = self.notes.setdefault(note.note_id, note)
            if known is not note:
                if (known.text, known.error_text) != (note.text, note.error_text):
                    raise row.bad(f"note id {note.note_id!r} was used before for a different text")
                raise _Dropped("repeated row")
        except _Dropped as reason:
            self.dropped[str(reason)] = self.dropped.get(str(reason), 0) + 1

    def finish(self) -> tuple[list[Note], LoadReport]:
        notes = list(self.notes.values())
        with_error = sum(note.error_text is not None for note in notes)
        report = LoadReport(self.path, self.rows, len(notes), with_error, dict(self.dropped))
        if not notes:
            raise DataError(f"{self.path} holds no usable note: {report.summary().partition(': ')[2]}")
        return notes, report


def load_notes(path: Path | str) -> list[Note]:
    """The notes of a ``.jsonl``, ``.csv`` or ``.parquet`` file, in file order.

    Raises DataError, naming file and row, for a file that is missing, empty or not what its ending says, and
    for a row that cannot be used (see the module's text for the one form that may hold such rows).
    """
    return load_notes_with_report(path)[0]


def load_notes_with_report(path: Path | str) -> tuple[list[Note], LoadReport]:
    """Like `load_notes`, with an account of what was dropped."""
    path = Path(path)
    reader = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: the ending {path.suffix!r} is not known; give a .jsonl, .csv or .parquet file")
    if not path.is_file():
        raise DataError(f"{path}: {'is a directory, not a file' if path.is_dir() else 'no such file'}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        collector = _Collector(path)
        for row in reader(path):
            collector.add(row)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    return collector.finish()


def _note_of(row: _Row) -> Note:
    if all(column in row.values for column in _MEDEC_COLUMNS):
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


def _medec_note(row: _Row) -> Note:
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


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith(_PARQUET_MAGIC):
        raise DataError(f"{path}: holds Parquet data, not what its ending {path.suffix!r} says")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data:
        raise DataError(f"{path}: holds binary or UTF-16 data; save it as UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: is not UTF-8 text; convert the file to UTF-8") from error


def _jsonl_rows(path: Path) -> Iterator[_Row]:
    # Not splitlines(): JSON strings may hold U+2028 and its like unescaped.
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, row {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise DataError(f"{where}: is a JSON {type(values).__name__}, not an object; write one object a line")
        yield _Row(where, values)


def _csv_rows(path: Path) -> Iterator[_Row]:
    lines = _csv_lines(_read_text(path))
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        reader = csv.reader(lines, strict=True)
        header = [name.strip() for name in next(reader, [])]
        _check_header(path, header)
        for number, cells in enumerate(reader, start=1):
            where = f"{path}, row {number} (line {reader.line_num})"
            if not cells:
                continue
            if len(cells) != len(header):
                raise DataError(f"{where}: has {len(cells)} fields, but the header has {len(header)}")
            yield _Row(where, dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _csv_lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        stop = text.find("\n", start) + 1 or len(text)
        yield text[start:stop]
        start = stop


def _check_header(path: Path, columns: list[str]) -> None:
    for required in (_MEDEC_COLUMNS, ("note_id", "correct_note"), ("note_id", "text")):
        if all(column in columns for column in required):
            return
    raise DataError(
        f"{path}: the columns are {', '.join(columns[:12]) or 'none'}; expected note_id and text, "
        "note_id and correct_note (with incorrect_note), or MEDEC's Text ID, Text, Error Flag, Corrected Text"
    )


def _parquet_rows(path: Path) -> Iterator[_Row]:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(path.stat().st_size - 4, 0))
        tail = file.read(4)
    if head != _PARQUET_MAGIC or tail != _PARQUET_MAGIC:
        raise DataError(f"{path}: is not a Parquet file (or it is cut short)")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; install it or give a .jsonl") from error
    try:
        file_ = pyarrow.parquet.ParquetFile(path)
        _check_header(path, list(file_.schema_arrow.names))
        number = 0
        for batch in file_.iter_batches():
            for values in batch.to_pylist():
                number += 1
                yield _Row(f"{path}, row {number}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
