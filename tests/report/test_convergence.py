"""Whether a curve has flattened: the rule does what its docstring says."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.report.convergence import LEAST_POINTS, PLOTS, curve, sentence, student_quantile, summarise, trend


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


def test_a_flat_curve_says_what_it_cannot_rule_out() -> None:
    found = trend(noisy(0.0, 60, 0.1, seed=3))
    assert found.state == "flattened" and found.interval is not None
    hidden = max(map(abs, found.interval)) * 19
    assert f"a change of up to {hidden:.3f} over these rounds" in sentence("reward", "mean_reward", found)


@pytest.mark.parametrize("count", [0, 1, 5, 3 * LEAST_POINTS - 3])
def test_few_rounds_are_not_judged(count: int) -> None:
    found = trend(noisy(1.0, count, 0.0))
    assert (found.state, found.slope, found.points) == ("too few rounds", None, count)
    assert "too few rounds" in sentence("reward", "mean_reward", found)
    assert trend(noisy(1.0, 3 * LEAST_POINTS - 2, 0.0)).state == "rising"


def test_noise_is_called_a_slope_in_about_one_of_twenty_curves() -> None:
    called = sum(trend(noisy(0.0, 45, 1.0, seed)).state != "flattened" for seed in range(1000))
    assert 30 <= called <= 70  # binomial, p = 0.05: 50 plus or minus three standard deviations


@pytest.mark.parametrize(("freedom", "wanted"), [(4, 2.7764), (8, 2.3060), (30, 2.0423), (1000, 1.9623)])
def test_quantiles_are_students(freedom: int, wanted: float) -> None:
    assert student_quantile(freedom) == pytest.approx(wanted, rel=3e-3)


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
    found = summarise([*rows, {"round": 99, "validation": True}])
    assert found["rounds"] == 20
    assert found["flattened"]["reward"]["state"] == "rising"
    assert found["flattened"]["accuracy on held-out notes"]["state"] == "flattened"
    assert found["flattened"]["acceptance"]["state"] == "too few rounds"
    assert set(found["curves"]) == {"mean_reward", "val/greedy/balanced_accuracy"}


def test_plotted_metrics_are_those_that_rounds_report() -> None:
    from medserl.game.metrics import answer_metrics, round_metrics

    known = {*round_metrics([]), "actor/reward_kl_penalty", "actor/entropy"}
    for how in ("greedy", "sampled"):
        known |= answer_metrics([], f"val/{how}/").keys()
    assert {metric for _, metrics in PLOTS for metric in metrics} <= known
