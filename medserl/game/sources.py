"""Note sources: where the notes of a run come from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from medserl.errors import DataError
from medserl.game.load import load_notes
from medserl.game.records import Note
from medserl.game.registry import Registry


class NoteSource(ABC):
    """Hands out the notes of a run. It is asked more than once, and must give the same notes each time."""

    name: ClassVar[str]

    @abstractmethod
    def training(self) -> Sequence[Note]:
        """The notes that the injector edits, in an order that stays."""

    def gold(self, training: Sequence[Note]) -> Sequence[Note]:
        """Notes whose gold error is known, for the assessor's labelled rows; by default those of ``training``."""
        return [note for note in training if note.error_text is not None]

    def held_out(self) -> Sequence[Note]:
        """Notes to validate on, none of which trains. A source that does not write this method has none."""
        return []

    @property
    def where(self) -> str:
        """Where the notes are, for messages."""
        return f"the note source {self.name!r}"


SOURCES: Registry[NoteSource] = Registry("note source", NoteSource)


def register_note_source[S: NoteSource](cls: type[S]) -> type[S]:
    """Class decorator: make a note source known under its ``name``, for ``medserl.notes.source``.

    Raises TypeError and ValueError as `Registry.add` does.
    """
    return SOURCES.add(cls)


def note_source_names() -> list[str]:
    """Names of the registered note sources, sorted."""
    return SOURCES.names()


def make_note_source(name: str, **options: Any) -> NoteSource:
    """Build the note source ``name``; ConfigError for an unknown name or an option that it does not take."""
    return SOURCES.make(name, options)


def checked_notes(notes: Sequence[Note], where: str) -> list[Note]:
    """Notes as a source gave them; DataError, naming the note, for one that no game can be played on."""
    found: dict[str, Note] = {}
    for number, note in enumerate(notes, start=1):
        if not isinstance(note, Note):
            raise DataError(f"{where}: entry {number} is a {type(note).__name__}, not a medserl.game.Note")
        if not isinstance(note.note_id, str) or not note.note_id:
            raise DataError(f"{where}: entry {number} has no note_id; each note needs its own")
        for field in ("text", "error_text"):
            text = getattr(note, field)
            if (text is not None or field == "text") and not (isinstance(text, str) and text.strip()):
                raise DataError(f"{where}: note {note.note_id!r}: its {field} is blank or no text")
        if note.error_text is not None and note.error_text.split() == note.text.split():
            raise DataError(f"{where}: note {note.note_id!r}: the note and its error variant are the same")
        if found.setdefault(note.note_id, note) is not note:
            raise DataError(f"{where}: note id {note.note_id!r} occurs more than once")
    return list(found.values())


@register_note_source
class NoteFile(NoteSource):
    """A .jsonl, .csv or .parquet file (`medserl.game.load_notes`); rows of another split than train are an error."""

    name: ClassVar[str] = "files"

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def training(self) -> list[Note]:
        return load_notes(self._path, split="train")

    @property
    def where(self) -> str:
        return str(self._path)
