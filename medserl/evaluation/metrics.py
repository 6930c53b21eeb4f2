"""Metrics of verdicts: pure functions of labels and answers.

The 2×2 table and what follows from it are `medserl.game.metrics`, which says what an answer of None (a reply that
does not parse, a missing one) counts as. A value that the data cannot give is NaN.
"""

from collections.abc import Sequence

from medserl.game.labels import Label
from medserl.game.metrics import answer_metrics, confusion, ratio

Answer = Label | None


def classification_metrics(labels: Sequence[Label], predictions: Sequence[Answer]) -> dict[str, float]:
    """Metrics of ``predictions`` against ``labels``, same length and order.

    Keys: those of `medserl.game.metrics.answer_metrics`, ``n``, ``n_correct``, ``n_incorrect`` (texts per label),
    ``precision_*`` per class and ``parse_failures``. Raises ValueError where the lengths differ.
    """
    pairs = list(zip(labels, predictions, strict=True))
    table = confusion(pairs)
    return {
        "n": float(table.total),
        "n_correct": float(table.n_correct),
        "n_incorrect": float(table.n_incorrect),
        **answer_metrics(pairs),
        "precision_correct": table.precision_correct,
        "precision_incorrect": table.precision_incorrect,
        "parse_failures": float(table.silent_correct + table.silent_incorrect),
    }


def error_type_metrics(
    labels: Sequence[Label], predictions: Sequence[Answer], error_types: Sequence[str | None]
) -> dict[str, dict[str, float]]:
    """Per error type, sorted by name: ``n`` texts, ``recall`` and ``precision`` of INCORRECT.

    A verdict names no type, so a type's precision is that of a data set which holds its texts and all correct
    texts: found / (found + false alarms). It depends on how many correct texts there are.
    """
    pairs = list(zip(labels, predictions, strict=True))
    false_alarms = confusion(pairs).fp
    own: dict[str, list[tuple[Label, Answer]]] = {}
    for pair, kind in zip(pairs, error_types, strict=True):
        if pair[0] is Label.INCORRECT:
            own.setdefault(kind or "(none given)", []).append(pair)
    tables = {kind: confusion(given) for kind, given in sorted(own.items())}
    return {
        kind: {
            "n": float(table.total),
            "recall": table.recall_incorrect,
            "precision": ratio(table.tp, table.tp + false_alarms),
        }
        for kind, table in tables.items()
    }


def baseline_predictions(labels: Sequence[Label]) -> dict[str, list[Answer]]:
    """What always saying the same gives: ``always_correct`` and ``always_incorrect``."""
    return {f"always_{label.value.lower()}": [label] * len(labels) for label in Label}
