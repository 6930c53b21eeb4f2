"""Which rows of a round train, and which mini-batch each of them goes into. Pure; neither torch nor verl.

A row is one trajectory of a game under verl's key ``{uid}_{session}_{index}``, whose uid is the game's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from medserl.config.settings import LIKELIHOOD, AdvantageSettings, GameSettings
from medserl.game import Game, Label, Role, balance_labels, balance_modes

GOLD, REPLAYED, PADDING = "gold", "replayed", "padding"
LEAST_RIGHT = 0.1
"""Probability of the right verdict below which a wrong one weighs no more: single rows would be too heavy."""


@dataclass(frozen=True)
class Row:
    """What a trajectory says of itself."""

    role: Role
    trains: bool
    """Whether the rules of the game let it train (a rejected attempt before an accepted one does not)."""
    index: int = 0
    """Its place among its game's trajectories."""
    seconds: float | None = None
    """How long its generation took."""
    p_incorrect: float | None = None
    """An assessor's p(INCORRECT), where its reply tells."""
    verdict_at: int | None = None
    """The token of its response that ``p_incorrect`` is of."""


def uid_of(key: str) -> str:
    """The game of a row."""
    return key.split("_")[0]


def trained_roles(train_roles: str, number: int) -> frozenset[Role]:
    """Roles that train in round ``number`` by ``medserl.train_roles``."""
    match train_roles:
        case "both":
            return frozenset(Role)
        case "assessor":
            return frozenset({Role.ASSESSOR})
        case _:
            return frozenset({Role.ASSESSOR if number % 2 else Role.INJECTOR})


def choose(rows: Mapping[str, Row], games: Mapping[str, Game], settings: GameSettings, number: int) -> list[str]:
    """Keys of the rows that train in round ``number``, in an order that does not depend on when games ended.

    Args:
        rows: All rows of the round, by key.
        games: All games of the round, by uid.
        settings: ``train_roles``, ``balance_modes``, ``balance_labels`` and ``seed`` are looked at.
        number: The round, from 1.
    """
    uids = sorted(games)
    played = [games[uid] for uid in uids]
    seed = f"{settings.seed}/{number}"
    dropped = balance_modes(played, seed) if settings.balance_modes else set()
    unassessed = balance_labels(played, dropped, seed) if settings.balance_labels else set()
    left_out = {(uids[i], role) for i in dropped for role in Role}
    left_out |= {(uids[i], Role.ASSESSOR) for i in unassessed}
    roles = trained_roles(settings.train_roles, number)
    return [
        key
        for key in sorted(rows)
        if rows[key].trains and rows[key].role in roles and (uid_of(key), rows[key].role) not in left_out
    ]


def stratum(key: str, roles: Mapping[str, str], games: Mapping[str, Game]) -> tuple[str, str]:
    """What every mini-batch should have its share of: kind of a row (injector, assessor, gold, replayed,
    padding) and label.

    Args:
        key: The row.
        roles: Role by key of the rows that train; any other row is padding.
        games: Games by uid.
    """
    if key not in roles:
        return PADDING, ""
    game = games[uid_of(key)]
    kind = roles[key] if game.mode is not None else REPLAYED if game.replayed else GOLD
    return kind, "" if game.truth is None else game.truth.value


class Played(Protocol):
    """A round as its trainer knows it."""

    @property
    def roles(self) -> Mapping[str, str]: ...
    @property
    def rows(self) -> Mapping[str, Row]: ...
    @property
    def games(self) -> Mapping[str, Game]: ...


@dataclass(frozen=True)
class Credit:
    """What a stated verdict is credited with instead of its trajectory's reward."""

    reward: float
    """Of the trajectory, to be taken out."""
    token: int
    """Place of the verdict's token in the response."""
    advantage: float
    """Of that token."""


def likelihood_credit(row: Row, game: Game) -> Credit | None:
    """The credit of an assessor's row; None where it states no verdict, and for the injector.

    A question of two answers needs no further samples: the probability p with which one was said tells what many would
    have brought. Of REINFORCE whose rewards are divided by the share of right answers, the expectation over the
    answers is the gradient of log p(right). With 1 for a right verdict and -p / (1 - p) for a wrong one a single
    answer's update is that gradient, whichever was said, where the two verdicts share all probability.
    """
    answer = None if game.assessor is None else game.assessor.answer
    if row.role is not Role.ASSESSOR or answer is None or row.p_incorrect is None or row.verdict_at is None:
        return None
    p = row.p_incorrect if answer is Label.INCORRECT else 1 - row.p_incorrect
    advantage = 1.0 if answer is game.truth else -p / max(1 - p, LEAST_RIGHT)
    return Credit(game.trajectories[row.index].reward, row.verdict_at, advantage)


def verdict_credits(keys: Sequence[str], played: Played, rule: AdvantageSettings) -> dict[int, Credit]:
    """By place in ``keys``, the `likelihood_credit` of the rows that train; none where ``rule`` does not ask for it."""
    if rule.verdict_credit != LIKELIHOOD:
        return {}
    given = {
        i: likelihood_credit(played.rows[key], played.games[uid_of(key)])
        for i, key in enumerate(keys)
        if key in played.roles
    }
    return {i: credit for i, credit in given.items() if credit is not None}


def pairs(keys: Sequence[str], played: Played) -> list[tuple[int, int]]:
    """Places in ``keys`` of rows that are asked again, of one note each: where it is wrong, and where it is right."""
    sides: dict[str, dict[Label, list[int]]] = {}
    for i, key in enumerate(keys):
        game = played.games.get(uid_of(key)) if key in played.roles else None
        if game is not None and game.replayed and game.truth is not None:
            sides.setdefault(game.note_id, {}).setdefault(game.truth, []).append(i)
    found = (zip(side.get(Label.INCORRECT, ()), side.get(Label.CORRECT, ()), strict=False) for side in sides.values())
    return [pair for of_a_note in found for pair in of_a_note]


def deal(
    strata: Sequence[tuple[str, str]], hands: int, seed: str, together: Sequence[tuple[int, int]] = ()
) -> list[list[int]]:
    """Deal rows into ``hands`` mini-batches of equal size, each with its share of every kind and of each of its labels.

    Rows are shuffled by ``seed``, sorted by stratum and dealt like cards, so that two mini-batches differ by one row at
    most in any kind, and in any label of a kind. Rows of one stratum are as likely in one mini-batch as in another.

    Args:
        strata: Of each row.
        hands: How many mini-batches.
        seed: The same seed gives the same mini-batches.
        together: Pairs of rows that belong into one mini-batch: their gradients differ by what tells the two apart. As
            many of them as divide by ``hands`` stay together, the rows of the others are dealt one by one. All first
            rows are of one stratum, and all second ones.

    Returns:
        Indices into ``strata``, one list a mini-batch.

    Raises:
        ValueError: the rows do not divide by ``hands``.
    """
    if hands < 1 or len(strata) % hands:
        raise ValueError(f"{len(strata)} rows cannot be dealt into {hands} equal hands")
    rng = Random(f"deal:{seed}")
    whole = rng.sample(together, len(together) // hands * hands)
    kept = {row for pair in whole for row in pair}
    order = [i for i in range(len(strata)) if i not in kept]
    rng.shuffle(order)
    order.sort(key=lambda index: strata[index])
    return [[*(row for pair in whole[hand::hands] for row in pair), *order[hand::hands]] for hand in range(hands)]
