"""Rows of JSON Lines, CSV and Parquet files, one at a time, each knowing the place that an error names.

Errors name file, row, column and lengths, never a word of a cell: they end in logs that others read.
"""

import csv
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from medserl.errors import DataError
from medserl.game import cells
from medserl.game.columns import (
    PREPARED_COLUMNS,
    BadColumns,
    Columns,
    Form,
    csv_reader,
    missing_columns,
    recognise,
    shown_name,
)

_PARQUET_MAGIC = b"PAR1"
_FIELD_LIMIT = 64 * 2**20  # characters in one CSV field; the csv module's own default refuses long notes
_HEAD = 1 << 16  # bytes looked at before a text file is read
_BATCH = 1024  # Parquet rows in memory at a time
SPREADSHEETS = (".xlsx", ".xlsm", ".xls", ".ods", ".numbers")


@dataclass(slots=True)
class Row:
    """One row of a file."""

    path: Path
    number: int
    """From 1, the header not counted (in JSON Lines: the line)."""
    line: int | None
    """In CSV, the line of the file on which the row ends."""
    values: Mapping[str, Any]
    """Cell by the column's key in `medserl.game.columns`."""
    columns: Columns | None = None
    """None for a line that holds nothing at all."""
    repair: bool = False
    """Whether text that was saved in a wrong encoding is put right."""
    remarks: list[str] = field(default_factory=list)
    """What was odd about the cells that were read."""

    @property
    def where(self) -> str:
        """File and row, as error messages name them."""
        return f"{shown_path(self.path)}, row {self.number}" + (f" (line {self.line})" if self.line is not None else "")

    def name(self, key: str) -> str:
        """A column's name in quotes, as the file spells it."""
        return repr(self.columns.name(key) if self.columns is not None else key)

    def bad(self, what: str) -> DataError:
        """The error to raise; ``what`` names the column."""
        return DataError(f"{self.where}: {what}")

    def cell(self, key: str) -> str | None:
        """A cell of text; None where it is absent or holds nothing."""
        value = self.values.get(key)
        if cells.is_nothing(value):
            return None
        problem = cells.text_problem(value)
        if problem is not None:
            raise self.bad(f"{self.name(key)} {problem}")
        text: str = value  # type: ignore[assignment]  # `text_problem` says so
        if "_x00" in text and (plain := cells.without_spreadsheet_marks(text)) != text:
            self._remark(cells.LINE_MARKS)
            text = plain
        better = cells.repaired(text)
        if better is not text and better != text:
            self._remark(cells.REPAIRED if self.repair else cells.MISREAD)
            return better if self.repair else text
        return text

    def _remark(self, what: str) -> None:
        if what not in self.remarks:
            self.remarks.append(what)

    def text(self, key: str) -> str:
        """A required cell of text."""
        value = self.cell(key)
        if value is None:
            raise self.bad(f"{self.name(key)} is {'empty' if key in self.values else 'missing'}")
        return value

    def note_id(self) -> str | None:
        """The note's id, a number as its digits; None where there is none."""
        value = self.values.get("note_id")
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18:
            return str(value)
        cell = self.cell("note_id")
        return None if cell is None else cell.strip()

    def is_blank(self) -> bool:
        """Whether no cell holds anything."""
        return all(cells.is_nothing(value) for value in self.values.values())


