"""Metrics of verdicts: pure functions of labels and answers.

The 2×2 table and what follows from it are `medserl.game.metrics`; an answer of None (a reply that does not
parse, a missing one) counts as the wrong answer everywhere. A value that the data cannot give is NaN.
"""

from collections.abc import Sequence

from medserl.game.labels import Label
from medserl.game.metrics import confusion, ratio

Answer = Label | None


def classification_metrics(labels: Sequence[Label], predictions: Sequence[Answer]) -> dict[str, float]:
    """Metrics of ``predictions`` against ``labels``, same length and order.

    Keys: ``n``, ``n_correct``, ``n_incorrect`` (texts per label), ``accuracy``, ``balanced_accuracy``,
    ``mcc``, ``recall_*`` and ``precision_*`` per class, ``always_one_answer_rate``, ``parse_failures`` and
    ``parse_failure_rate``. Precision is over the answers that were given. Raises ValueError where the lengths
    differ.
    """
    pairs = list(zip(labels, predictions, strict=True))
    table = confusion(pairs)
    given = [answer for answer in predictions if answer is not None]
    metrics = {
        "n": float(len(pairs)),
        "n_correct": float(table.tn + table.fp),
        "n_incorrect": float(table.tp + table.fn),
        "accuracy": table.accuracy,
        "balanced_accuracy": table.balanced_accuracy,
        "mcc": table.mcc,
        "recall_correct": table.recall_correct,
        "recall_incorrect": table.recall_incorrect,
        "precision_correct": ratio(table.tn, given.count(Label.CORRECT)),
        "precision_incorrect": ratio(table.tp, given.count(Label.INCORRECT)),
        "always_one_answer_rate": ratio(max(given.count(label) for label in Label), len(given)),
        "parse_failures": float(len(pairs) - len(given)),
        "parse_failure_rate": ratio(len(pairs) - len(given), len(pairs)),
    }
    return metrics


def error_type_metrics(
    labels: Sequence[Label], predictions: Sequence[Answer], error_types: Sequence[str | None]
) -> dict[str, dict[str, float]]:
    """Per error type, sorted by name: ``n`` texts, ``recall`` and ``precision`` of INCORRECT.

    A verdict names no type, so a type's precision is that of a data set which holds its texts and all correct
    texts: found / (found + false alarms). It depends on how many correct texts there are.
    """
    false_alarms = sum(
        answer is Label.INCORRECT for label, answer in zip(labels, predictions, strict=True) if label is Label.CORRECT
    )
    found: dict[str, list[bool]] = {}
    for label, answer, kind in zip(labels, predictions, error_types, strict=True):
        if label is Label.INCORRECT:
            found.setdefault(kind or "(none given)", []).append(answer is Label.INCORRECT)
    return {
        kind: {
            "n": float(len(hits)),
            "recall": ratio(sum(hits), len(hits)),
            "precision": ratio(sum(hits), sum(hits) + false_alarms),
        }
        for kind, hits in sorted(found.items())
    }


def baseline_predictions(labels: Sequence[Label]) -> dict[str, list[Answer]]:
    """What always saying the same gives: ``always_correct`` and ``always_incorrect``."""
    return {f"always_{label.value.lower()}": [label] * len(labels) for label in Label}
