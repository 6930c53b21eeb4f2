"""What a run did for the judgement of held-out notes: start, end, best, and how sure that is. Reads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from medserl.words import counted

DEFAULT_METRIC = "val/greedy/balanced_accuracy"
TEXTS = ("val/texts_correct", "val/texts_incorrect")
"""How many held-out texts of each class a validation judged."""
LEVEL = 1.959964  # standard deviations of a 95 % interval
_CHANCE = {"balanced_accuracy": 0.5, "auc": 0.5, "mcc": 0.0}
_NAMES = {"balanced_accuracy": "balanced accuracy", "auc": "AUC", "mcc": "Matthews correlation", "accuracy": "accuracy"}
BETTER, WORSE, OPEN, ONCE = "better", "worse", "open", "judged once"


@dataclass(frozen=True, slots=True)
class Value:
    """A metric at one validation; ``half`` is half its 95 % interval, None where it cannot be told."""

    round: int
    value: float
    half: float | None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One held-out metric over a run.

    Attributes:
        metric: Its name.
        points: Every validation, by round.
        texts: Texts that each validation judged; None where the run did not write it down.
        verdict: ``better`` or ``worse`` where the 95 % interval of the change excludes zero, else ``open``;
            ``judged once`` where there is one validation.
        change: End minus start.
        half: Half the 95 % interval of the change. The validations count as independent although they judge the same
            texts, which makes it wider than it is.
    """

    metric: str
    points: tuple[Value, ...]
    texts: int | None
    verdict: str
    change: float
    half: float | None

    @property
    def best(self) -> Value:
        """The greatest value; of equal ones the first, as the run itself chooses."""
        return max(self.points, key=lambda point: (point.value, -point.round))

    def plain(self) -> dict[str, Any]:
        """For report.json."""
        return {**asdict(self), "best": asdict(self.best), "chance": chance(self.metric)}


def chance(metric: str) -> float | None:
    """What guessing gets; None where that depends on the notes."""
    return _CHANCE.get(metric.rpartition("/")[2])


def held_out(rows: Iterable[Mapping[str, Any]], metric: str = DEFAULT_METRIC) -> HeldOut | None:
    """A metric's way through the rows of metrics.jsonl; None where no row has it."""
    by_round = {int(row["round"]): row for row in rows if _number(row.get(metric)) is not None}
    if not by_round:
        return None
    points = tuple(Value(number, float(row[metric]), _half(row, metric)) for number, row in sorted(by_round.items()))
    start, end = points[0], points[-1]
    change = end.value - start.value
    half = None if start.half is None or end.half is None else math.hypot(start.half, end.half)
    verdict = ONCE if len(points) == 1 else OPEN
    if half is not None and len(points) > 1:
        verdict = BETTER if change > half else WORSE if change < -half else OPEN
    counts = [_number(by_round[end.round].get(name)) for name in TEXTS]
    texts = None if None in counts else int(sum(count for count in counts if count is not None))
    return HeldOut(metric, points, texts, verdict, change, half)


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _half(row: Mapping[str, Any], metric: str) -> float | None:
    """Half the interval of a balanced accuracy, from its two recalls (Agresti and Coull 1998: two more successes and
    failures each, so that a recall of 1 is not taken for certain), or of an AUC."""
    where, _, name = metric.rpartition("/")
    if name == "auc":
        return _half_of_auc(row, metric)
    if name != "balanced_accuracy":
        return None
    variance = 0.0
    for label, counted_as in zip(("correct", "incorrect"), TEXTS, strict=True):
        recall, count = _number(row.get(f"{where}/recall_{label}")), _number(row.get(counted_as))
        if recall is None or not count:
            return None
        share = (recall * count + 2) / (count + 4)
        variance += share * (1 - share) / (count + 4) / 4
    return LEVEL * math.sqrt(variance)


