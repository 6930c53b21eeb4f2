"""The notes of a course: a few sentences around each gold error, which a small model on two cores can work with."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from medserl.errors import DataError
from medserl.files import write_atomically
from medserl.game import Note, load_notes
from medserl.game.demonstrations import changed_sentence
from medserl.game.sentences import sentence_texts


def around_the_error(note: Note, sentences: int) -> Note | None:
    """So many sentences of a note and of its gold error, which stands in any of them; by the note's id the same ones.

    Returns:
        None where the two do not differ in exactly one sentence.
    """
    change = None if note.error_text is None else changed_sentence(note.text, note.error_text)
    if change is None or note.error_text is None:
        return None
    right, wrong = sentence_texts(note.text), sentence_texts(note.error_text)
    before = random.Random(f"medserl course {note.note_id}").randrange(sentences)
    first = max(0, min(change[0] - before, len(right) - sentences))
    here = slice(first, first + sentences)
    return replace(note, text=" ".join(right[here]), error_text=" ".join(wrong[here]))


def cut_notes(source: Path, out: Path, sentences: int, longest: int) -> None:
    """Write the pairs of a file, cut to so many sentences, none of which has more than ``longest`` characters.

    Raises:
        DataError: none is left.
    """
    cut = [around_the_error(note, sentences) for note in load_notes(source) if note.error_text is not None]
    kept = [note for note in cut if note is not None and _longest(note) <= longest]
    if not kept:
        raise DataError(
            f"{source}: no note has a gold error in one sentence and, around it, no sentence of more than {longest} "
            "characters"
        )
    rows = [{"note_id": n.note_id, "correct_note": n.text, "incorrect_note": n.error_text} for n in kept]
    write_atomically(out, "".join(json.dumps(row) + "\n" for row in rows))


def _longest(note: Note) -> int:
    """Characters of the longest sentence of a note and of its gold error."""
    return max(len(text) for whole in (note.text, note.error_text or "") for text in sentence_texts(whole))
