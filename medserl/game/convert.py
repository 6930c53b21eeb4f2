"""From a row of any form to labelled examples, with what was wrong about it.

A row ends in one of three ways: examples (with remarks on what is odd about them), ``Dropped`` with the reason,
or a DataError that names file, row and column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from medserl.game.cells import flag_of, is_nothing, shown_value, whole_number
from medserl.game.columns import Form, shown_name, unread_errors
from medserl.game.labels import Label
from medserl.game.numbered import Numbered, find_sentence, numbered_sentences, squeezed
from medserl.game.records import CORRECTED_SUFFIX, LabelledExample
from medserl.game.rows import Row
from medserl.game.sentences import sentence_texts
from medserl.game.vcf import leak_markers, shingle_similarity

NO_CORRECTION = "flag 1, but no corrected text: of use for evaluation only"
SAME_CORRECTION = "flag 1, but text and corrected text are the same: of use for evaluation only"
OTHER_CORRECTION = "the corrected text is nothing like the text and was left out: of use for evaluation only"
MADE_CORRECTION = "there is no column of corrected texts; the text was made with the corrected sentence"
LEAST_SIMILARITY = 0.1
"""Shingle similarity below which a corrected text belongs to another note."""
_ERROR_COLUMNS = ("error_type", "error_sentence", "corrected_sentence")
_VERSION = 0.5
"""Shingle similarity from which a text in a column of unknown name is a version of the note, whatever the name."""
_LEAST_VERSION = 20  # characters; shorter texts are alike by chance
_EDGE = 20  # characters; texts that begin or end alike need no closer look


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
    if row.columns is None:
        raise Dropped("blank line")
    form = row.columns.form
    if form is Form.PREPARED:
        converted = _prepared(row)
    elif row.is_blank():
        raise Dropped("blank row")
    elif form is Form.MEDEC:
        converted = _medec(row)
    else:
        converted = _plain_or_pair(row, form)
    marks = {mark for example in converted.examples for mark in leak_markers(example.text)}
    found = [f"holds a mark of the game: {', '.join(sorted(marks))}"] if marks else []
    return converted._replace(remarks=(*converted.remarks, *row.remarks, *found))


# ------------------------------------------------------------------------------------------------ MEDEC


def _medec(row: Row) -> Converted:
    text, note_id = row.cell("text"), row.note_id()
    if text is None:
        raise Dropped("blank text")
    if note_id is None:
        raise Dropped("no text id")
    split = row.cell("split")
    if is_nothing(row.values["error_flag"]):
        raise Dropped("no error flag")
    flag = flag_of(row.values["error_flag"])
    if flag is None:
        raise row.bad(f"{row.name('error_flag')} {shown_value(row.values['error_flag'])}, not 0 or 1")
    remarks: list[str] = []
    numbered = _sentences(row, text, remarks)
    number = _number(row)
    if not flag:
        if any(row.cell(column) is not None for column in _ERROR_COLUMNS) or (number or 0) > 0:
            remarks.append("flag 0, but an error is described; the flag counts")
        sentences = _texts(numbered, text)
        example = LabelledExample(note_id, text, Label.CORRECT, None, -1, None, None, sentences)
        return Converted((example,), split, tuple(remarks))
    kind, error, fix = (row.cell(column) for column in _ERROR_COLUMNS)
    _check_sentence(row, "error_sentence", error, text)
    sentences = _texts(numbered, text)
    position = _position(number, error, numbered, sentences, remarks)
    if error is None and position >= 0 and squeezed(sentences[position]) in squeezed(text):
        error = sentences[position]
    corrected = _corrected(row, text, error, fix, remarks)
    kind = None if kind is None else kind.strip().lower()
    example = LabelledExample(note_id, text, Label.INCORRECT, kind, position, error, fix, sentences, corrected)
    return Converted((example,), split, tuple(remarks))


def _sentences(row: Row, text: str, remarks: list[str]) -> Numbered | None:
    """The source's own sentences; None where it has none."""
    value = row.values.get("sentences")
    if isinstance(value, list):
        items = [item for item in value if isinstance(item, str)]
        if len(items) != len(value):
            raise row.bad(f"{row.name('sentences')} must be a string or a list of strings")
        row.values = {**row.values, "sentences": "\n".join(items)}
    cell = row.cell("sentences")
    if cell is None:
        return None
    numbered = numbered_sentences(cell)
    if numbered.sentences:
        return numbered
    if isinstance(value, list):
        return Numbered(tuple(item.strip() for item in value), 0)
    remarks.append(f"the column {row.name('sentences')} is not numbered from 0 or 1; the text was split anew")
    return None


