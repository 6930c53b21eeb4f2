"""What a referee is, and the register of the known ones."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from medserl.game.labels import Label, Mode
from medserl.game.records import Note
from medserl.game.registry import Registry


class RulingKind(StrEnum):
    """What became of the note's truth."""

    ERROR = "error"
    """The edit made the note wrong."""
    BENIGN = "benign"
    """The note is as right as before."""
    VOID = "void"
    """Undecided; the game counts for nothing."""
    LOSSY = "lossy"
    """The edit only removes a fact, which is neither of the two; the game counts for nothing."""


UNCHECKED = "instruction"
"""Reason of a ruling that takes the mode's word for it."""
FAILED = "referee_failed"
"""Reason of a void ruling where the referee could not be asked."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """A referee's word on one edit, with a short reason that statistics can group by."""

    kind: RulingKind
    reason: str = ""
    detail: str = ""
    """What happened, where ``reason`` is `FAILED`."""

    @classmethod
    def of_failure(cls, detail: str) -> "Ruling":
        """The void ruling of a referee that could not be asked."""
        return cls(RulingKind.VOID, FAILED, detail)

    @property
    def failed(self) -> bool:
        """Whether the referee could not be asked, as opposed to could not decide."""
        return self.reason == FAILED

    @property
    def checked(self) -> bool:
        """Whether the referee looked at the edit, as opposed to took the mode's word for it."""
        return self.reason != UNCHECKED

    @property
    def label(self) -> Label | None:
        """The edited note's label; None where nothing was decided."""
        if self.kind is RulingKind.ERROR:
            return Label.INCORRECT
        return Label.CORRECT if self.kind is RulingKind.BENIGN else None

    def contradicts(self, mode: Mode) -> bool:
        """Whether the edit did the opposite of what its mode asks."""
        return self.label is not None and self.label is not mode.label


class Referee(ABC):
    """Says what an accepted edit made of a note, without ever asking the assessor.

    Subclasses write `rule`; one that has to wait for something (a judge model) overrides `arule` as well.
    """

    name: ClassVar[str]

    @abstractmethod
    def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        """Rule on ``modified``, an accepted edit of ``note.text`` made in ``mode``."""

    async def arule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        """Asynchronous `rule`; the game calls only this one."""
        return self.rule(note, mode, modified)


REFEREES: Registry[Referee] = Registry("referee", Referee)


def register_referee[R: Referee](cls: type[R]) -> type[R]:
    """Class decorator: make a referee known under its ``name``, for ``medserl.referee.name``.

    Raises TypeError and ValueError as `Registry.add` does.
    """
    return REFEREES.add(cls)


def referee_names() -> list[str]:
    """Names of the registered referees, sorted."""
    return REFEREES.names()


def make_referee(name: str, **options: Any) -> Referee:
    """Build the referee ``name``; ConfigError for an unknown name or an option that it does not take. What its
    constructor raises goes through."""
    return REFEREES.make(name, options)
