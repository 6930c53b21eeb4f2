"""A round's metrics, put together from the game's own and verl's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from medserl.game import Game, round_metrics


def with_game_metrics(metrics: dict[str, float], games: Sequence[Game], max_attempts: int) -> dict[str, float]:
    """verl's metrics and the game's; a name may stand in one of them only."""
    own = round_metrics(games, max_attempts)
    clash = own.keys() & metrics.keys()
    assert not clash, f"metric names of verl and of the game clash: {sorted(clash)}"
    return {**metrics, **own}


class RefereeFailed(RuntimeError):
    """The referee could not be asked in any game of a round: going on would train nothing."""


def referee_complaint(games: Sequence[Game], name: str | None) -> str | None:
    """A sentence where the referee could not be asked in some games of a round, which are void; None where in none.

    Raises:
        RefereeFailed: it could be asked in none of the games that came so far.
    """
    rulings = [game.ruling for game in games if game.ruling is not None]
    failures = [ruling for ruling in rulings if ruling.failed]
    if not failures:
        return None
    sentence = f"the referee {name} failed in {len(failures)} of {len(rulings)} games (first: {failures[0].detail})"
    if len(failures) == len(rulings):
        raise RefereeFailed(f"{sentence}; bring it back and start again: the run goes on from its last checkpoint")
    return sentence


def speed_metrics(metrics: dict[str, float], games: Sequence[Game]) -> dict[str, float]:
    """Tokens per second of the round and of its rollout, over all tokens that were generated."""
    generated = sum(t.reply.tokens or 0 for game in games for t in game.trajectories)
    return {
        "perf/generated_tokens": float(generated),
        "perf/tokens_per_second": _ratio(generated, metrics.get("timing_s/step")),
        "perf/rollout_tokens_per_second": _ratio(generated, metrics.get("timing_s/gen")),
    }


def _ratio(count: float, seconds: float | None) -> float:
    return count / seconds if seconds else math.nan
