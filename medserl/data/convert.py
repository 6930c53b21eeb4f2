"""From a row of any form to labelled examples, with what was wrong about it.

A row ends in one of three ways: examples (with remarks on what is odd about them), ``Dropped`` with the reason,
or a DataError that names file, row and column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medserl.data.records import CORRECTED_SUFFIX, LabelledExample
from medserl.data.text import normalised
from medserl.errors import DataError
from medserl.game.labels import Label
from medserl.game.rows import MEDEC_COLUMNS, Row
from medserl.game.sentences import sentence_texts

_ERROR_COLUMNS = ("Error Type", "Error Sentence ID", "Error Sentence", "Corrected Sentence")
_MEDEC_NEEDED = frozenset((*MEDEC_COLUMNS, *_ERROR_COLUMNS))
_NUMBERS = tuple(f"{i} " for i in range(2000))
_INTEGER = re.compile(r"-?\d+(?:\.0)?$")


class Dropped(Exception):
    """A row that cannot be used and may be left out; the message is the reason."""


class Converted(NamedTuple):
    """The examples of one row."""

    examples: tuple[LabelledExample, ...]
    """One, or a pair's two: the erroneous note, then the correct one."""
    split: str | None
    """What the row says of its split, as it stands."""
    remarks: tuple[str, ...] = ()
    """What is odd about the row, though it was kept."""


def convert(row: Row) -> Converted:
    """The examples of a row. Raises Dropped or DataError."""
    if row.blank:
        raise Dropped("blank line")
    values = row.values
    if "extra_info" in values:
        return _prepared(row)
    if "Text ID" in values and "Text" in values:
        return _medec(row)
    return _plain_or_pair(row)


# ------------------------------------------------------------------------------------------------ MEDEC


def _medec(row: Row) -> Converted:
    if row.line is None:
        row = _with_text_for_numbers(row)
    note_id, text = row.cell("Text ID"), row.cell("Text")
    if text is None:
        blank = not any(str(value or "").strip() for value in row.values.values())
        raise Dropped("blank row" if blank else "blank text")
    if note_id is None:
        raise Dropped("no text id")
    if not row.values.keys() >= _MEDEC_NEEDED:
        missing = sorted(_MEDEC_NEEDED - row.values.keys())[0]
        raise row.bad(f"the column {missing!r} is missing")
    note_id = note_id.strip()
    split = row.optional("split")
    flag = _flag(row)
    remarks: list[str] = []
    sentences = _sentences(row, text, remarks)
    if flag == 0:
        if any(row.cell(column) not in (None, "-1") for column in _ERROR_COLUMNS):
            remarks.append("flag 0, but an error is described; the flag counts")
        example = LabelledExample(note_id, text, Label.CORRECT, None, -1, None, None, sentences)
        return Converted((example,), split, tuple(remarks))
    kind, error, fix = row.cell("Error Type"), row.cell("Error Sentence"), row.cell("Corrected Sentence")
    corrected = row.cell("Corrected Text")
    _check_sentence(row, "Error Sentence", error, text)
    if corrected is None:
        remarks.append("flag 1, but no corrected text: of use for evaluation only")
    elif normalised(corrected) == normalised(text):
        remarks.append("flag 1, but text and corrected text are the same: of use for evaluation only")
    position = _sentence_id(row, error, sentences, remarks)
    kind = None if kind is None else kind.strip().lower()
    example = LabelledExample(note_id, text, Label.INCORRECT, kind, position, error, fix, sentences, corrected)
    return Converted((example,), split, tuple(remarks))


def _with_text_for_numbers(row: Row) -> Row:
    """JSON Lines and Parquet may hold flags and ids as numbers, and NaN where there is nothing."""
    values = {key: _text_of(value) for key, value in row.values.items()}
    return Row(row.path, row.number, row.line, values)