def shown_path(path: Path | str) -> str:
    """A path for a message: control characters escaped, so that it stays one line and does nothing to a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


def read_rows(path: Path | str, *, repair: bool = False) -> Iterator[Row]:
    """The rows of a ``.jsonl``, ``.csv`` or ``.parquet`` file, in file order, without holding the file in memory.

    Raises DataError, naming file and row, for a file that is missing, empty, not what its ending says, or in
    none of the forms that the project reads.
    """
    path = Path(path)
    reader = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}.get(path.suffix.lower())
    if reader is None and path.suffix.lower() in SPREADSHEETS:
        raise DataError(
            f"{shown_path(path)}: a spreadsheet's own file is not read; save the sheet as CSV UTF-8 and give that .csv"
        )
    if reader is None and path.is_dir():  # an empty name is the current directory
        raise DataError(f"{shown_path(path)}: is a folder; give a .jsonl, .csv or .parquet file")
    if reader is None:
        raise DataError(
            f"{shown_path(path)}: the ending {shown_path(path.suffix)!r} is not known; give a .jsonl, .csv or "
            ".parquet file"
        )
    try:
        _check_file(path)
        for row in reader(path):
            row.repair = repair
            yield row
    except OSError as error:
        raise DataError(f"{shown_path(path)}: cannot be read ({error.strerror or error})") from error


def _check_file(path: Path) -> None:
    """It must be a file with something in it. Raises DataError, or OSError where even that cannot be known."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise DataError(f"{shown_path(path)}: no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{shown_path(path)}: is a directory, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{shown_path(path)}: is a device or a pipe, not a file")
    if status.st_size == 0:
        raise DataError(f"{shown_path(path)}: the file is empty")


def _recognised(path: Path, names: tuple[str, ...]) -> Columns:
    """The columns of a table. Raises DataError where they are none that the project reads."""
    try:
        columns = recognise(names)
    except BadColumns as bad:
        raise DataError(f"{shown_path(path)}: {bad}") from None
    prepared = [name for name in PREPARED_COLUMNS if name not in names]
    if columns.form is Form.PREPARED and prepared:
        raise DataError(f"{shown_path(path)}: the column {prepared[0]!r} is missing; prepare the file anew")
    if columns.missing:
        raise DataError(f"{shown_path(path)}: {missing_columns(columns, names)}")
    return columns


# ------------------------------------------------------------------------------------------------- text


def _check_head(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_PARQUET_MAGIC):
        raise DataError(f"{shown_path(path)}: holds Parquet data, not what its ending {path.suffix!r} says")
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise DataError(f"{shown_path(path)}: holds binary or UTF-16 data; save it as UTF-8 text")