def _texts(numbered: Numbered | None, text: str) -> tuple[str, ...]:
    return tuple(sentence_texts(text)) if numbered is None else numbered.sentences


def _number(row: Row) -> int | None:
    value = row.values.get("error_sentence_id")
    if is_nothing(value):
        return None
    number = whole_number(value)
    if number is None:
        raise row.bad(f"{row.name('error_sentence_id')} {shown_value(value)}, not the number of a sentence")
    return number


def _position(
    number: int | None, error: str | None, numbered: Numbered | None, sentences: Sequence[str], remarks: list[str]
) -> int:
    """Index of the sentence with the error. Where its number and its words differ, the words decide."""
    there = find_sentence(error, sentences)
    if number is None or number < 0:
        remarks.append("flag 1, but no error sentence id; it was looked up")
        return there
    position = number - (numbered.first if numbered is not None else 0)
    inside = 0 <= position < len(sentences)
    if error is None or (numbered is None and there >= 0):  # a text that was split anew has other numbers
        if not inside and there < 0:
            remarks.append("the error sentence id is not the number of a sentence")
        return there if there >= 0 else position if inside else -1
    wanted = squeezed(error)
    if inside and (squeezed(sentences[position]) == wanted or there < 0):
        if squeezed(sentences[position]) != wanted:
            remarks.append("the error sentence is not the sentence with the error sentence id; the id counts")
        return position
    if there != position:
        remarks.append("the error sentence is not the sentence with the error sentence id; the sentence counts")
    return there


def _corrected(row: Row, text: str, error: str | None, fix: str | None, remarks: list[str]) -> str | None:
    corrected = row.cell("corrected_text")
    if corrected is None:
        if "corrected_text" not in row.values and error is not None and fix is not None and text.count(error) == 1:
            remarks.append(MADE_CORRECTION)
            return text.replace(error, fix)
        remarks.append(NO_CORRECTION)
    elif corrected.split() == text.split():
        remarks.append(SAME_CORRECTION)
    elif _unlike(corrected, text):
        remarks.append(OTHER_CORRECTION)
        return None
    return corrected


def _unlike(a: str, b: str) -> bool:
    """Whether two texts can hardly be versions of one note."""
    a, b = a.strip(), b.strip()
    if a[:_EDGE] == b[:_EDGE] or a[-_EDGE:] == b[-_EDGE:]:
        return False
    return shingle_similarity(a, b) < LEAST_SIMILARITY


def _check_sentence(row: Row, column: str, sentence: str | None, text: str) -> None:
    if sentence is None or sentence in text or squeezed(sentence) in squeezed(text):
        return
    raise row.bad(
        f"{row.name(column)} ({len(sentence)} characters) is not in the text ({len(text)} characters); correct it"
    )


# -------------------------------------------------------------------------------------- plain and pairs


