"""Paired comparison of two sets of predictions on the same texts; the bootstrap is beside it."""

from collections.abc import Sequence


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """(exact, mid-p) two-sided p-values of McNemar's test.

    ``only_first`` texts were right in the first set only, ``only_second`` in the second only. Exact: binomial
    with one half. Mid-p (Fagerland, Lydersen, Laake 2013): less conservative, the exact value minus the
    probability of the outcome itself. Both are 1 where the two never differ.
    """
    from scipy.stats import binom, binomtest

    total = only_first + only_second
    if total == 0:
        return 1.0, 1.0
    exact = float(binomtest(only_first, total).pvalue)
    point = float(binom.pmf(only_first, total, 0.5))
    # At equal counts the two tails share the outcome itself, which then counts once.
    return exact, 1 - point / 2 if only_first == only_second else exact - point


def discordant(first: Sequence[bool], second: Sequence[bool]) -> tuple[int, int]:
    """How often only the first is right, and how often only the second."""
    pairs = list(zip(first, second, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)
