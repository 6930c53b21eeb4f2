"""The two small vocabularies that every part of the game shares."""

from enum import StrEnum

ERROR_TYPES = ("diagnosis", "management", "treatment", "pharmacotherapy", "causalorganism")
"""MEDEC's five error types (Ben Abacha et al. 2024), in lower case as notes carry them."""


class Mode(StrEnum):
    """What the injector is asked for: an edit that keeps the note right, or one that makes it wrong."""

    BENIGN = "benign"
    ERROR = "error"

    @property
    def label(self) -> "Label":
        """The label that the note has if the injector did what its mode asks."""
        return Label.CORRECT if self is Mode.BENIGN else Label.INCORRECT


class Label(StrEnum):
    """Whether a note holds a medical error; also the two answers that an assessor can give."""

    CORRECT = "CORRECT"
    INCORRECT = "INCORRECT"

    @property
    def other(self) -> "Label":
        return Label.INCORRECT if self is Label.CORRECT else Label.CORRECT
