"""Which rows train, and how they are dealt; without torch. With verl's own methods around them: test_trainer.py."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.config.settings import GameSettings
from medserl.game import Game, Label, Mode, Role
from medserl.game.play import AssessorTurn, Reply, Trajectory
from medserl.training.rows import (
    LEAST_RIGHT,
    Credit,
    Row,
    choose,
    deal,
    likelihood_credit,
    pairs,
    stratum,
    trained_roles,
)

STRATA = st.lists(st.tuples(st.sampled_from(["injector", "assessor", "gold", "padding"]), st.sampled_from(["", "x"])))
RIGHT, WRONG = ("replayed", "CORRECT"), ("replayed", "INCORRECT")


@given(STRATA, st.integers(0, 13), st.integers(1, 6), st.text(max_size=4))
def test_every_hand_has_its_share_of_everything(rows: list[tuple[str, str]], asked: int, hands: int, seed: str) -> None:
    rows = [WRONG, RIGHT] * asked + rows * hands
    rows += [("padding", "")] * (-len(rows) % hands)
    together = [(2 * i, 2 * i + 1) for i in range(asked)]
    dealt = deal(rows, hands, seed, together)
    assert dealt == deal(rows, hands, seed, together)
    at = {index: h for h, hand in enumerate(dealt) for index in hand}
    assert sum(at[a] == at[b] for a, b in together) >= asked // hands * hands
    assert sorted(index for hand in dealt for index in hand) == list(range(len(rows)))
    assert {len(hand) for hand in dealt} == {len(rows) // hands}
    for group in (lambda row: row, lambda row: row[0]):
        counts = Counter(map(group, rows))
        for hand in dealt:
            own = Counter(group(rows[index]) for index in hand)
            assert all(abs(own[key] - count / hands) < 1 for key, count in counts.items())


def test_rows_of_a_kind_are_dealt_by_the_seed() -> None:
    rows = [("gold", "")] * 12
    first = {frozenset(deal(rows, 2, str(seed))[0]) for seed in range(50)}
    assert len(first) > 40
    often = Counter(index for hand in first for index in hand)
    assert set(often) == set(range(12)) and min(often.values()) > 10


@pytest.mark.parametrize(("rows", "hands"), [(3, 2), (4, 0)])
def test_hands_are_of_one_size(rows: int, hands: int) -> None:
    with pytest.raises(ValueError, match=f"{rows} rows cannot be dealt into {hands} equal hands"):
        deal([("gold", "")] * rows, hands, "1")


def test_what_a_row_is_dealt_as() -> None:
    games = {
        "a": Game("a", Mode.ERROR, truth=Label.INCORRECT),
        "b": Game("b", Mode.BENIGN),
        "c": Game("c", None, truth=Label.CORRECT),
        "d": Game("d", None, truth=Label.CORRECT, replayed=True),
    }
    roles = {"a_0_0": "injector", "a_1_0": "assessor", "b_0_0": "injector", "c_0_0": "assessor", "d_0_0": "assessor"}
    assert [stratum(key, roles, games) for key in (*roles, "pad1_0_0")] == [
        ("injector", "INCORRECT"), ("assessor", "INCORRECT"), ("injector", ""), ("gold", "CORRECT"),
        ("replayed", "CORRECT"), ("padding", ""),
    ]  # fmt: skip


def test_a_text_that_is_asked_again_is_paired_with_its_note_as_it_is_right() -> None:
    def game(note: str, truth: Label | None, **more: Any) -> Game:
        return Game(note, None, truth=truth, **{"replayed": True, **more})

    wrong, right = Label.INCORRECT, Label.CORRECT
    games = {
        "a": game("1", right), "b": game("2", wrong), "c": game("1", wrong), "d": game("2", right),
        "e": game("1", wrong), "f": game("3", wrong), "g": game("1", right),
        "h": game("3", right, replayed=False), "i": Game("3", Mode.BENIGN, truth=right), "j": game("3", right),
    }  # fmt: skip
    keys = [f"{uid}_0_0" for uid in games]
    roles = dict.fromkeys(keys[:-1], "assessor")  # the last one does not train: it pads
    played = SimpleNamespace(roles=roles, rows={}, games=games)
    assert sorted(pairs([*keys, "pad0_0_0"], played)) == [(1, 3), (2, 0), (4, 6)]


def answered(answer: Label | None, reward: float = 1.0) -> Game:
    said = Trajectory(Role.ASSESSOR, [], Reply(""), reward, True, 0, True, {})
    return Game("a", Mode.ERROR, truth=Label.INCORRECT, assessor=AssessorTurn(Reply(""), answer), trajectories=(said,))


@given(st.floats(0.001, 0.999))
def test_a_verdict_climbs_the_likelihood_of_the_right_one_whichever_was_said(p: float) -> None:
    """On the odds' logarithm an update weighs advantage times slope, and that of log p is 1 - p."""
    row = Row(Role.ASSESSOR, True, p_incorrect=p, verdict_at=4)
    right = likelihood_credit(row, answered(Label.INCORRECT, 1.1))
    wrong = likelihood_credit(row, answered(Label.CORRECT, -0.9))
    assert right == Credit(1.1, 4, 1.0)
    assert wrong is not None and (wrong.reward, wrong.token) == (-0.9, 4)
    if p >= LEAST_RIGHT:
        assert wrong.advantage * -p == pytest.approx(1 - p)
    else:  # a single row does not weigh without bounds
        assert wrong.advantage == pytest.approx(-(1 - p) / LEAST_RIGHT)


