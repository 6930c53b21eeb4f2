"""What kinds of rows the game log has, and what follows from a row: its outcome, who contradicts whom. Light."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import log2
from typing import Any

from medserl.game.labels import Label
from medserl.game.referee.base import UNCHECKED

Row = dict[str, Any]
"""One game, by the columns of `medserl.gamelog.rows.SCHEMA`."""
LEAST_PROBABILITY = 0.0005
"""What a surprise takes for less: the page keeps p in thousandths."""


SORTS = ("newest", "oldest", "surprise", "sure", "tokens")
"""Orders that games can be shown in."""


class Source(StrEnum):
    """Where a row comes from."""

    PLAY = "self-play"
    GOLD = "gold"
    """A gold-labelled note that trains the assessor."""
    REPLAY = "asked again"
    """A text of an earlier round's game that trains the assessor again."""
    GREEDY = "held-out greedy"
    SAMPLED = "held-out sampled"


class Outcome(StrEnum):
    """How a game ended, as the assessor's side sees it."""

    RIGHT = "assessor right"
    WRONG = "assessor wrong"
    NO_ANSWER = "no answer"
    """The assessor's reply states no verdict."""
    EXHAUSTED = "all attempts rejected"
    VOID = "void"
    """The referee did not decide, or could not be asked."""
    LOSSY = "lossy"


def outcome(row: Mapping[str, Any]) -> Outcome:
    """How a row's game ended."""
    if row["assessor"] is not None:
        answer = row["assessor"]["answer"]
        if answer is None:
            return Outcome.NO_ANSWER
        return Outcome.RIGHT if answer == row["truth"] else Outcome.WRONG
    if row["ruling"] is None:
        return Outcome.EXHAUSTED
    return Outcome.LOSSY if row["ruling"] == "lossy" else Outcome.VOID


def contradicts(row: Mapping[str, Any]) -> bool:
    """Whether the edit did the opposite of what was asked for, by the referee's word."""
    return (row["mode"], row["ruling"]) in (("benign", "error"), ("error", "benign"))


def trusted(row: Mapping[str, Any]) -> bool:
    """Whether the label is what was asked for, and the referee did not look at the edit."""
    return bool(row.get("ruling_reason") == UNCHECKED)


def disagree(row: Mapping[str, Any]) -> bool:
    """Whether a second referee said something else than the one who ruled."""
    return row["second_ruling"] is not None and row["second_ruling"] != row["ruling"]


def surprise(row: Mapping[str, Any]) -> float | None:
    """Bits: −log2 of the probability that the assessor gave to the truth; None where nobody knows it."""
    p = None if row["assessor"] is None else row["assessor"]["p_incorrect"]
    if p is None or row["truth"] is None:
        return None
    return -log2(max(p if row["truth"] == Label.INCORRECT else 1 - p, LEAST_PROBABILITY))
