"""Notes and gold-labelled notes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from medserl.errors import DataError
from medserl.game.labels import Label

CORRECTED_SUFFIX = ":corrected"
"""In files of labelled texts, ends the id of a pair's correct note, so that ids are unique."""


def base_id(note_id: str) -> str:
    """The id that all versions of a note share."""
    return note_id.removesuffix(CORRECTED_SUFFIX)


@dataclass(frozen=True, slots=True)
class Note:
    """A clinical note that is right, and what is known of its gold error where it has one."""

    note_id: str
    text: str
    """The correct note; what the injector edits."""
    error_text: str | None = None
    """The same note with its gold error."""
    error_type: str | None = None
    error_sentence: str | None = None
    corrected_sentence: str | None = None


@dataclass(frozen=True, slots=True)
class LabelledNote:
    """A text with a gold label. The two versions of one note share their ``note_id``."""

    note_id: str
    text: str
    label: Label
    error_type: str | None = None


def labelled_from_notes(notes: Iterable[Note]) -> list[LabelledNote]:
    """Each note as a CORRECT text and, where it has a gold error, as an INCORRECT one too."""
    labelled: list[LabelledNote] = []
    for note in notes:
        labelled.append(LabelledNote(note.note_id, note.text, Label.CORRECT))
        if note.error_text is not None:
            labelled.append(LabelledNote(note.note_id, note.error_text, Label.INCORRECT, note.error_type))
    return labelled


@dataclass(frozen=True, slots=True)
class LabelledExample:
    """One published row: a text with the flag that its source gives it, and what is known of its error."""

    note_id: str
    """As published. The correct note of a pair has the pair's id with ``CORRECTED_SUFFIX`` appended, so that ids
    are unique within a file."""
    text: str
    label: Label
    error_type: str | None
    """In lower case, e.g. ``causalorganism``; None for a correct text."""
    error_sentence_id: int
    """Index into ``sentences``; -1 for a correct text, and where a source does not tell."""
    error_sentence: str | None
    corrected_sentence: str | None
    sentences: tuple[str, ...]
    """The sentences as the source numbers them (MEDEC's column ``Sentences``), else those of the project's
    splitter (`medserl.game.sentences.sentence_texts`)."""
    corrected_text: str | None = None
    """The text without its error; None for a correct text, and where a source does not tell."""


class _HasId(NamedTuple):
    """Where an id or text was seen first: split, note id."""

    split: str
    note_id: str


def check_disjoint(splits: Mapping[str, Iterable[Note | LabelledNote]]) -> None:
    """Raise DataError where a note of one split is in another, by id or by identical text."""
    by_id: dict[str, str] = {}
    by_text: dict[str, _HasId] = {}
    for split, notes in splits.items():
        for note in notes:
            other = by_id.setdefault(note.note_id, split)
            if other != split:
                raise DataError(
                    f"note id {note.note_id!r} is in the split {split!r} and in {other!r}; "
                    "a note may be in one split only"
                )
            seen = by_text.setdefault(" ".join(note.text.split()), _HasId(split, note.note_id))
            if seen.split != split:
                raise DataError(
                    f"note {note.note_id!r} of the split {split!r} has the same text as "
                    f"note {seen.note_id!r} of {seen.split!r}; a note may be in one split only"
                )