def _text_of(value: object) -> object:
    if isinstance(value, float):
        if value != value:
            return None
        return str(int(value)) if value.is_integer() else str(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _flag(row: Row) -> int:
    cell = row.cell("Error Flag")
    if cell is None:
        raise Dropped("no error flag")
    cell = cell.strip()
    if cell in ("0", "0.0"):
        return 0
    if cell in ("1", "1.0"):
        return 1
    raise row.bad(f"'Error Flag' is {cell!r}, not 0 or 1")


def _sentences(row: Row, text: str, remarks: list[str]) -> tuple[str, ...]:
    cell = row.cell("Sentences") if "Sentences" in row.values else None
    if cell is None:
        return tuple(sentence_texts(text))
    sentences = numbered_lines(cell)
    if not sentences:
        remarks.append("the column 'Sentences' is not numbered from 0; the text was split anew")
        return tuple(sentence_texts(text))
    return sentences


def numbered_lines(cell: str) -> tuple[str, ...]:
    """The sentences of MEDEC's column ``Sentences``: lines that begin with the numbers 0, 1, 2, …

    A line without the next number goes on with the sentence before it; () where the first is not number 0.
    """
    found: list[str] = []
    number = _NUMBERS[0]
    for line in cell.rstrip().split("\n"):
        if line.startswith(number):
            found.append(line[len(number) :].strip())
        elif line.strip() == number[:-1]:
            found.append("")
        elif found:
            found[-1] = f"{found[-1]}\n{line.rstrip()}"
            continue
        elif line.strip():
            return ()
        else:
            continue
        number = _NUMBERS[len(found)] if len(found) < len(_NUMBERS) else f"{len(found)} "
    return tuple(found)


def _sentence_id(row: Row, error: str | None, sentences: Sequence[str], remarks: list[str]) -> int:
    cell = row.cell("Error Sentence ID")
    if cell is None or not _INTEGER.match(cell := cell.strip()):
        if cell is not None:
            raise row.bad(f"'Error Sentence ID' is {cell!r}, not a number")
        remarks.append("flag 1, but no error sentence id; it was looked up")
        return find_sentence(error, sentences)
    position = int(cell.partition(".")[0])
    if not 0 <= position < len(sentences):
        remarks.append(f"the error sentence id is {position}, but the sentences are 0 to {len(sentences) - 1}")
    elif error is not None and sentences[position] != error and _squeezed(sentences[position]) != _squeezed(error):
        remarks.append("the error sentence is not the sentence with the error sentence id")
    return position


def _check_sentence(row: Row, column: str, sentence: str | None, text: str) -> None:
    if sentence is None or sentence in text or _squeezed(sentence) in _squeezed(text):
        return
    raise row.bad(f"{column!r} is not in the text: {' '.join(sentence.split())[:80]!r}")


def _squeezed(text: str) -> str:
    """Without white space: published sentences are cut at other places than their texts."""
    return "".join(text.split())


def find_sentence(sentence: str | None, sentences: Sequence[str]) -> int:
    """Number of the sentence that is, or else holds, ``sentence``; -1 where none does."""
    if sentence is None:
        return -1
    wanted = _squeezed(sentence)
    squeezed = [_squeezed(item) for item in sentences]
    if wanted in squeezed:
        return squeezed.index(wanted)
    return next((i for i, item in enumerate(squeezed) if wanted in item or (item and item in wanted)), -1)


# -------------------------------------------------------------------------------------- plain and pairs


def _plain_or_pair(row: Row) -> Converted:
    split = row.optional("split")
    pair = "correct_note" in row.values or "incorrect_note" in row.values
    key, error_key = ("correct_note", "incorrect_note") if pair else ("text", "error_text")
    if row.values and not any(value not in (None, "") for value in row.values.values()):
        raise Dropped("blank row")
    note_id = row.text("note_id").strip()
    if row.cell(key) is None and row.values.get(key, ...) is not ...:
        raise Dropped("blank text")
    text, error_text = row.text(key), row.cell(error_key)
    if error_text is None:
        return Converted((_correct(note_id, text),), split)
    if _squeezed(error_text) == _squeezed(text):
        raise row.bad(f"{key!r} and {error_key!r} are the same")
    kind, error, fix = row.cell("error_type"), row.cell("error_sentence"), row.cell("corrected_sentence")
    _check_sentence(row, "error_sentence", error, error_text)
    sentences = tuple(sentence_texts(error_text))
    kind = None if kind is None else kind.strip().lower()
    position = find_sentence(error, sentences)
    wrong = LabelledExample(note_id, error_text, Label.INCORRECT, kind, position, error, fix, sentences, text)
    return Converted((wrong, _correct(note_id + CORRECTED_SUFFIX, text)), split)


def _correct(note_id: str, text: str) -> LabelledExample:
    return LabelledExample(note_id, text, Label.CORRECT, None, -1, None, None, tuple(sentence_texts(text)))


# --------------------------------------------------------------------------------------------- prepared


def _prepared(row: Row) -> Converted:
    info = row.values["extra_info"]
    if not isinstance(info, Mapping):
        raise row.bad("'extra_info' is not a structure as `medserl data prepare` writes it")
    row = Row(row.path, row.number, row.line, info)
    text, label = row.text("text"), row.text("label")
    if label not in (Label.CORRECT, Label.INCORRECT):
        raise row.bad(f"'label' is {label!r}, not {Label.CORRECT} or {Label.INCORRECT}")
    position, sentences = info.get("error_sentence_id"), info.get("sentences")
    if not isinstance(position, int) or not isinstance(sentences, list):
        raise row.bad("'error_sentence_id' or 'sentences' of 'extra_info' is missing; prepare the file anew")
    error, corrected = row.optional("error_sentence"), row.optional("corrected_text")
    _check_sentence(row, "error_sentence", error, text)
    example = LabelledExample(
        row.text("note_id"),
        text,
        Label(label),
        row.optional("error_type"),
        position,
        error,
        row.optional("corrected_sentence"),
        tuple(map(str, sentences)),
        corrected,
    )
    return Converted((example,), row.optional("split"))


def check_usable(path: object, examples: int, rows: int) -> None:
    """Raise DataError for a file without a single usable row."""
    if not examples:
        raise DataError(f"{path} holds no usable note; all of its {rows} rows were dropped")
