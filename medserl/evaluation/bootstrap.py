"""Percentile bootstrap of metrics that are functions of summed counts. Needs numpy.

A text is a row of counts (a column per cell); a resample draws whole clusters (the versions of one note belong
together) with replacement and sums their rows. Efron and Tibshirani (1993), chapters 6 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
_CHUNK = 250  # resamples at a time: bounds the memory at chunk × clusters
Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Summed counts, shape [resamples, columns] → values, shape [resamples]."""


def resampled_sums(rows: Array, clusters: Sequence[Hashable], seed: int, resamples: int = RESAMPLES) -> Array:
    """Column sums of ``resamples`` bootstrap samples, shape [resamples, columns].

    ``rows`` has shape [texts, columns], ``clusters`` one key per text.
    """
    keys = {key: index for index, key in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((len(keys), rows.shape[1]))
    np.add.at(sums, [keys[key] for key in clusters], rows)
    generator = np.random.default_rng(seed)
    shares = np.full(len(keys), 1 / len(keys))
    parts = []
    for start in range(0, resamples, _CHUNK):
        counts = generator.multinomial(len(keys), shares, size=min(_CHUNK, resamples - start))
        parts.append(counts @ sums)
    return np.concatenate(parts)


def interval(values: Array, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval; resamples that cannot give the value (NaN) are left out; NaN if none can."""
    known = values[~np.isnan(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


# Columns of a verdict's row: tp, fn, fp, tn (positive: INCORRECT), given INCORRECT, given CORRECT.
VERDICT_COLUMNS = 6


def _divide(part: Array, whole: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def accuracy(sums: Array) -> Array:
    return _divide(sums[:, 0] + sums[:, 3], sums[:, :4].sum(1))


def recall_incorrect(sums: Array) -> Array:
    return _divide(sums[:, 0], sums[:, 0] + sums[:, 1])


def recall_correct(sums: Array) -> Array:
    return _divide(sums[:, 3], sums[:, 2] + sums[:, 3])


def precision_incorrect(sums: Array) -> Array:
    return _divide(sums[:, 0], sums[:, 4])


def precision_correct(sums: Array) -> Array:
    return _divide(sums[:, 3], sums[:, 5])


def balanced_accuracy(sums: Array) -> Array:
    """Mean recall of the classes that occur in the resample."""
    both = np.stack([recall_incorrect(sums), recall_correct(sums)])
    present = ~np.isnan(both)
    return _divide(np.where(present, both, 0).sum(0), present.sum(0))


def mcc(sums: Array) -> Array:
    tp, fn, fp, tn = sums[:, :4].T
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return np.where(product > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(product, 1)), 0.0)


VERDICT_STATISTICS: dict[str, Statistic] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "mcc": mcc,
    "recall_correct": recall_correct,
    "recall_incorrect": recall_incorrect,
    "precision_correct": precision_correct,
    "precision_incorrect": precision_incorrect,
}
"""The names of `medserl.evaluation.metrics.classification_metrics`, over summed verdict rows."""


def share(hits: int, total: int) -> Statistic:
    """Σ column ``hits`` / Σ column ``total``."""
    return lambda sums: _divide(sums[:, hits], sums[:, total])
