"""The one table of columns: what a column is called in the files that circulate, and which form a row has.

MEDEC's columns are published as ``Text ID, Text, Sentences, …``; mirrors write them in snake_case or camelCase. Case,
blanks and underscores never matter, so all of them are one column.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, TextIO

PREPARED_COLUMNS = ("data_source", "prompt", "reward_model", "extra_info")
"""What tells a file that `medserl data prepare` wrote."""
MEDEC_NAMES = {
    "note_id": "Text ID",
    "text": "Text",
    "sentences": "Sentences",
    "error_flag": "Error Flag",
    "error_type": "Error Type",
    "error_sentence_id": "Error Sentence ID",
    "error_sentence": "Error Sentence",
    "corrected_sentence": "Corrected Sentence",
    "corrected_text": "Corrected Text",
}
"""Column → how MEDEC's published files spell it."""
_OWN = ("correct_note", "incorrect_note", "error_text", "split", "extra_info")
_KNOWN = {name.replace("_", ""): name for name in (*MEDEC_NAMES, *_OWN)} | {"textid": "note_id"}
_MISSPELT = {key: name for key, name in _KNOWN.items() if "error" in name or "correct" in name}
_TELLS_ERRORS = ("error_sentence_id", "corrected_text")
"""Columns that only a file with flags has."""

_LABEL_NAME = re.compile(
    r"(?:gold|true)?labels?|class(?:es)?|targets?|flag|y|gold|(?:ground)?truth|(?:final)?answer|verdict|outcome"
    r"|annotation|status"
)
_LABEL_WORD = re.compile(
    r"labels?|err|errors?|erroneous|(?:in)?correct|correctness|wrong|mistakes?|flag|verdict"
    r"|fehler|fehlerhafte?|falsch|(?:in)?korrekt|erreurs?|errone[ao]|errore|errores|incorrect[ao]"
)
_ALTERED = re.compile(
    r"(?:altered|modified|changed|edited|corrupted|faulty|flawed|false|bad|injected)(?:notes?|texts?|versions?|reports?)?"
)
"""Whole names of a column beside the correct notes that may hold the erroneous ones."""
_NAME = re.compile(r"[^\W\d][\w()#/]*(?: [\w()#/]+){0,2}")  # three words at most, and no sentence
_LONGEST_SHOWN = 24
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_SHOWN = 12
_LONGEST = 40  # characters of a column's name; more are data


class Form(StrEnum):
    """The forms of a row."""

    PLAIN = "plain"
    PAIR = "pair"
    MEDEC = "medec"
    PREPARED = "prepared"


_NEEDED = {
    Form.PLAIN: ("note_id", "text"),
    Form.PAIR: ("note_id", "correct_note"),
    Form.MEDEC: ("note_id", "text", "error_flag"),
    Form.PREPARED: ("extra_info",),
}
_DESCRIBING = ("note_id", "split", "error_type", "error_sentence", "corrected_sentence")
_READ = {
    Form.PLAIN: {*_DESCRIBING, "text", "error_text"},
    Form.PAIR: {*_DESCRIBING, "correct_note", "incorrect_note"},
    Form.MEDEC: {*MEDEC_NAMES, "split"},
}
"""Form → the columns of the table that count in it."""
_SAYS_MORE = ("text", "error_text", "error_flag", "corrected_text")
"""Columns of other forms that would say of a pair without its erroneous note that there is an error."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a file, or the keys of a JSON row, recognised."""

    form: Form
    keys: tuple[str, ...]
    """Each column's key, in the order of the file: its name in the table, or its own where the table has none."""
    names: dict[str, str]
    """Key of the table → the column's name in the file."""
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    """Needed columns of the form that are not there."""

    @property
    def labelled(self) -> bool:
        """Whether such rows can say that a text holds an error."""
        own = self.form is not Form.PLAIN and (self.form is not Form.PAIR or "incorrect_note" in self.names)
        return own or "error_text" in self.names

    @property
    def error_key(self) -> str:
        """The column of the erroneous notes in a plain file or one of pairs."""
        return "incorrect_note" if self.form is Form.PAIR else "error_text"

    @property
    def ignored(self) -> tuple[str, ...]:
        """Names of the columns that nothing is read from."""
        if self.form is Form.PREPARED:
            return ()
        return (*filter(None, self.unknown), *(name for key, name in self.names.items() if key not in _READ[self.form]))

    def name(self, key: str) -> str:
        """A column's name as an error should say it: as the file spells it, or would."""
        if key in self.names:
            return self.names[key]
        published = key in MEDEC_NAMES and any(" " in name for name in self.names.values())
        return MEDEC_NAMES[key] if published else key


class BadColumns(Exception):
    """Columns that cannot be read without a guess; the message is the sentence's end."""


