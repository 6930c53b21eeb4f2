"""Rewards of one game: a zero-sum task term, and role-local terms that are never part of the zero sum."""

from dataclasses import dataclass

from medserl.errors import ConfigError
from medserl.game.labels import Label, Mode


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """Every number of the reward. The injector's task term is the assessor's, negated."""

    assessor_right: float = 1.0
    assessor_wrong: float = -1.0
    format_bonus: float = 0.1
    """Added to each role's reward where its own reply kept the strict form and the game was decided."""
    assessor_unparseable: float = -1.0
    """The assessor's whole reward for an answer that cannot be parsed."""
    injector_unparseable: float = 0.0
    """The injector's whole reward where the assessor's answer could not be parsed."""
    exhausted: float | None = -0.5
    """Reward of each attempt of a game with no accepted attempt; None: such attempts do not train."""
    retried: float | None = None
    """Reward of the rejected attempts before an accepted one; None: such attempts do not train."""
    contradiction: float | None = -1.0
    """Added to the injector's reward where the referee says that the edit is the opposite of its mode;
    None switches that off."""
    labelled_right: float = 1.0
    labelled_wrong: float = -1.0
    """The assessor on a note with a gold label (no injector takes part)."""

    def __post_init__(self) -> None:
        if self.assessor_right <= self.assessor_wrong:
            raise ConfigError("rewards.assessor_right must be greater than rewards.assessor_wrong")
        if self.labelled_right <= self.labelled_wrong:
            raise ConfigError("rewards.labelled_right must be greater than rewards.labelled_wrong")


@dataclass(frozen=True, slots=True)
class GameScore:
    """Rewards of the two roles, split into the zero-sum task term and the role's own terms."""

    assessor_task: float
    injector_task: float
    assessor_local: float
    injector_local: float

    @property
    def assessor(self) -> float:
        return self.assessor_task + self.assessor_local

    @property
    def injector(self) -> float:
        return self.injector_task + self.injector_local


def score_game(
    config: RewardConfig,
    mode: Mode,
    truth: Label,
    answer: Label | None,
    *,
    assessor_strict: bool = True,
    injector_strict: bool = True,
) -> GameScore:
    """Score a game whose edit was accepted and whose label the referee decided.

    ``truth`` is the referee's label, ``answer`` the assessor's parsed answer or None; ``…_strict`` says who kept the
    strict form. The task terms add up to exactly zero.
    """
    penalty = 0.0
    if config.contradiction is not None and truth is not mode.label:
        penalty = config.contradiction
    if answer is None:
        return GameScore(0.0, 0.0, config.assessor_unparseable, config.injector_unparseable + penalty)
    task = config.assessor_right if answer is truth else config.assessor_wrong
    bonus = [config.format_bonus if strict else 0.0 for strict in (assessor_strict, injector_strict)]
    return GameScore(task, -task, bonus[0], bonus[1] + penalty)


def score_labelled(config: RewardConfig, truth: Label, answer: Label | None, *, strict: bool = True) -> GameScore:
    """Score the assessor's answer on a note with a gold label."""
    if answer is None:
        return GameScore(0.0, 0.0, config.assessor_unparseable, 0.0)
    task = config.labelled_right if answer is truth else config.labelled_wrong
    return GameScore(task, 0.0, config.format_bonus if strict else 0.0, 0.0)
