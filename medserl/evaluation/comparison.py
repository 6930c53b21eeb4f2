"""Is one model better than another on the same texts? Needs numpy for the bootstrap."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np

from medserl.errors import DataError
from medserl.evaluation import bootstrap
from medserl.evaluation.groups import joined
from medserl.evaluation.markdown import number
from medserl.evaluation.metrics import classification_metrics
from medserl.evaluation.paired import discordant, mcnemar
from medserl.evaluation.results import StoredPrediction, StoredResults
from medserl.evaluation.summary import jsonable
from medserl.report.tables import escape, table

LEVEL = 0.05
METRICS = (
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "recall_correct",
    "recall_incorrect",
    "parse_failure_rate",
    "accuracy_parsed",
    "balanced_accuracy_parsed",
)


def compare(first: StoredResults, second: StoredResults, *, shared: bool, seed: int) -> dict[str, Any]:
    """A paired comparison, second minus first.

    ``shared``: compare the ids that both have, where they do not have the same. Raises DataError where the
    ids differ and ``shared`` is not set, where there is no common one, or where a text or label differs.
    """
    pairs = matched(first, second, shared=shared)
    labels = [one.label for one, _ in pairs]
    answers = [[pair[side].answer for pair in pairs] for side in (0, 1)]
    metrics = [classification_metrics(labels, given) for given in answers]
    right = [[answer is label for answer, label in zip(given, labels, strict=True)] for given in answers]
    only_first, only_second = discordant(*right)
    exact, mid_p = mcnemar(only_first, only_second)
    rows = np.hstack([bootstrap.verdict_rows(labels, given) for given in answers])
    groups = joined([(("first", one.group), ("second", two.group)) for one, two in pairs])
    sums = bootstrap.resampled_sums(rows, groups, seed)
    width = bootstrap.VERDICT_COLUMNS
    difference = {}
    for name in ("accuracy", "balanced_accuracy"):
        statistic = bootstrap.verdict(name)
        draws = statistic(sums[:, width:]) - statistic(sums[:, :width])
        difference[name] = {"value": metrics[1][name] - metrics[0][name], "interval": bootstrap.interval(draws)}
    found = {
        "first": {"path": str(first.path), "model": first.results["model"]["name"], **metrics[0]},
        "second": {"path": str(second.path), "model": second.results["model"]["name"], **metrics[1]},
        "texts": len(pairs),
        "groups": len(set(groups)),
        "groups_by_id_only": [str(stored.path) for stored in (first, second) if not stored.grouped],
        "left_out": {"first": len(first.predictions) - len(pairs), "second": len(second.predictions) - len(pairs)},
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_exact_p": exact,
        "mcnemar_mid_p": mid_p,
        "difference": difference,
        "seed": seed,
        "settings_that_differ": _differing(first.results["settings"], second.results["settings"]),
    }
    found["significant"] = is_significant(found)
    found["sentence"] = verdict_sentence(found)
    cleaned: dict[str, Any] = jsonable(found)
    return cleaned


def matched(
    first: StoredResults, second: StoredResults, *, shared: bool
) -> list[tuple[StoredPrediction, StoredPrediction]]:
    """The predictions of both for each id, in the first's order; see `compare` for what is refused."""
    other = {prediction.note_id: prediction for prediction in second.predictions}
    pairs = [(one, other[one.note_id]) for one in first.predictions if one.note_id in other]
    alone = len(first.predictions) + len(second.predictions) - 2 * len(pairs)
    if alone and not shared:
        raise DataError(
            f"{first.path} and {second.path}: {alone} note ids are in only one of them; evaluate both models on "
            "the same data, or compare what they share with --shared-ids"
        )
    if not pairs:
        raise DataError(f"{first.path} and {second.path}: have no note id in common; evaluate both on the same data")
    for one, two in pairs:
        if (one.text_sha256, one.label) != (two.text_sha256, two.label):
            raise DataError(
                f"{first.path} and {second.path}: note {one.note_id!r} has another text or label in one of them; "
                "evaluate both models on the same data"
            )
    return pairs


def is_significant(found: dict[str, Any]) -> bool:
    """McNemar's mid-p is below 0.05 and the bootstrap's 95 % interval of the accuracy difference excludes 0.

    Both ask about accuracy. McNemar takes the texts as independent; the bootstrap draws whole groups, so that
    the versions of one note, and near-duplicates, do not count several times.
    """
    low, high = found["difference"]["accuracy"]["interval"]
    return bool(found["mcnemar_mid_p"] < LEVEL and (low > 0 or high < 0))


def verdict_sentence(found: dict[str, Any]) -> str:
    """One sentence for a person."""
    difference, balanced = found["difference"]["accuracy"], found["difference"]["balanced_accuracy"]
    numbers = (
        f"accuracy {_signed(difference['value'])} (95 % interval {_bounds(difference)}), balanced accuracy "
        f"{_signed(balanced['value'])} ({_bounds(balanced)}), McNemar mid-p {found['mcnemar_mid_p']:.3g}, "
        f"{found['texts']} texts in {found['groups']} groups"
    )
    at = f"at {100 * LEVEL:.0f} %"
    if not found["significant"]:
        return f"No difference between the second and the first is significant {at}; it may be chance: {numbers}."
    better, worse = ("second", "first") if difference["value"] > 0 else ("first", "second")
    return f"The difference is significant {at}; the {better} is better than the {worse}: {numbers}."


def _differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Settings besides the model that may explain a difference."""
    names = ("format", "prompt_set", "prompt_sha256", "samples", "temperature", "max_tokens", "thinking", "seed")
    return [name for name in names if first.get(name) != second.get(name)]


def comparison_markdown(found: dict[str, Any]) -> str:
    """The comparison as a table and its sentence."""
    rows = []
    for name in METRICS:
        one, two = found["first"][name], found["second"][name]
        gap = found["difference"].get(name)
        change = None if one is None or two is None else two - one
        bounds = "" if gap is None else _bounds(gap)
        rows.append([name.replace("_", " "), number(one), number(two), _signed(change), bounds])
    lines = [
        f"# {escape(found['second']['model'])} against {escape(found['first']['model'])}",
        "",
        found["sentence"],
        "",
        *table(["", "first", "second", "difference", "95 % interval"], rows, "lrrrc"),
    ]
    lines += [
        "",
        f"First: {escape(found['first']['path'])}; second: {escape(found['second']['path'])}. Only the first is "
        f"right on {found['only_first_right']} texts, only the second on {found['only_second_right']}; McNemar exact "
        f"p {found['mcnemar_exact_p']:.3g}, mid-p {found['mcnemar_mid_p']:.3g}.",
    ]
    if any(found["left_out"].values()):
        lines.append(
            f"Left out, being in one of them only: {found['left_out']['first']} texts of the first, "
            f"{found['left_out']['second']} of the second."
        )
    for path in found["groups_by_id_only"]:
        lines.append(
            f"{escape(path)} is of a version that recorded no near-duplicates: they count as independent where their "
            "ids differ, and the intervals may be too narrow."
        )
    if found["settings_that_differ"]:
        lines.append(f"They also differ in: {', '.join(found['settings_that_differ'])}.")
    return "\n".join(lines) + "\n"


def _signed(value: float | None) -> str:
    return "n/a" if value is None or isnan(value) else f"{value:+.3f}"


def _bounds(difference: dict[str, Any]) -> str:
    low, high = difference["interval"]
    return f"{_signed(low)} to {_signed(high)}" if _signed(low) != "n/a" else "n/a"
