"""What probability an assessor gives to its verdict, and whether such probabilities come true.

scipy and scikit-learn are imported where they are used: the engine needs only what stands before.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp, nan

from medserl.game.labels import Label
from medserl.game.metrics import mean, ratio

BINS = 10
_VERDICT = re.compile(r'final_answer:[ \t]*"(CORRECT|INCORRECT)"')
_DRESSED = re.compile(r"(?:answer|verdict)[\W_]{0,40}?((?:in)?correct)\b", re.IGNORECASE | re.ASCII)
_ALONE = re.compile(r"\b((?:in)?correct)\b", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class VerdictPlace:
    """Where in a reply's tokens the verdict's word begins."""

    token: int
    """Index of the token that holds the word's first letter."""
    before: str
    """What that token holds before the word, e.g. the quotation mark."""
    label: Label
    quoted: bool = True
    """Whether it is in the strict form, where a quotation mark ends the word."""


def verdict_place(pieces: Sequence[str]) -> VerdictPlace | None:
    """The last verdict in the strict form in a reply given as the texts of its tokens; None where there is none."""
    return _place(pieces, _VERDICT, quoted=True)


def dressed_place(pieces: Sequence[str], alone: bool) -> VerdictPlace | None:
    """The last verdict in any form, the strict one too; None where there is none, or more than signs between the key
    and it.

    Args:
        pieces: The texts of the reply's tokens.
        alone: Whether the verdict is the whole reply.
    """
    return verdict_place(pieces) or _place(pieces, _ALONE if alone else _DRESSED, quoted=False)


def _place(pieces: Sequence[str], pattern: re.Pattern[str], quoted: bool) -> VerdictPlace | None:
    matches = list(pattern.finditer("".join(pieces)))
    if not matches:
        return None
    start = matches[-1].start(1)
    offset = 0
    for index, piece in enumerate(pieces):
        if offset + len(piece) > start:
            return VerdictPlace(index, piece[: start - offset], Label(matches[-1].group(1).upper()), quoted)
        offset += len(piece)
    raise AssertionError("a match lies inside the joined pieces")


def probability_incorrect(alternatives: Mapping[str, float], before: str, quoted: bool = True) -> float | None:
    """p(INCORRECT) of the two verdicts at the place where the word begins.

    ``alternatives`` maps the text of a candidate token to its log-probability (natural logarithm; the best 20
    or so suffice), ``before`` and ``quoted`` are those of `VerdictPlace`: without quotes any case counts. Candidates
    that begin neither word are left out and the rest is normalised, so it is a probability given that a verdict is
    said. None where no candidate begins one.
    """
    mass = dict.fromkeys(Label, 0.0)
    for text, logprob in alternatives.items():
        if not text.startswith(before):
            continue
        rest = text[len(before) :] if quoted else text[len(before) :].upper()
        for label in Label:
            word = f'{label.value}"' if quoted else label.value
            if rest and (word.startswith(rest) or rest.startswith(word)):
                mass[label] += exp(logprob)
    total = sum(mass.values())
    return mass[Label.INCORRECT] / total if total > 0 else None


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The texts whose p(INCORRECT) lies in [low, high), the last bin with its upper end."""

    low: float
    high: float
    n: int
    mean_probability: float
    share_incorrect: float
    """How many of them do hold an error; NaN in an empty bin, like ``mean_probability``."""


def brier(labels: Sequence[Label], probabilities: Sequence[float]) -> float:
    """Brier (1950) score of p(INCORRECT): mean squared distance to 0 or 1; 0 is best, 0.25 is a constant ½."""
    from sklearn.metrics import brier_score_loss

    if not labels:
        return nan
    return float(brier_score_loss([label is Label.INCORRECT for label in labels], probabilities, pos_label=True))


def reliability(labels: Sequence[Label], probabilities: Sequence[float], bins: int = BINS) -> list[ReliabilityBin]:
    """Bins of equal width over p(INCORRECT).

    Not scikit-learn's ``calibration_curve``, which neither counts a bin nor keeps an empty one.
    """
    from scipy.stats import binned_statistic

    wrong = [float(label is Label.INCORRECT) for label in labels]
    edges = [index / bins for index in range(bins + 1)]
    if not wrong:
        return [ReliabilityBin(low, high, 0, nan, nan) for low, high in pairwise(edges)]
    means = binned_statistic(probabilities, [probabilities, wrong], "mean", edges).statistic
    counts = binned_statistic(probabilities, None, "count", edges).statistic
    return [
        ReliabilityBin(low, high, int(count), float(said), float(share))
        for (low, high), count, said, share in zip(pairwise(edges), counts, *means, strict=True)
    ]


def expected_calibration_error(table: Sequence[ReliabilityBin]) -> float:
    """Mean over the texts of |mean probability − share with an error| of their bin (Naeini et al. 2015).

    Our own: neither scipy nor scikit-learn has it.
    """
    return ratio(
        sum(row.n * abs(row.mean_probability - row.share_incorrect) for row in table if row.n),
        sum(row.n for row in table),
    )


def calibration_metrics(labels: Sequence[Label], probabilities: Sequence[float | None]) -> dict[str, object]:
    """``n`` texts with a probability, ``ece``, ``brier``, ``brier_of_base_rate`` (always saying the share of
    INCORRECT), ``mean_min_p`` (0: a policy that cannot move) and the reliability table ``bins``."""
    known = [(label, p) for label, p in zip(labels, probabilities, strict=True) if p is not None]
    wanted, given = [label for label, _ in known], [p for _, p in known]
    table = reliability(wanted, given)
    rate = mean(float(label is Label.INCORRECT) for label in wanted)
    return {
        "n": len(known),
        "ece": expected_calibration_error(table),
        "brier": brier(wanted, given),
        "brier_of_base_rate": rate * (1 - rate),
        "mean_min_p": mean(min(p, 1 - p) for p in given),
        "bins": [{name: getattr(row, name) for name in ReliabilityBin.__slots__} for row in table],
    }