def test_only_stated_verdicts_of_the_assessor_are_credited() -> None:
    row = Row(Role.ASSESSOR, True, p_incorrect=0.5, verdict_at=4)
    assert likelihood_credit(replace(row, role=Role.INJECTOR), answered(Label.CORRECT)) is None
    assert likelihood_credit(row, answered(None)) is None
    assert likelihood_credit(replace(row, p_incorrect=None), answered(Label.CORRECT)) is None


def test_roles_of_a_round() -> None:
    both = frozenset(Role)
    assert [trained_roles("both", n) for n in (1, 2)] == [both, both]
    assert [trained_roles("assessor", n) for n in (1, 2)] == [{Role.ASSESSOR}] * 2
    assert [trained_roles("alternate", n) for n in (1, 2, 3)] == [{Role.ASSESSOR}, {Role.INJECTOR}, {Role.ASSESSOR}]


@given(st.lists(st.tuples(st.sampled_from(Mode), st.sampled_from(Label) | st.none()), max_size=12), st.integers(1, 5))
def test_what_trains_is_balanced_and_takes_nothing_that_the_game_left_out(
    played: list[tuple[Mode, Label | None]], number: int
) -> None:
    games = {f"g{i:02d}": Game(f"n{i}", mode, truth=truth) for i, (mode, truth) in enumerate(played)}
    rows = {}
    for uid, game in games.items():
        rows[f"{uid}_0_0"] = Row(Role.INJECTOR, False)  # a rejected attempt
        rows[f"{uid}_1_0"] = Row(Role.INJECTOR, game.decisive)
        if game.decisive:
            rows[f"{uid}_2_0"] = Row(Role.ASSESSOR, True)
    chosen = choose(rows, games, GameSettings(), number)
    assert chosen == sorted(chosen) == choose(dict(reversed(rows.items())), games, GameSettings(), number)
    assert all(rows[key].trains for key in chosen)
    modes = Counter(games[key[:3]].mode for key in chosen if rows[key].role is Role.INJECTOR)
    assert modes[Mode.ERROR] == modes[Mode.BENIGN]
    labels = Counter(games[key[:3]].truth for key in chosen if rows[key].role is Role.ASSESSOR)
    assert len(labels) < 2 or labels[Label.CORRECT] == labels[Label.INCORRECT]
    loose = GameSettings(balance_modes=False, balance_labels=False)
    assert set(choose(rows, games, loose, number)) == {key for key, row in rows.items() if row.trains}
