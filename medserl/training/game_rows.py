"""What a round gives to the game log: the one place where the log meets the trainer. Neither torch nor verl."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.config.plugins import keeps_games
from medserl.config.settings import GameSettings
from medserl.evaluation.calibration import verdict_place
from medserl.game.labels import Label
from medserl.gamelog.kinds import Row
from medserl.gamelog.log import GameLog
from medserl.gamelog.parts import forget_after
from medserl.gamelog.rows import Turn, played
from medserl.training.rows import uid_of

if TYPE_CHECKING:
    from medserl.training.round_state import RoundState

TAIL = 48
"""So many of a reply's last tokens are looked at: a verdict in the strict form ends it."""


def open_log(settings: GameSettings, run_dir: Path, resumed_at: int) -> GameLog | None:
    """The log of a run that goes on after round ``resumed_at``; None where it keeps none. What there is of later
    rounds, which are played again, leaves it in any case."""
    forget_after(run_dir, resumed_at)
    if not keeps_games(settings):
        return None
    kept = settings.game_log
    return GameLog(run_dir, kept.redact, kept.keep_rounds, kept.max_megabytes)


def round_rows(state: RoundState, number: int) -> list[Row]:
    """The rows of a round's games, in the order of its notes.

    Args:
        state: What the trainer knows of the round when it is over.
        number: The round.
    """
    turns: dict[str, dict[int, Turn]] = {}
    for key, row in state.rows.items():
        trained = key in state.roles and not state.nothing_trains
        advantage = state.advantages.get(key) if trained else None
        turns.setdefault(uid_of(key), {})[row.index] = Turn(row.seconds, row.p_incorrect, trained, advantage)
    rows = []
    for uid, game in sorted(state.games.items()):
        task = state.tasks[uid]
        original = None if task.note is None else task.note.text
        known = None if task.labelled is None else task.labelled.error_type
        rows.append(played(game, number, task.place, turns.get(uid, {}), original, known))
    return rows


def said_incorrect(
    ids: Sequence[int], logprobs: Sequence[float] | None, tokenizer: Any
) -> tuple[float, int] | tuple[None, None]:
    """p(INCORRECT) by the probability of the verdict that a reply states: that of its word's first token, or one less
    it. So whatever neither word would have had counts for the other one, which is next to nothing where a model knows
    the form.

    Args:
        ids: Tokens of the reply.
        logprobs: Log-probability of each, under the distribution that it was drawn from; None where nobody computed
            them.
        tokenizer: Of the model.

    Returns:
        The probability and the place of that token; None where no verdict stands in the strict form at the reply's end,
        and without log-probabilities.
    """
    if not logprobs:
        return None, None
    begin = max(0, len(ids) - TAIL)
    place = verdict_place([tokenizer.decode([token]) for token in ids[begin:]])
    if place is None:
        return None, None
    at = begin + place.token
    said = min(1.0, exp(logprobs[at]))
    return (said if place.label is Label.INCORRECT else 1.0 - said), at