def _plain_or_pair(row: Row, form: Form) -> Converted:
    split = row.cell("split")
    key, error_key = ("correct_note", "incorrect_note") if form is Form.PAIR else ("text", "error_text")
    note_id = row.note_id()
    if note_id is None:
        raise row.bad(f"{row.name('note_id')} is empty")
    text, error_text = row.cell(key), row.cell(error_key)
    if text is None:
        raise Dropped("blank text")
    kind, error, fix = (row.cell(column) for column in _ERROR_COLUMNS)
    if error_text is None:
        if row.columns is None or not row.columns.labelled:
            _reject_hidden_label(row, {"error_type": kind, "error_sentence": error, "corrected_sentence": fix}, text)
        return Converted((_correct(note_id, text),), split)
    if squeezed(error_text) == squeezed(text):
        raise row.bad(f"{row.name(key)} and {row.name(error_key)} are the same")
    _check_sentence(row, "error_sentence", error, error_text)
    remarks = (OTHER_CORRECTION,) if _unlike(text, error_text) else ()
    sentences = tuple(sentence_texts(error_text))
    kind = None if kind is None else kind.strip().lower()
    wrong = LabelledExample(
        note_id,
        error_text,
        Label.INCORRECT,
        kind,
        find_sentence(error, sentences),
        error,
        fix,
        sentences,
        None if remarks else text,
    )
    return Converted((wrong, _correct(note_id + CORRECTED_SUFFIX, text)), split, remarks)


def _reject_hidden_label(row: Row, described: Mapping[str, str | None], text: str) -> None:
    """A row without an erroneous note is taken as correct; one that says more, in a column of any name, must not be."""
    assert row.columns is not None
    key = row.columns.error_key
    column = next((name for name, value in described.items() if value is not None), None)
    if column is not None:
        without = "'error_flag' and no 'error_text'; add one of them" if key == "error_text" else f"{key!r}; add it"
        raise row.bad(f"{row.name(column)} describes an error, but there is no {without}")
    for name in row.columns.unknown:
        value = row.values.get(name)
        if value in ("CORRECT", "INCORRECT"):
            raise row.bad(
                f"the column {shown_name(name)} holds a label, which would not be read; call it 'error_flag' "
                "(0 or 1), or leave it out"
            )
        if isinstance(value, str) and _is_version(value, text):
            raise row.bad(unread_errors(name, "holds another version of the note", key))


def _is_version(value: str, text: str) -> bool:
    """Whether a cell is the note with other words: one with other case, spacing or punctuation only says no more."""
    if not _LEAST_VERSION <= len(value) <= 2 * len(text) <= 4 * len(value):
        return False
    words = [re.findall(r"\w+", version.casefold()) for version in (value, text)]
    return words[0] != words[1] and shingle_similarity(value, text) >= _VERSION


def _correct(note_id: str, text: str) -> LabelledExample:
    return LabelledExample(note_id, text, Label.CORRECT, None, -1, None, None, tuple(sentence_texts(text)))


# --------------------------------------------------------------------------------------------- prepared


def _prepared(row: Row) -> Converted:
    """A row of ``medserl data prepare`` (medserl/data/write.py has its columns)."""
    info = row.values["extra_info"]
    if not isinstance(info, Mapping):
        raise row.bad("'extra_info' is not a structure as `medserl data prepare` writes it")
    inner = Row(row.path, row.number, row.line, info, row.columns, row.repair, row.remarks)
    text, label, note_id = inner.text("text"), inner.text("label"), inner.text("note_id")
    if label not in (Label.CORRECT, Label.INCORRECT):
        raise row.bad(f"'label' {shown_value(label)}, not {Label.CORRECT} or {Label.INCORRECT}")
    position, sentences = info.get("error_sentence_id"), info.get("sentences")
    if not isinstance(position, int) or not isinstance(sentences, list):
        raise row.bad("'error_sentence_id' or 'sentences' of 'extra_info' is missing; prepare the file anew")
    error = inner.cell("error_sentence")
    _check_sentence(inner, "error_sentence", error, text)
    example = LabelledExample(
        note_id,
        text,
        Label(label),
        inner.cell("error_type"),
        position,
        error,
        inner.cell("corrected_sentence"),
        tuple(map(str, sentences)),
        inner.cell("corrected_text"),
    )
    return Converted((example,), inner.cell("split"))
