"""Referees: who says whether an edited note is right or wrong."""

from medserl.game.referee import instruction as _instruction
from medserl.game.referee import rules as _rules
from medserl.game.referee.base import (
    FAILED,
    REFEREES,
    Referee,
    Ruling,
    RulingKind,
    make_referee,
    referee_names,
    register_referee,
)
from medserl.game.referee.judge import Judge, JudgeFailed

InstructionReferee = _instruction.InstructionReferee
RulesReferee = _rules.RulesReferee

__all__ = [
    "FAILED",
    "REFEREES",
    "InstructionReferee",
    "Judge",
    "JudgeFailed",
    "Referee",
    "RulesReferee",
    "Ruling",
    "RulingKind",
    "make_referee",
    "referee_names",
    "register_referee",
]
