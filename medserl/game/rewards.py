"""Rewards of one game. The default is a zero-sum task term, and role-local terms that are never part of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, ClassVar

from medserl.errors import ConfigError
from medserl.game.labels import Label, Mode
from medserl.game.registry import Registry, parameters

if TYPE_CHECKING:
    from medserl.game.play import Game


@dataclass(frozen=True, slots=True)
class GameScore:
    """Rewards of the two roles, split into the task term and the role's own terms; ValueError unless all are finite."""

    assessor_task: float
    injector_task: float
    assessor_local: float
    injector_local: float

    def __post_init__(self) -> None:
        for field in fields(self):
            if not isfinite(getattr(self, field.name)):
                raise ValueError(f"the reward {field.name} is {getattr(self, field.name)}, not a finite number")

    @property
    def assessor(self) -> float:
        return self.assessor_task + self.assessor_local

    @property
    def injector(self) -> float:
        return self.injector_task + self.injector_local


class RewardScheme(ABC):
    """Says what both roles are paid for a game.

    The game calls it, and asks nothing of it for a game that was not decided (void, lossy): there nothing trains. What
    it is shown holds everything that happened but the second referee's word, which never trains.
    """

    name: ClassVar[str]

    @abstractmethod
    def decided(self, game: "Game") -> GameScore:
        """Both rewards of a game whose edit was ruled on (``game.truth``) and assessed (``game.assessor``)."""

    @abstractmethod
    def labelled(self, game: "Game") -> GameScore:
        """The assessor's reward on a note with a gold label; no injector takes part."""

    def rejected(self, game: "Game", attempt: int) -> float | None:
        """The injector's reward for its attempt number ``attempt`` (from 1), which the filter rejected; None: that
        attempt does not train. ``game.exhausted`` tells whether any attempt was accepted."""
        return None


REWARDS: Registry[RewardScheme] = Registry("reward", RewardScheme)


def register_reward[S: RewardScheme](cls: type[S]) -> type[S]:
    """Class decorator: make a reward scheme known under its ``name``, for ``medserl.rewards.name``.

    A parameter of the class that has the name of a number of `RewardConfig` is set by ``medserl.rewards`` and must have
    that number's default; all others are its own options. Raises ValueError otherwise, and as `Registry.add` does.
    """
    numbers = {field.name: field.default for field in fields(RewardConfig)} if cls.__name__ != "RewardConfig" else {}
    for name, parameter in parameters(cls).items():
        if name in numbers and parameter.default not in (numbers[name], parameter.empty):
            raise ValueError(
                f"the reward {cls.__name__}: {name} is medserl.rewards.{name}, whose default is {numbers[name]}, "
                f"not {parameter.default}; take that default or another name"
            )
    return REWARDS.add(cls)


def reward_names() -> list[str]:
    """Names of the registered reward schemes, sorted."""
    return REWARDS.names()


def make_reward(name: str, **options: Any) -> RewardScheme:
    """Build the reward scheme ``name``; ConfigError for an unknown name or an option that it does not take."""
    return REWARDS.make(name, options)


@register_reward
@dataclass(frozen=True, slots=True)
class RewardConfig(RewardScheme):
    """``zero_sum``, the default, with every number of it. The injector's task term is the assessor's, negated."""

    name: ClassVar[str] = "zero_sum"

    assessor_right: float = 1.0
    """The assessor's reward for the right verdict on an edited note."""
    assessor_wrong: float = -1.0
    """The assessor's reward for the wrong verdict on an edited note."""
    format_bonus: float = 0.1
    """Added to a role's reward if its reply kept to the strict form and the game was decided."""
    assessor_unparseable: float = -1.0
    """The assessor's total reward for an answer that cannot be parsed."""
    injector_unparseable: float = 0.0
    """The injector's total reward if the assessor's answer cannot be parsed."""
    exhausted: float | None = -0.5
    """Reward of each attempt of a game with no accepted attempt; None: such attempts do not train."""
    retried: float | None = None
    """Reward of the rejected attempts before an accepted one; None: such attempts do not train."""
    contradiction: float | None = -1.0
    """Added to the injector's reward where the referee says that the edit is the opposite of its mode;
    None switches that off."""
    labelled_right: float = 1.0
    """The assessor's reward for the right verdict on a note with a gold label (no injector takes part)."""
    labelled_wrong: float = -1.0
    """The assessor's reward for the wrong verdict on a note with a gold label."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not isfinite(value):
                raise ConfigError(f"rewards.{field.name}: {value} is not a finite number")
        if self.assessor_right <= self.assessor_wrong:
            raise ConfigError("rewards.assessor_right must be greater than rewards.assessor_wrong")
        if self.labelled_right <= self.labelled_wrong:
            raise ConfigError("rewards.labelled_right must be greater than rewards.labelled_wrong")

    def decided(self, game: "Game") -> GameScore:
        assert game.mode is not None and game.truth is not None and game.assessor is not None
        strict = {"assessor_strict": game.assessor.strict, "injector_strict": game.attempts[-1].strict}
        return score_game(self, game.mode, game.truth, game.assessor.answer, **strict)

    def labelled(self, game: "Game") -> GameScore:
        assert game.truth is not None and game.assessor is not None
        return score_labelled(self, game.truth, game.assessor.answer, strict=game.assessor.strict)

    def rejected(self, game: "Game", attempt: int) -> float | None:
        return self.exhausted if game.exhausted else self.retried


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
