"""The plain game: what the injector was asked for is what it did."""

from typing import ClassVar

from medserl.game.cosmetic import same_words
from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee.base import UNCHECKED, Referee, Ruling, RulingKind, register_referee

GOLD = "gold_error"


@register_referee
class InstructionReferee(Referee):
    """The mode is the label: the baseline, which cannot see an injector that does the opposite. Where a note carries
    its own gold error, the edit that makes exactly that one is an error, and the one that takes it back benign,
    whatever the mode. All other rulings have the reason `UNCHECKED`."""

    name: ClassVar[str] = "instruction"

    def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        if note.error_text is not None:
            if same_words(note.error_text, modified):
                return Ruling(RulingKind.ERROR, GOLD)
            if same_words(note.text, modified):
                return Ruling(RulingKind.BENIGN, GOLD)
        return Ruling(RulingKind.BENIGN if mode is Mode.BENIGN else RulingKind.ERROR, UNCHECKED)


def unchecked_labels(referee: str | None, second: str | None) -> str | None:
    """What people are to be told of a run whose labels nobody checks, in a sentence; None where a referee does.

    Args:
        referee: ``medserl.referee.name``, resolved.
        second: ``medserl.second_referee.name``.
    """
    if referee != InstructionReferee.name:
        return None
    measures = second and second != InstructionReferee.name  # two that take the mode's word always agree
    measured = f"how many are wrong is measured by {second} only" if measures else "label inversion is not measured"
    return f"labels are what the injector was asked for and were not checked; {measured}"
