"""Notes: what they are, how they are loaded, and how they are dealt out round by round."""

from medserl.game.labels import Label, Mode
from medserl.game.load import LoadReport, load_notes, load_notes_with_report
from medserl.game.records import LabelledNote, Note, check_disjoint, labelled_from_notes
from medserl.game.stream import Batch, LabelledStream, NoteStream, notes_fingerprint

__all__ = [
    "Batch",
    "Label",
    "LabelledNote",
    "LabelledStream",
    "LoadReport",
    "Mode",
    "Note",
    "NoteStream",
    "check_disjoint",
    "labelled_from_notes",
    "load_notes",
    "load_notes_with_report",
    "notes_fingerprint",
]
