"""A round's metrics, put together from the game's own and verl's, and the optional dump of games."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medserl.files import open_private
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


class GameDump:
    """Writes every game of a run to ``RUN_DIR/games/round_N.jsonl``, readable by its owner only.

    Args:
        run_dir: The run directory.
        resumed_at: Last round that counts; the games of later ones, which an interrupted attempt played, are removed.
    """

    def __init__(self, run_dir: Path, resumed_at: int = 0) -> None:
        self.directory = run_dir / "games"
        self.directory.mkdir(exist_ok=True, mode=0o700)
        for path in self.directory.glob("round_*.jsonl"):
            if int(path.stem.removeprefix("round_")) > resumed_at:
                path.unlink()

    def write(self, number: int, games: Sequence[Game]) -> None:
        """Write the games of one round; an interrupted attempt at the same round is replaced."""
        path = self.directory / f"round_{number:06d}.jsonl"
        path.unlink(missing_ok=True)
        with open_private(path) as file:
            for game in games:
                file.write(json.dumps(_plain(game), ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "payload"}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
