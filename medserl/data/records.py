"""What the data commands, training and evaluation share: one labelled text."""

from dataclasses import dataclass

from medserl.game.labels import Label
from medserl.game.records import CORRECTED_SUFFIX, base_id

__all__ = ["CORRECTED_SUFFIX", "LabelledExample", "base_id"]


@dataclass(frozen=True, slots=True)
class LabelledExample:
    """One published row: a text with the flag that its source gives it, and what is known of its error."""

    note_id: str
    """As published. The correct note of a JSONL pair has the pair's id with ``CORRECTED_SUFFIX`` appended, so
    that ids are unique within a file."""
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
