"""What became of a run: its curves, and whether they have flattened. Pure; reads nothing, imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean
from typing import Any

Point = tuple[int, float]
"""Round and value."""

LEAST_POINTS = 6
"""Points that the last third needs at least: with fewer, no slope of a noisy curve means anything."""
LEVEL = 0.95
GREEDY, SAMPLED = "val/greedy/", "val/sampled/"
PLOTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Mean reward", ("mean_reward", "mean_reward/injector", "mean_reward/assessor", "labelled/mean_reward")),
    (
        "Share of edits that the change filter accepts",
        ("vcf_acceptance_rate", "vcf_acceptance_rate/benign", "vcf_acceptance_rate/error"),
    ),
    (
        "Assessor in the games (its opponent learns too)",
        ("assessor/balanced_accuracy", "labelled/balanced_accuracy", "injector/win_rate"),
    ),
    ("Held-out notes: balanced accuracy", (f"{GREEDY}balanced_accuracy", f"{SAMPLED}balanced_accuracy")),
    ("Held-out notes: Matthews correlation", (f"{GREEDY}mcc", f"{SAMPLED}mcc")),
    (
        "Held-out notes: recall of each class",
        tuple(f"{how}recall_{label}" for how in (GREEDY, SAMPLED) for label in ("correct", "incorrect")),
    ),
    ("KL to the reference (k1 estimate, as in the reward)", ("actor/reward_kl_penalty",)),
    ("Entropy of the policy", ("actor/entropy",)),
    ("Share of games in which the edit did the opposite of its mode", ("label_inversion_rate",)),
)
"""Title and metrics of each plot of the report."""
JUDGED: tuple[tuple[str, str], ...] = (
    ("reward", "mean_reward"),
    ("acceptance", "vcf_acceptance_rate"),
    ("accuracy in the games", "assessor/balanced_accuracy"),
    ("accuracy on held-out notes", f"{GREEDY}balanced_accuracy"),
)
"""Name in the sentence, metric."""


@dataclass(frozen=True, slots=True)
class Trend:
    """Whether a curve has flattened.

    ``state`` is ``too few rounds``, ``flattened``, ``rising`` or ``falling``; ``slope`` and ``interval`` are per
    round, over the rounds ``first`` to ``last``; None where there are too few.
    """

    state: str
    points: int
    first: int | None = None
    last: int | None = None
    mean: float | None = None
    slope: float | None = None
    interval: tuple[float, float] | None = None


def trend(points: Sequence[Point]) -> Trend:
    """Judge the last third of a curve.

    The rule: a straight line is fitted to the last third of the points (rounded up) by least squares; its slope has
    a 95 % interval from Student's t with n - 2 degrees of freedom. An interval that holds zero is called
    ``flattened``, one above it ``rising``, one below it ``falling``. Fewer than ``LEAST_POINTS`` in the last third are
    ``too few rounds``.

    What it means, and does not: ``flattened`` says that these rounds show no slope that differs from noise, not that
    there is none; how large a change they would have hidden is the interval times the rounds, which the sentence
    gives. The interval takes the rounds' deviations from the line as independent; where they are not (rounds share
    weights), it is too narrow, and a run is called rising or falling a little too often.

    Args:
        points: Rounds, ascending, with finite values.
    """
    count = math.ceil(len(points) / 3)
    if count < LEAST_POINTS:
        return Trend("too few rounds", len(points))
    part = points[-count:]
    x0, y0 = fmean(x for x, _ in part), fmean(y for _, y in part)
    spread = sum((x - x0) ** 2 for x, _ in part)
    slope = sum((x - x0) * (y - y0) for x, y in part) / spread
    left = sum((y - y0 - slope * (x - x0)) ** 2 for x, y in part)
    half = student_quantile(count - 2) * math.sqrt(left / (count - 2) / spread)
    low, high = slope - half, slope + half
    # A curve without any noise has an interval of no width: what is left of it is rounding.
    tiny = 1e-12 * max(1.0, abs(y0))
    state = "rising" if low > tiny else "falling" if high < -tiny else "flattened"
    return Trend(state, len(points), part[0][0], part[-1][0], y0, slope, (low, high))


def student_quantile(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t, to 0.3 % for ``freedom`` >= 4.

    Abramowitz & Stegun (1964), 26.7.5: an expansion about the normal quantile.
    """
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def curve(rows: Iterable[Mapping[str, Any]], metric: str) -> list[Point]:
    """A metric's finite values by round; of two of one round, the later."""
    found: dict[int, float] = {}
    for row in rows:
        value = row.get(metric)
        if value is not None and math.isfinite(value):
            found[int(row["round"])] = float(value)
    return sorted(found.items())


def sentence(name: str, metric: str, found: Trend) -> str:
    """One sentence for people, with the numbers that it rests on."""
    what = f"{name[0].upper()}{name[1:]} ({metric})"
    if found.slope is None or found.interval is None or found.first is None or found.last is None:
        needed = 3 * LEAST_POINTS - 2
        return f"{what}: too few rounds to say whether it has flattened ({found.points} values, {needed} are needed)."
    low, high = found.interval
    where = f"in rounds {found.first} to {found.last} (mean {found.mean:.3f})"
    numbers = f"slope {found.slope:+.5f} per round, 95 % interval {low:+.5f} to {high:+.5f}"
    if found.state != "flattened":
        return f"{what}: not flattened, still {found.state} {where}; {numbers}."
    hidden = max(abs(low), abs(high)) * (found.last - found.first)
    return (
        f"{what}: flattened, no slope can be told from noise {where}; {numbers}, so a change of up to {hidden:.3f} "
        "over these rounds is not ruled out."
    )


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rounds, curves and verdicts of a run, as plain values.

    Args:
        rows: The rows of metrics.jsonl.
    """
    curves = {metric: curve(rows, metric) for _, metrics in PLOTS for metric in metrics}
    verdicts = {}
    for name, metric in JUDGED:
        found = trend(curves[metric])
        verdicts[name] = {"metric": metric, "sentence": sentence(name, metric, found), **asdict(found)}
    trained = [int(row["round"]) for row in rows if not row.get("validation")]
    return {
        "rounds": max(trained, default=0),
        "rule": f"least squares over the last third, {LEVEL:.0%} interval of the slope against zero",
        "flattened": verdicts,
        "curves": {metric: points for metric, points in curves.items() if points},
    }