def _half_of_auc(row: Mapping[str, Any], metric: str) -> float | None:
    """Half the interval of an AUC, by Hanley and McNeil 1982; a perfect one is taken for one with half a pair wrong."""
    value, counts = _number(row.get(metric)), [_number(row.get(name)) for name in TEXTS]
    if value is None or not all(counts):
        return None
    sound, wrong = (count for count in counts if count)
    area = min(max(value, 0.5 / (sound * wrong)), 1 - 0.5 / (sound * wrong))
    pairs = area * (1 - area)
    pairs += (wrong - 1) * (area / (2 - area) - area**2) + (sound - 1) * (2 * area**2 / (1 + area) - area**2)
    return LEVEL * math.sqrt(pairs / (sound * wrong))


def besides(rows: Sequence[Mapping[str, Any]], found: HeldOut | None) -> list[str]:
    """What else a reader of the answer must know: the other way of decoding, which the log's lines show, and whether
    the model tells the notes apart better or only answers INCORRECT more readily."""
    where, _, name = (found.metric if found else "").rpartition("/")
    if found is None or name != "balanced_accuracy" or len(found.points) < 2:
        return []
    sentences = []
    for how, said in (("val/greedy", ", val_bal_acc in train.log,"), ("val/sampled", "")):
        other = None if how == where else held_out(rows, f"{how}/{name}")
        if other is not None and len(other.points) > 1:
            start, end = other.points[0].value, other.points[-1].value
            title = name_of(other.metric)
            sentences.append(f"{title[0].upper()}{title[1:]}{said} went from {start:.3f} to {end:.3f}.")
    ranked = held_out(rows, f"{where}/auc")
    if ranked is not None and ranked.half is not None and len(ranked.points) > 1:
        start, end = ranked.points[0].value, ranked.points[-1].value
        only = (
            ". So the gain may lie in how readily the model says INCORRECT, not in telling the notes apart."
            if found.verdict == BETTER and ranked.verdict != BETTER
            else "."
        )
        sentences.append(
            f"AUC, which needs no threshold, went from {start:.3f} to {end:.3f}, a change of {_signed(ranked)}{only}"
        )
    return sentences


def answer(found: HeldOut | None) -> str:
    """One sentence: did the run make the model better at judging notes that it has not seen?"""
    if found is None:
        return (
            "Nothing was judged on held-out notes (medserl.validation.path, trainer.test_freq): what happens in the "
            "games cannot say whether the model learns, because its opponent changes with it."
        )
    start, end = found.points[0], found.points[-1]
    on = f"{counted(found.texts, 'held-out text')}" if found.texts else "the held-out notes"
    guess = chance(found.metric)
    against = "" if guess is None else f"; guessing gives {guess:g}"
    what = f"{name_of(found.metric)} on {on}"
    if found.verdict == ONCE:
        return f"{what[0].upper()}{what[1:]} was judged once, {_with(start)} after round {start.round}{against}."
    moved = f"{what} went from {start.value:.3f} (round {start.round}) to {end.value:.3f} (round {end.round})"
    sure = "" if found.half is None else f", a change of {_signed(found)}"
    verdicts = {BETTER: "It works: ", WORSE: "It got worse: ", OPEN: "No change can be told from noise: "}
    opening = verdicts[found.verdict] if found.half is not None else ""
    text = f"{opening}{moved}{sure}{against}."
    return text[0].upper() + text[1:]


def name_of(metric: str) -> str:
    """``balanced accuracy (greedy)`` for ``val/greedy/balanced_accuracy``."""
    parts = metric.split("/")
    how = f" ({parts[1]})" if len(parts) == 3 else ""
    return f"{_NAMES.get(parts[-1], metric)}{how if parts[-1] in _NAMES else ''}"


def _with(point: Value) -> str:
    if point.half is None:
        return f"{point.value:.3f}"
    low, high = max(point.value - point.half, 0.0), min(point.value + point.half, 1.0)
    return f"{point.value:.3f} (95 % interval {low:.3f} to {high:.3f})"


def _signed(found: HeldOut) -> str:
    assert found.half is not None
    low, high = found.change - found.half, found.change + found.half
    change = round(found.change, 3) + 0.0  # no -0.000
    return f"{change:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"


def band(points: Sequence[Value]) -> list[tuple[int, float, float]]:
    """Round, low and high of every validation whose interval is known."""
    return [(p.round, p.value - p.half, p.value + p.half) for p in points if p.half is not None]
