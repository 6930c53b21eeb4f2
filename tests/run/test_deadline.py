"""A run stops in time: what it forecasts, when it gives up, what it says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.run.deadline import SLACK, VARIABLE, Deadline, read_deadline

NOW = 1.7e9
seconds = st.floats(0.01, 1e5)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def play(deadline: Deadline, clock: Clock, rounds: list[float], validation: float, every: int, save: float) -> int:
    """Rounds that a run plays that stops when the deadline says so; the clock stands at its end."""
    done = 0
    for took in rounds:
        validates = (done + 1) % every == 0
        if deadline.why_stop(validates):
            break
        clock.now += took
        deadline.measured("round", took)
        if validates:
            clock.now += validation
            deadline.measured("validation", validation)
        done += 1
    if done:
        clock.now += save
    return done


def steady(first: float, factors: list[float]) -> list[float]:
    """Durations none of which is more than SLACK times the longest before it."""
    durations = [first]
    for factor in factors:
        durations.append(max(durations) * factor)
    return durations


@given(
    left=seconds,
    set_up=seconds,
    first=st.floats(0.01, SLACK),
    factors=st.lists(st.floats(0.1, SLACK), max_size=30),
    save=st.floats(0.01, SLACK),
    margin=st.floats(0, 100),
)
def test_a_run_whose_rounds_lengthen_slowly_is_over_in_time(
    left: float, set_up: float, first: float, factors: list[float], save: float, margin: float
) -> None:
    """Also when nothing was measured yet, as long as neither round nor checkpoint takes longer than the set-up did."""
    clock = Clock()
    deadline = Deadline(NOW + left, margin, clock)
    deadline.set_up_took(set_up)
    done = play(deadline, clock, steady(first * set_up, factors), set_up * first, 3, save * set_up)
    assert done == 0 or clock.now <= NOW + left - margin + 1e-3


@given(left=seconds, more=seconds, rounds=st.lists(seconds, max_size=30), set_up=seconds, save=seconds)
def test_a_later_deadline_never_plays_fewer_rounds(
    left: float, more: float, rounds: list[float], set_up: float, save: float
) -> None:
    done = []
    for at in (left, left + more):
        clock = Clock()
        deadline = Deadline(NOW + at, 5.0, clock)
        deadline.set_up_took(set_up)
        done.append(play(deadline, clock, rounds, 1.0, 2, save))
    assert done[0] <= done[1]


@given(rounds=st.lists(seconds, max_size=30), set_up=seconds)
def test_without_a_deadline_a_run_plays_all(rounds: list[float], set_up: float) -> None:
    clock = Clock()
    deadline = Deadline(None, 5.0, clock)
    deadline.set_up_took(set_up)
    assert play(deadline, clock, rounds, 1.0, 2, 1.0) == len(rounds)


@given(took=st.lists(seconds, min_size=1, max_size=10), save=seconds, spare=st.floats(1.0, 1e4))
def test_time_that_suffices_is_used(took: list[float], save: float, spare: float) -> None:
    deadline = Deadline(NOW + SLACK * (max(took) + save) + 30.0 + spare, 30.0, Clock())
    deadline.set_up_took(1e9)  # does not count any more
    deadline.remember([{"timing_s/step": value} for value in took], save)
    assert deadline.why_stop(validates=False) is None
    assert deadline.needed(validates=True) > deadline.needed(validates=False)


def test_when_training_becomes_ready_too_late_no_round_begins() -> None:
    clock = Clock()
    deadline = Deadline(NOW + 400, 30.0, clock)
    clock.now += 300  # the set-up
    deadline.set_up_took(300)
    assert deadline.why_stop(False) == "100 s are left and one more round with its checkpoint may need 750 s"


def test_old_rounds_are_forgotten_and_unknown_times_ignored() -> None:
    deadline = Deadline(NOW, 0.0, Clock())
    deadline.remember([{"timing_s/step": 500.0}, {"validation": True}] + [{"timing_s/step": 10.0}] * 10, None)
    deadline.measured("round", math.nan)
    assert deadline.forecast("round") == pytest.approx(SLACK * 10.0)


def test_no_variable_is_no_deadline() -> None:
    assert read_deadline({}, NOW) is None
    assert read_deadline({VARIABLE: " "}, NOW) is None
    assert read_deadline({VARIABLE: "1700000500"}, NOW) == 1700000500.0
    assert Deadline(None, 1.0, Clock()).left == math.inf


@pytest.mark.parametrize("text", ["tomorrow", "3600", "-1", "nan", "inf", "2026-01-01T10:00"])
def test_what_is_no_time_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^MEDSERL_DEADLINE: '.*' is not a time in Unix seconds; give one such as"):
        read_deadline({VARIABLE: text}, NOW)


def test_a_time_that_has_passed_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^MEDSERL_DEADLINE: 1699999990 was 10 s ago"):
        read_deadline({VARIABLE: "1699999990"}, NOW)