@lru_cache(maxsize=512)
def recognise(names: tuple[str, ...]) -> Columns:
    """Find the columns of the table, and the form, in the names of a header or a JSON object.

    Raises BadColumns for a column that is there twice, one that looks like a label under another name, and one that
    looks misspelt. Columns that are missing are the caller's to tell.
    """
    keys: list[str] = []
    found: dict[str, str] = {}
    unknown: list[str] = []
    for name in names:
        key = _KNOWN.get(re.sub(r"[\s_\-.\ufeff]+", "", name).casefold())
        if key is None:
            if name and name in unknown:
                raise BadColumns(f"the column {shown_name(name)} occurs twice")
            unknown.append(name)
            keys.append(name)
        elif key in found:
            both = sorted({shown_name(found[key]), shown_name(name)})
            twice = f"{both[0]} occurs twice" if len(both) == 1 else f"{both[0]} is there as {both[1]} too"
            raise BadColumns(f"the column {twice}, so that it is unclear which one counts; leave one out")
        else:
            found[key] = name
            keys.append(key)
    form = _form(found)
    missing = tuple(key for key in _NEEDED[form] if key not in found)
    if form is not Form.PREPARED:
        _reject_lookalikes(form, found, unknown)
    return Columns(form, tuple(keys), found, tuple(unknown), missing)


def _form(found: dict[str, str]) -> Form:
    if "extra_info" in found:
        return Form.PREPARED
    if "correct_note" in found or "incorrect_note" in found:
        return Form.PAIR
    if "error_flag" in found or any(key in found for key in _TELLS_ERRORS):
        return Form.MEDEC
    return Form.PLAIN


def _reject_lookalikes(form: Form, found: dict[str, str], unknown: Sequence[str]) -> None:
    """A label that is not read would make every erroneous note a correct one."""
    from difflib import get_close_matches

    for name in unknown:
        squeezed = re.sub(r"[\W_]+", "", name).casefold()
        near = get_close_matches(squeezed, _MISSPELT, n=1, cutoff=0.85) if len(name) <= _LONGEST else []
        if near and _KNOWN[near[0]] not in found:
            raise BadColumns(
                f"the column {shown_name(name)} looks like {_KNOWN[near[0]]!r} misspelt; rename it, or leave it out"
            )
        words = {word.casefold() for part in re.split(r"[\W_]+", name) for word in _HUMP.split(part)}
        label = _LABEL_NAME.fullmatch(squeezed) or any(map(_LABEL_WORD.fullmatch, words))
        if form is Form.PLAIN and label:
            raise BadColumns(
                f"the column {shown_name(name)} looks like a label, which would not be read; call it 'error_flag' "
                "(0 or 1), give the erroneous notes as 'error_text', or leave it out"
            )
        if form is Form.PAIR and "incorrect_note" not in found and (label or _ALTERED.fullmatch(squeezed)):
            raise BadColumns(unread_errors(name, "may hold the erroneous notes", "incorrect_note"))
    others = [found[key] for key in _SAYS_MORE if key in found]
    if form is Form.PAIR and "incorrect_note" not in found and others:
        raise BadColumns(unread_errors(others[0], "stands beside 'correct_note'", "incorrect_note"))


def unread_errors(name: str, what: str, key: str) -> str:
    """The sentence's end for a column that may hold the erroneous notes; ``key``: what it must be called then."""
    return (
        f"the column {shown_name(name)} {what}, and would not be read; call the column of the erroneous notes {key!r}, "
        f"or leave {shown_name(name)} out"
    )


def shown_name(name: str) -> str:
    """A column's name in quotes; its length where it does not look like a name, for it may be a note's text."""
    if len(name) <= _LONGEST_SHOWN and _NAME.fullmatch(name):
        return repr(name)
    return f"({len(name)} characters)" if name else "(no name)"


def shown_names(names: Sequence[str]) -> str:
    """The first columns of a file, for an error."""
    shown = ", ".join(shown_name(name).strip("'") for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (shown or "none") + more


def missing_columns(columns: Columns, names: Sequence[str]) -> str:
    """The sentence's end for a file that lacks a needed column."""
    listed = f"the columns are {shown_names(names)}; expected "
    if not columns.names:
        return (
            f"{listed}note_id and text, note_id and correct_note (with incorrect_note), or MEDEC's Text ID, Text, "
            "Error Flag, Corrected Text"
        )
    needed = ", ".join(columns.name(key) for key in _NEEDED[columns.form])
    return f"the column {columns.name(columns.missing[0])!r} is missing; {listed}{needed}"


def csv_reader(file: TextIO, strict: bool = False) -> Any:
    """Rows of the file, the header first. Excel's ``sep=;`` above it is a hint for spreadsheets, and no row."""
    head = next(iter(file), "")
    hint = re.fullmatch(r"sep=(.)\s*", head, re.IGNORECASE)
    file.seek(0)
    reader = csv.reader(file, strict=strict, delimiter=hint.group(1) if hint else _delimiter(head))
    if hint:
        next(reader)
    return reader


def _delimiter(head: str) -> str:
    """What separates the columns: what makes the header one that is known, a comma where nothing does."""
    refused = ","
    for delimiter in (",", ";", "\t", "|"):
        names = tuple(name.strip() for name in next(csv.reader([head], delimiter=delimiter), []))
        try:
            if not recognise(names).missing:
                return delimiter
        except BadColumns:
            refused = delimiter if len(names) > 1 and refused == "," else refused
    return refused
