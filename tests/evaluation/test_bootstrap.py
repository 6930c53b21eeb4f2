"""Intervals: the summed form of each metric is the metric, seeds repeat, whole notes are drawn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation import bootstrap
from medserl.evaluation.metrics import classification_metrics
from medserl.evaluation.summary import verdict_rows
from medserl.game.labels import Label

C, W = Label.CORRECT, Label.INCORRECT
PAIRS = st.lists(st.tuples(st.sampled_from([C, W]), st.sampled_from([C, W, None])), min_size=1, max_size=30)


@given(PAIRS)
def test_summed_statistics_are_the_metrics(pairs: list[tuple[Label, Label | None]]) -> None:
    labels, answers = [a for a, _ in pairs], [b for _, b in pairs]
    sums = verdict_rows(labels, answers).sum(0, keepdims=True)
    expected = classification_metrics(labels, answers)
    for name, statistic in bootstrap.VERDICT_STATISTICS.items():
        value = float(statistic(sums)[0])
        assert math.isclose(value, expected[name], abs_tol=1e-12) or (math.isnan(value) and math.isnan(expected[name]))


def test_the_seed_decides() -> None:
    rows = np.random.default_rng(1).integers(0, 2, (50, 2)).astype(float)
    draws = [bootstrap.resampled_sums(rows, range(50), seed, 600) for seed in (7, 7, 8)]
    assert draws[0].shape == (600, 2)
    assert (draws[0] == draws[1]).all() and (draws[0] != draws[2]).any()


def test_the_interval_of_a_share_is_about_right() -> None:
    rows = np.array([[float(i < 60), 1.0] for i in range(100)])
    low, high = bootstrap.interval(bootstrap.share(0, 1)(bootstrap.resampled_sums(rows, range(100), 0)))
    assert low == pytest.approx(0.6 - 1.96 * 0.049, abs=0.015) and high == pytest.approx(0.6 + 1.96 * 0.049, abs=0.015)


def test_whole_clusters_are_drawn() -> None:
    rows = np.array([[1.0, 1.0], [0.0, 1.0]] * 30)  # a hit and a miss in every cluster: the share never moves
    values = bootstrap.share(0, 1)(bootstrap.resampled_sums(rows, [i // 2 for i in range(60)], 0))
    assert set(values.tolist()) == {0.5}
    alone = bootstrap.share(0, 1)(bootstrap.resampled_sums(rows, range(60), 0))
    assert alone.std() > 0.03


def test_what_no_resample_can_give_is_nan() -> None:
    rows = verdict_rows([C, C], [C, None])
    sums = bootstrap.resampled_sums(rows, [0, 1], 0, 50)
    assert all(math.isnan(bound) for bound in bootstrap.interval(bootstrap.recall_incorrect(sums)))
    assert bootstrap.balanced_accuracy(sums).tolist() == bootstrap.recall_correct(sums).tolist()
