"""Whether a curve has flattened: the rule does what its docstring says."""

import math
import random
from collections import Counter
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.report.convergence import LEAST_POINTS, MATTERS, PLOTS, curve, sentence, summarise, trend


def noisy(slope: float, rounds: int, noise: float, seed: int = 0) -> list[tuple[int, float]]:
    random.seed(seed)
    return [(i, slope * i + random.gauss(0, noise)) for i in range(1, rounds + 1)]


@pytest.mark.parametrize(("slope", "state"), [(0.01, "rising"), (-0.01, "falling")])
def test_a_clear_slope_has_not_flattened(slope: float, state: str) -> None:
    found = trend(noisy(slope, 60, 0.01))
    assert (found.state, found.first, found.last) == (state, 41, 60)
    assert found.interval is not None and found.slope is not None
    assert found.interval[0] < found.slope < found.interval[1]
    assert "not flattened" in sentence("reward", "mean_reward", found)


def test_only_the_last_third_counts() -> None:
    rising_then_flat = [(i, min(i, 20) / 20) for i in range(1, 61)]
    assert trend(rising_then_flat).state == "flattened"


@pytest.mark.parametrize(("noise", "state"), [(0.01, "flattened"), (0.1, "no trend can be told")])
def test_a_curve_without_a_slope_says_what_it_cannot_rule_out(noise: float, state: str) -> None:
    found = trend(noisy(0.0, 60, noise, seed=3))
    assert found.state == state and found.interval is not None
    assert state in sentence("reward", "mean_reward", found)
    hidden = max(map(abs, found.interval)) * 19
    assert f"a change of up to {hidden:.3f} over these rounds" in sentence("reward", "mean_reward", found)


@pytest.mark.parametrize("count", [0, 1, 5, 3 * LEAST_POINTS - 3])
def test_few_rounds_are_not_judged(count: int) -> None:
    found = trend(noisy(1.0, count, 0.0))
    assert (found.state, found.slope, found.points) == ("too few rounds", None, count)
    assert "too few rounds" in sentence("reward", "mean_reward", found)
    assert trend(noisy(1.0, 3 * LEAST_POINTS - 2, 0.0)).state == "rising"


def test_noise_is_called_a_slope_in_about_one_of_twenty_curves() -> None:
    states = Counter(trend(noisy(0.0, 45, 1.0, seed)).state for seed in range(1000))
    assert 30 <= states["rising"] + states["falling"] <= 70  # binomial, p = 0.05: 50 ± three standard deviations
    assert states["flattened"] == 0, "a change of five points is far below such noise"


def test_rising_curves_of_a_default_run_are_not_called_flat() -> None:
    random.seed(1)
    runs = ([(i, 0.5 + 0.005 * i + random.gauss(0, 0.05)) for i in range(1, 31)] for _ in range(500))
    states = Counter(trend(run).state for run in runs)
    assert states["flattened"] <= 25 and states["no trend can be told"] > 400


@pytest.mark.parametrize("slope", [0.003, 0.01, -0.01])
@pytest.mark.parametrize("noise", [0.02, 0.05, 0.2])
def test_what_changes_by_more_than_matters_is_seldom_called_flat(slope: float, noise: float) -> None:
    """The bound of a 95 % interval: a true change of MATTERS and more is excluded in one of twenty at most."""
    rounds = 60 if abs(slope) < 0.005 else 30
    flat = sum(trend(noisy(slope, rounds, noise, seed)).state == "flattened" for seed in range(300))
    assert flat <= 15 + 3 * 4


@given(st.floats(0.001, 10.0), st.integers(0, 20))
def test_the_change_that_matters_scales_with_the_values(scale: float, seed: int) -> None:
    points = noisy(0.0, 60, 0.02, seed)
    assert trend([(x, scale * y) for x, y in points], scale * MATTERS).state == trend(points).state


def by_hand(points: list[tuple[int, float]], quantile: float) -> tuple[float, float, float]:
    """(slope, low, high) as this project computed them before it took scipy's."""
    x0, y0 = fmean(x for x, _ in points), fmean(y for _, y in points)
    spread = sum((x - x0) ** 2 for x, _ in points)
    slope = sum((x - x0) * (y - y0) for x, y in points) / spread
    left = sum((y - y0 - slope * (x - x0)) ** 2 for x, y in points)
    half = quantile * math.sqrt(left / (len(points) - 2) / spread)
    return slope, slope - half, slope + half


# Student's 95 % quantiles from a printed table.
@pytest.mark.parametrize(("rounds", "quantile"), [(18, 2.7764), (30, 2.3060), (96, 2.0423)])
def test_slope_and_interval_are_those_of_before(rounds: int, quantile: float) -> None:
    points = noisy(0.01, rounds, 0.05, seed=rounds)
    found = trend(points)
    assert found.interval is not None
    wanted = by_hand(points[-math.ceil(rounds / 3) :], quantile)
    assert (found.slope, *found.interval) == pytest.approx(wanted, rel=1e-4, abs=1e-6)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=18, max_size=60),
    st.floats(-1e3, 1e3),
)
def test_adding_a_constant_moves_no_slope(values: list[float], constant: float) -> None:
    one = trend(list(enumerate(values)))
    other = trend([(i, value + constant) for i, value in enumerate(values)])
    assert one.slope is not None and other.slope is not None
    size = max(map(abs, values)) + abs(constant) + 1
    assert other.slope == pytest.approx(one.slope, abs=1e-9 * size)


def test_a_curve_has_finite_values_and_the_later_of_a_round() -> None:
    rows = [
        {"round": 0, "validation": True, "a": 0.5},
        {"round": 1, "a": math.nan},
        {"round": 2, "b": 1.0},
        {"round": 3, "a": 0.7},
        {"round": 3, "validation": True, "a": 0.8},
    ]
    assert curve(rows, "a") == [(0, 0.5), (3, 0.8)]


def test_a_summary_names_every_verdict_and_leaves_out_what_was_not_measured() -> None:
    rows = [{"round": i, "mean_reward": 0.1 * i, "val/greedy/balanced_accuracy": 0.6} for i in range(1, 21)]
    found = summarise([*rows, {"round": 99, "validation": True}], "val/greedy/balanced_accuracy")
    assert found["rounds"] == 20
    assert found["flattened"]["reward"]["state"] == "rising"
    assert found["flattened"]["held-out notes"]["state"] == "flattened"
    assert found["flattened"]["acceptance"]["state"] == "too few rounds"
    assert set(found["curves"]) == {"mean_reward", "val/greedy/balanced_accuracy"}


def test_plotted_metrics_are_those_that_rounds_report() -> None:
    from medserl.game.metrics import answer_metrics, round_metrics

    known = {*round_metrics([]), "actor/reward_kl_penalty", "actor/entropy"}
    for how in ("greedy", "sampled"):
        known |= answer_metrics([], f"val/{how}/").keys() | {f"val/{how}/auc"}
    assert {metric for plot in PLOTS for metric in plot.metrics} <= known
