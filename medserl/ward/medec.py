"""Ward notes in the columns of MEDEC's files, so that whatever reads MEDEC reads the ward."""

from __future__ import annotations

from collections.abc import Iterable

from medserl.game.records import Note
from medserl.game.sentences import sentence_texts

COLUMNS = ("Text ID", "Text", "Sentences", "Error Flag", "Error Type", "Error Sentence ID", "Error Sentence",
           "Corrected Sentence", "Corrected Text")  # fmt: skip
_SPELLING = {"causalorganism": "causalOrganism"}
_NONE = "NA"


def medec_rows(notes: Iterable[Note], *, erroneous: bool) -> list[dict[str, str]]:
    """One row per note, with the columns and conventions of MEDEC-MS: the note's gold error variant
    (``erroneous``; ValueError where a note has none) or the correct note (flag 0, sentence id -1, NA)."""
    return [_error_row(note) if erroneous else _clean_row(note) for note in notes]


def _clean_row(note: Note) -> dict[str, str]:
    values = (note.note_id, note.text, _numbered(note.text), "0", _NONE, "-1", _NONE, _NONE, _NONE)
    return dict(zip(COLUMNS, values, strict=True))


def _error_row(note: Note) -> dict[str, str]:
    if note.error_text is None or note.error_type is None or not note.error_sentence or not note.corrected_sentence:
        raise ValueError(f"note {note.note_id} has no gold error variant")
    position = sentence_texts(note.error_text).index(note.error_sentence)
    error_type = _SPELLING.get(note.error_type, note.error_type)
    values = (note.note_id, note.error_text, _numbered(note.error_text), "1", error_type, str(position),
              note.error_sentence, note.corrected_sentence, note.text)  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _numbered(text: str) -> str:
    return "\n".join(f"{i} {sentence}" for i, sentence in enumerate(sentence_texts(text)))
