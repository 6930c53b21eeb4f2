"""What became of a run: its curves, and whether they have flattened. Reads nothing."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, NamedTuple

Point = tuple[int, float]
"""Round and value."""

LEAST_POINTS = 6
"""Points that the last third needs at least: with fewer, no slope of a noisy curve means anything."""
LEVEL = 0.95
MATTERS = 0.05
"""The least change over the judged rounds that matters: five points of a share."""
GREEDY, SAMPLED = "val/greedy/", "val/sampled/"


class Plot(NamedTuple):
    """One plot of the report."""

    title: str
    metrics: tuple[str, ...]
    unit: str
    """Name of the vertical axis."""
    chance: float | None = None
    """What answers at random get, where that is a number."""
    remark: str = ""
    """What a reader should know of it."""


PLOTS: tuple[Plot, ...] = (
    Plot(
        "Mean reward",
        ("mean_reward", "mean_reward/injector", "mean_reward/assessor", "labelled/mean_reward"),
        "reward",
        remark="The game is zero-sum: what one role wins, the other loses. The curves of injector and assessor mirror "
        "each other, and their mean shows the bonus for the format, not whether the model learns.",
    ),
    Plot(
        "Share of edits that the change filter accepts",
        ("vcf_acceptance_rate", "vcf_acceptance_rate/benign", "vcf_acceptance_rate/error"),
        "share of attempts",
    ),
    Plot(
        "Assessor in the games (its opponent learns too)",
        ("assessor/balanced_accuracy", "labelled/balanced_accuracy", "injector/win_rate"),
        "balanced accuracy, share of wins",
        0.5,
        remark="An assessor whose accuracy in the games stands still may learn all the same: the edits get harder.",
    ),
    Plot(
        "Held-out notes: balanced accuracy",
        (f"{GREEDY}balanced_accuracy", f"{SAMPLED}balanced_accuracy"),
        "balanced accuracy",
        0.5,
    ),
    Plot("Held-out notes: AUC, which needs no threshold", (f"{GREEDY}auc", f"{SAMPLED}auc"), "AUC", 0.5),
    Plot("Held-out notes: Matthews correlation", (f"{GREEDY}mcc", f"{SAMPLED}mcc"), "MCC", 0.0),
    Plot(
        "Held-out notes: recall of each class",
        tuple(f"{how}recall_{label}" for how in (GREEDY, SAMPLED) for label in ("correct", "incorrect")),
        "recall",
    ),
    Plot("KL to the reference (k1 estimate, as in the reward)", ("actor/reward_kl_penalty",), "KL per token, nats"),
    Plot("Entropy of the policy", ("actor/entropy",), "entropy per token, nats"),
    Plot("Share of games in which the edit did the opposite of its mode", ("label_inversion_rate",), "share of games"),
)
JUDGED: tuple[tuple[str, str], ...] = (
    ("reward", "mean_reward"),
    ("acceptance", "vcf_acceptance_rate"),
    ("accuracy in the games", "assessor/balanced_accuracy"),
)
"""Name in the sentence, metric; the held-out metric that decides which round is the best comes last."""
TOO_FEW, FLAT, UNKNOWN, RISING, FALLING = "too few rounds", "flattened", "no trend can be told", "rising", "falling"


@dataclass(frozen=True, slots=True)
class Trend:
    """Whether a curve has flattened.

    ``state`` is one of the five above; ``slope`` and ``interval`` are per round, over the rounds ``first`` to
    ``last``, ``open_change`` is the largest change over them that the interval leaves open; None where there are too
    few.
    """

    state: str
    points: int
    first: int | None = None
    last: int | None = None
    mean: float | None = None
    slope: float | None = None
    interval: tuple[float, float] | None = None
    open_change: float | None = None


def trend(points: Sequence[Point], matters: float = MATTERS) -> Trend:
    """Judge the last third of a curve.

    The rule: a straight line is fitted to the last third of the points (rounded up) by least squares
    (`scipy.stats.linregress`); its slope has a 95 % interval from Student's t with n - 2 degrees of freedom. An
    interval above zero is called ``rising``, one below it ``falling``. One that holds zero is called ``flattened`` if
    it is so narrow that it excludes a change of ``matters`` over these rounds, else ``no trend can be told``. Fewer
    than ``LEAST_POINTS`` in the last third are ``too few rounds``.

    The interval takes the rounds' deviations from the line as independent; where they are not (rounds share weights),
    it is too narrow, and a run is called rising, falling or flattened a little too often.

    Args:
        points: Rounds, ascending, with finite values.
        matters: The least change over the judged rounds that matters, in the unit of the values.
    """
    count = math.ceil(len(points) / 3)
    if count < LEAST_POINTS:
        return Trend(TOO_FEW, len(points))
    # Imported here: half of a second, which no command but a report should wait for.
    from scipy.stats import linregress, t

    part = points[-count:]
    x, y = zip(*part, strict=True)
    fit = linregress(x, y)
    stderr = 0.0 if math.isnan(fit.stderr) else float(fit.stderr)  # scipy has none for a curve that never moves
    half = float(t.ppf((1 + LEVEL) / 2, count - 2)) * stderr
    slope, middle, span = float(fit.slope), fmean(y), x[-1] - x[0]
    low, high = slope - half, slope + half
    left_open = max(abs(low), abs(high)) * span
    # A curve without any noise has an interval of no width: what is left of it is rounding.
    tiny = 1e-12 * max(1.0, abs(middle))
    state = RISING if low > tiny else FALLING if high < -tiny else FLAT if left_open < matters else UNKNOWN
    return Trend(state, len(points), x[0], x[-1], middle, slope, (low, high), left_open)


def curve(rows: Iterable[Mapping[str, Any]], metric: str) -> list[Point]:
    """A metric's finite values by round; of two of one round, the later."""
    found: dict[int, float] = {}
    for row in rows:
        value = row.get(metric)
        if isinstance(value, int | float) and abs(value) <= sys.float_info.max:
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
    if found.state in (RISING, FALLING):
        return f"{what}: not flattened, still {found.state} {where}; {numbers}."
    judged = "flattened" if found.state == FLAT else "no trend can be told from noise"
    return (
        f"{what}: {judged} {where}; {numbers}, so a change of up to {found.open_change:.3f} over these rounds is not "
        "ruled out."
    )


def summarise(rows: Sequence[Mapping[str, Any]], held_out: str) -> dict[str, Any]:
    """Rounds, curves and verdicts of a run, as plain values.

    Args:
        rows: The rows of metrics.jsonl.
        held_out: The metric that decides which round is the best.
    """
    curves = {metric: curve(rows, metric) for plot in PLOTS for metric in plot.metrics}
    curves.setdefault(held_out, curve(rows, held_out))
    verdicts = {}
    for name, metric in (*JUDGED, ("held-out notes", held_out)):
        found = trend(curves[metric])
        verdicts[name] = {"metric": metric, "sentence": sentence(name, metric, found), **asdict(found)}
    trained = [int(row["round"]) for row in rows if not row.get("validation")]
    return {
        "rounds": max(trained, default=0),
        "rule": "least squares over the last third; rising or falling if the "
        f"{100 * LEVEL:.0f} % interval of the slope excludes zero, flattened if it excludes a "
        f"change of {MATTERS} over these rounds",
        "flattened": verdicts,
        "curves": {metric: points for metric, points in curves.items() if points},
    }
