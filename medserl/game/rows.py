"""Rows of JSON Lines, CSV and Parquet files, one at a time, each knowing the place that an error names."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from medserl.errors import DataError

MEDEC_COLUMNS = ("Text ID", "Text", "Error Flag", "Corrected Text")
PREPARED_COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")
"""What tells a file that `medserl data prepare` wrote."""
_FORMS = (PREPARED_COLUMNS, MEDEC_COLUMNS, ("note_id", "correct_note"), ("note_id", "text"))

_PARQUET_MAGIC = b"PAR1"
_FIELD_LIMIT = 64 * 2**20  # characters in one CSV field; the csv module's own default refuses long notes
_MISSING = frozenset(("", "NA", "N/A", "nan"))
_HEAD = 1 << 16  # bytes looked at before a text file is read
_BATCH = 1024  # Parquet rows in memory at a time


@dataclass(slots=True)
class Row:
    """One row of a file."""

    path: Path
    number: int
    """From 1, the header not counted (in JSON Lines: the line)."""
    line: int | None
    """In CSV, the line of the file on which the row ends."""
    values: Mapping[str, Any]
    blank: bool = False
    """Whether this is a line that holds nothing at all."""

    @property
    def where(self) -> str:
        """File and row, as error messages name them."""
        return f"{self.path}, row {self.number}" + (f" (line {self.line})" if self.line is not None else "")

    def bad(self, what: str) -> DataError:
        """The error to raise; ``what`` names the column."""
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
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise self.bad(f"{key!r} holds half of a surrogate pair, which is not text") from None
        if "\0" in value:
            raise self.bad(f"{key!r} holds a NUL character, which is binary data, not text")
        return None if value == "" or value.isspace() else value

    def cell(self, key: str) -> str | None:
        """A MEDEC cell: like `optional`, and NA is nothing too."""
        if self.values.get(key) in _MISSING:  # most cells of a row without an error
            return None
        value = self.optional(key)
        return None if value is None or (len(value) < 16 and value.strip() in _MISSING) else value


def read_rows(path: Path | str) -> Iterator[Row]:
    """The rows of a ``.jsonl``, ``.csv`` or ``.parquet`` file, in file order, without holding the file in memory.

    Raises DataError, naming file and row, for a file that is missing, empty, not what its ending says, or in
    none of the forms that the project reads.
    """
    path = Path(path)
    reader = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{path}: the ending {path.suffix!r} is not known; give a .jsonl, .csv or .parquet file")
    if not path.is_file():
        raise DataError(f"{path}: {'is a directory, not a file' if path.is_dir() else 'no such file'}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        yield from reader(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error


# ------------------------------------------------------------------------------------------------- text


def _check_head(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_PARQUET_MAGIC):
        raise DataError(f"{path}: holds Parquet data, not what its ending {path.suffix!r} says")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise DataError(f"{path}: holds binary or UTF-16 data; save it as UTF-8 text")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    _check_head(path)
    with path.open("rb") as file:  # not as text, whose lines may end at U+2028: JSON strings hold it unescaped
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                yield Row(path, number, None, {}, blank=True)
                continue
            try:
                values = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise DataError(f"{path}, row {number}: is not UTF-8 text; convert the file to UTF-8") from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, row {number}: is not JSON ({error})") from error
            row = Row(path, number, None, values)
            if not isinstance(values, dict):
                raise row.bad(f"is a JSON {type(values).__name__}, not an object; write one object a line")
            yield row


def _csv_rows(path: Path) -> Iterator[Row]:
    _check_head(path)
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                header = [name.strip() for name in next(reader, [])]
                check_columns(path, header)
                for number, cells in enumerate(reader, start=1):
                    if cells and len(cells) != len(header):
                        raise DataError(
                            f"{path}, row {number} (line {reader.line_num}): has {len(cells)} fields, but the header "
                            f"has {len(header)} ({_odd_column(header, cells)})"
                        )
                    yield Row(path, number, reader.line_num, dict(zip(header, cells, strict=False)), blank=not cells)
            except csv.Error as error:
                raise DataError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error
            except UnicodeDecodeError:
                _raise_not_utf8(path)
    finally:
        csv.field_size_limit(limit)


def _odd_column(header: list[str], cells: list[str]) -> str:
    if len(cells) < len(header):
        return f"{header[len(cells)]!r} is the first without a value"
    return f"{cells[len(header)][:20]!r} has no column"


def _raise_not_utf8(path: Path) -> NoReturn:
    """Read the file again, this time letting bad bytes through, to say where they are."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        for number, cells in enumerate(reader, start=1):
            for column, cell in enumerate(cells):
                if any("\udc80" <= character <= "\udcff" for character in cell):
                    line = _bad_line(path)
                    name = f", column {header[column]!r}" if column < len(header) else ""
                    raise DataError(
                        f"{path}, row {number}{name}, line {line}: is not UTF-8 text; convert the file to UTF-8"
                    )
    raise DataError(f"{path}, line {_bad_line(path)}: is not UTF-8 text; convert the file to UTF-8")


def _bad_line(path: Path) -> int:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def check_columns(path: Path, columns: list[str]) -> None:
    """Raise DataError unless the columns are those of one of the forms that the project reads."""
    for required in _FORMS:
        if all(column in columns for column in required):
            return
    if len(columns) == 1:
        for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if columns[0].count(mark):
                raise DataError(f"{path}, line 1: the columns are separated by {name}; save the file with commas")
    near = max(_FORMS, key=lambda form: sum(column in columns for column in form))
    missing = [column for column in near if column not in columns]
    if len(missing) < len(near):
        raise DataError(
            f"{path}: the column {missing[0]!r} is missing; the columns are {', '.join(columns[:12])}; "
            f"expected {', '.join(near)}"
        )
    raise DataError(
        f"{path}: the columns are {', '.join(columns[:12]) or 'none'}; expected note_id and text, "
        "note_id and correct_note (with incorrect_note), or MEDEC's Text ID, Text, Error Flag, Corrected Text"
    )


# ---------------------------------------------------------------------------------------------- Parquet


def _parquet_rows(path: Path) -> Iterator[Row]:
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
        with pyarrow.parquet.ParquetFile(path) as file_:
            columns = list(file_.schema_arrow.names)
            check_columns(path, columns)
            prepared = all(column in columns for column in PREPARED_COLUMNS)
            number = 0
            for batch in file_.iter_batches(_BATCH, columns=["extra_info"] if prepared else None):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(path, number, None, values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error
