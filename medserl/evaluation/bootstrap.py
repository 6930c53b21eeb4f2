"""Percentile bootstrap of metrics that are functions of summed counts. Needs numpy.

A text is a row of counts (a column per cell); a resample draws whole clusters (the versions of one note belong
together) with replacement and sums their rows. Efron and Tibshirani (1993), chapters 6 and 13. Not scipy's
`scipy.stats.bootstrap`, which draws afresh for each statistic: here all of them, and both sides of a comparison, are
functions of the same draws. Tests hold the intervals to scipy's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple

import numpy as np
from numpy.typing import NDArray

from medserl.game.labels import Label
from medserl.game.metrics import Confusion, confusion, ratio

RESAMPLES = 2000
_CHUNK = 250  # resamples at a time: bounds the memory at chunk × clusters
Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Summed counts, shape [resamples, columns] → values, shape [resamples]."""


def resampled_sums(rows: Array, clusters: Sequence[Hashable], seed: int, resamples: int = RESAMPLES) -> Array:
    """Column sums of ``resamples`` bootstrap samples, shape [resamples, columns].

    ``rows`` has shape [texts, columns], ``clusters`` one key per text. NaN where there are fewer than two clusters:
    what varies between clusters cannot be told from one.
    """
    keys = {key: index for index, key in enumerate(dict.fromkeys(clusters))}
    if len(keys) < 2:
        return np.full((resamples, rows.shape[1]), np.nan)
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


VERDICT_COLUMNS = 6
"""Columns of a verdict's row: the fields of `medserl.game.metrics.Confusion`, in their order."""
VERDICTS = (
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "recall_correct",
    "recall_incorrect",
    "precision_correct",
    "precision_incorrect",
    "accuracy_parsed",
    "balanced_accuracy_parsed",
)


def verdict_rows(labels: Sequence[Label], answers: Sequence[Label | None]) -> Array:
    """One row per text, whose sum is the table of them all, shape [texts, 6]."""
    tables = [confusion([pair]) for pair in zip(labels, answers, strict=True)]
    return np.array([astuple(table) for table in tables], dtype=float).reshape(-1, VERDICT_COLUMNS)


def verdict(name: str) -> Statistic:
    """One of `VERDICTS` over summed verdict rows, by the formulas that give the values themselves."""
    name, over_parsed, _ = name.partition("_parsed")

    def statistic(sums: Array) -> Array:
        tables = [Confusion(*row[:VERDICT_COLUMNS]) for row in sums.tolist()]
        return np.array([getattr(table.parsed if over_parsed else table, name) for table in tables], dtype=float)

    return statistic


def share(hits: int, total: int) -> Statistic:
    """Σ column ``hits`` / Σ column ``total``."""

    def statistic(sums: Array) -> Array:
        return np.array([ratio(row[hits], row[total]) for row in sums.tolist()], dtype=float)

    return statistic
