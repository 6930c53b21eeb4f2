"""The plain game: what the injector was asked for is what it did."""

from typing import ClassVar

from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee.base import Referee, Ruling, RulingKind, register_referee


@register_referee
class InstructionReferee(Referee):
    """The mode is the label. The baseline: it cannot see an injector that does the opposite."""

    name: ClassVar[str] = "instruction"

    def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        return Ruling(RulingKind.BENIGN if mode is Mode.BENIGN else RulingKind.ERROR, "instruction")
