"""Intervals: the summed form of each metric is the metric, seeds repeat, whole notes are drawn."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation import bootstrap
from medserl.evaluation.bootstrap import verdict_rows
from medserl.evaluation.metrics import classification_metrics
from medserl.game.labels import Label

C, W = Label.CORRECT, Label.INCORRECT
PAIRS = st.lists(st.tuples(st.sampled_from([C, W]), st.sampled_from([C, W, None])), min_size=1, max_size=30)


@given(PAIRS)
def test_summed_statistics_are_the_metrics(pairs: list[tuple[Label, Label | None]]) -> None:
    labels, answers = [a for a, _ in pairs], [b for _, b in pairs]
    sums = verdict_rows(labels, answers).sum(0, keepdims=True)
    expected = classification_metrics(labels, answers)
    for name in bootstrap.VERDICTS:
        value = float(bootstrap.verdict(name)(sums)[0])
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
    assert all(math.isnan(bound) for bound in bootstrap.interval(bootstrap.verdict("recall_incorrect")(sums)))
    assert bootstrap.verdict("balanced_accuracy")(sums).tolist() == bootstrap.verdict("recall_correct")(sums).tolist()


def test_one_cluster_tells_no_interval() -> None:
    sums = bootstrap.resampled_sums(verdict_rows([C, W], [C, C]), ["one", "one"], 0, 50)
    assert all(
        math.isnan(bound) for name in bootstrap.VERDICTS for bound in bootstrap.interval(bootstrap.verdict(name)(sums))
    )


def array_formulas(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The figures over all resamples at once, by arithmetic on arrays, as this project computed them before."""
    tp, fn, fp, tn, mute_w, mute_c = sums.T
    recalls = np.stack([tp / (tp + fn + mute_w), tn / (tn + fp + mute_c)])
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return {
        "accuracy": (tp + tn) / sums.sum(1),
        "balanced_accuracy": recalls.mean(0),
        "precision_incorrect": tp / (tp + fp),
        "mcc": (tp * tn - fp * fn) / np.sqrt(product),
    }


def test_intervals_are_those_of_before() -> None:
    generator = np.random.default_rng(3)
    labels = [C, W] * 60
    answers = [generator.choice([label, label, label, label.other, None]) for label in labels]
    sums = bootstrap.resampled_sums(verdict_rows(labels, answers), [i // 2 for i in range(120)], 5)
    for name, values in array_formulas(sums).items():
        assert bootstrap.interval(bootstrap.verdict(name)(sums)) == pytest.approx(bootstrap.interval(values), abs=1e-12)


def test_intervals_are_scipys() -> None:
    """Whole clusters, so scipy draws their numbers; two independent sets of draws differ by their own noise."""
    from scipy.stats import bootstrap as scipys

    generator = np.random.default_rng(4)
    rows = np.array([[float(generator.random() < 0.3 + 0.4 * (i // 4 % 2)), 1.0] for i in range(400)])
    clusters = np.arange(400) // 4
    own = np.zeros((100, 2))
    np.add.at(own, clusters, rows)

    def share(drawn: np.ndarray, axis: int) -> np.ndarray:
        summed = own[drawn].sum(axis=-2)
        return summed[..., 0] / summed[..., 1]

    theirs = scipys((np.arange(100),), share, method="percentile", n_resamples=4000, rng=generator).confidence_interval
    ours = bootstrap.interval(bootstrap.share(0, 1)(bootstrap.resampled_sums(rows, clusters.tolist(), 0, 4000)))
    assert ours == pytest.approx(tuple(theirs), abs=0.008)