class _Twice(Exception):
    """A key that a JSON object holds twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Twice(next(key for key in keys if keys.count(key) > 1))
    return values


def _jsonl_rows(path: Path) -> Iterator[Row]:
    _check_head(path)
    with path.open("rb") as file:  # not as text, whose lines may end at U+2028: JSON strings hold it unescaped
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                yield Row(path, number, None, {})
                continue
            row = Row(path, number, None, {})
            values = _json_of(row, line)
            try:
                columns = recognise(tuple(values))
            except BadColumns as bad:
                raise row.bad(str(bad)) from None
            row.columns = columns
            row.values = dict(zip(columns.keys, values.values(), strict=True))
            if columns.missing:
                raise row.bad(f"{row.name(columns.missing[0])} is missing")
            yield row


def _json_of(row: Row, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line.decode("utf-8"), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise row.bad("is not UTF-8 text; convert the file to UTF-8") from error
    except _Twice as twice:
        raise row.bad(
            f"the key {shown_name(str(twice))} occurs twice, so that it is unclear which one counts"
        ) from None
    except (ValueError, RecursionError) as error:
        if row.number == 1 and line.strip() in (b"[", b"{"):
            raise row.bad("is not JSON Lines: the JSON goes over several lines; write one object a line") from None
        raise row.bad(f"is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise row.bad(f"is a JSON {type(values).__name__}, not an object; write one object a line")
    return values


def _csv_rows(path: Path) -> Iterator[Row]:
    _check_head(path)
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            try:
                reader = csv_reader(file, strict=True)
                header = tuple(name.strip() for name in next(reader, []))
                columns = _recognised(path, header)
                for number, row in enumerate(reader, start=1):
                    if row and len(row) != len(header):
                        raise _uneven(path, number, reader.line_num, header, row)
                    values = dict(zip(columns.keys, row, strict=False))
                    yield Row(path, number, reader.line_num, values, columns if row else None)
            except csv.Error as error:
                raise DataError(f"{shown_path(path)}, line {reader.line_num}: is not CSV ({error})") from error
            except UnicodeDecodeError:
                _raise_not_utf8(path)
    finally:
        csv.field_size_limit(limit)


def _uneven(path: Path, number: int, line: int, header: tuple[str, ...], row: list[str]) -> DataError:
    what = f"{len(row) - len(header)} too many; quote a field that holds a comma"
    if len(row) < len(header):
        what = f"{shown_name(header[len(row)])} is the first without a value"
    return DataError(
        f"{shown_path(path)}, row {number} (line {line}): has {len(row)} fields, but the header has {len(header)} "
        f"({what})"
    )


def _raise_not_utf8(path: Path) -> NoReturn:
    """Read the file again, this time letting bad bytes through, to say where they are."""
    line = f"line {_bad_line(path)}: is not UTF-8 text; convert the file to UTF-8 (a spreadsheet saves CSV UTF-8)"
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv_reader(file)
        header: list[str] = next(reader, [])
        for number, row in enumerate(reader, start=1):
            for column, cell in enumerate(row):
                if any("\udc80" <= character <= "\udcff" for character in cell):
                    name = f", column {shown_name(header[column])}" if column < len(header) else ""
                    raise DataError(f"{shown_path(path)}, row {number}{name}, {line}")
    raise DataError(f"{shown_path(path)}, {line}")


def _bad_line(path: Path) -> int:
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return content.count(b"\n", 0, error.start) + 1
    return 0


# ---------------------------------------------------------------------------------------------- Parquet


def _parquet_rows(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(max(path.stat().st_size - 4, 0))
        tail = file.read(4)
    if head != _PARQUET_MAGIC or tail != _PARQUET_MAGIC:
        raise DataError(f"{shown_path(path)}: is not a Parquet file (or it is cut short)")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{shown_path(path)}: reading Parquet needs pyarrow; install it or give a .jsonl") from error
    try:
        # A file that Python opened: pyarrow knows no path that is not UTF-8.
        with path.open("rb") as opened, pyarrow.parquet.ParquetFile(opened) as file_:
            names = tuple(file_.schema_arrow.names)
            columns = _recognised(path, names)
            wanted = {key: name for name, key in zip(names, columns.keys, strict=True) if name}
            if columns.form is Form.PREPARED:
                wanted = {"extra_info": "extra_info"}
            else:  # what the table does not know may be of any type
                texts = {field.name for field in file_.schema_arrow if str(field.type).endswith("string")}
                wanted = {key: name for key, name in wanted.items() if key in columns.names or name in texts}
            number = 0
            for batch in file_.iter_batches(_BATCH, columns=list(wanted.values())):
                lists = [_cells(path, batch.column(name), name, number) for name in wanted.values()]
                for values in zip(*lists, strict=True):
                    number += 1
                    yield Row(path, number, None, dict(zip(wanted, values, strict=True)), columns)
    except (pyarrow.ArrowException, OSError) as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise DataError(f"{shown_path(path)}: cannot be read as Parquet ({first})") from error


def _cells(path: Path, column: Any, name: str, before: int) -> list[Any]:
    """A column's values. Raises DataError, naming the row, for a value that Python cannot hold."""
    try:
        values: list[Any] = column.to_pylist()
        return values
    except (UnicodeDecodeError, OverflowError, ValueError):
        for index, value in enumerate(column):
            try:
                value.as_py()
            except UnicodeDecodeError:
                raise DataError(f"{shown_path(path)}, row {before + index + 1}: {name!r} is not UTF-8 text") from None
            except (OverflowError, ValueError):
                raise DataError(f"{shown_path(path)}, row {before + index + 1}: {name!r} is not text") from None
        raise
