"""Is one model better than another on the same texts? Needs numpy for the bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np

from medserl.data.records import base_id
from medserl.errors import DataError
from medserl.evaluation import bootstrap
from medserl.evaluation.metrics import classification_metrics
from medserl.evaluation.paired import discordant, mcnemar
from medserl.evaluation.results import StoredPrediction, StoredResults
from medserl.evaluation.summary import jsonable, verdict_rows

LEVEL = 0.05


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
    rows = np.hstack([verdict_rows(labels, given) for given in answers])
    sums = bootstrap.resampled_sums(rows, [base_id(one.note_id) for one, _ in pairs], seed)
    width = bootstrap.VERDICT_COLUMNS
    difference = {}
    for name in ("accuracy", "balanced_accuracy"):
        statistic = bootstrap.VERDICT_STATISTICS[name]
        draws = statistic(sums[:, width:]) - statistic(sums[:, :width])
        difference[name] = {"value": metrics[1][name] - metrics[0][name], "interval": bootstrap.interval(draws)}
    found = {
        "first": {"path": str(first.path), "model": first.results["model"]["name"], **metrics[0]},
        "second": {"path": str(second.path), "model": second.results["model"]["name"], **metrics[1]},
        "texts": len(pairs),
        "left_out": {"first": len(first.predictions) - len(pairs), "second": len(second.predictions) - len(pairs)},
        "only_first_right": only_first,
        "only_second_right": only_second,
        "mcnemar_exact_p": exact,
        "mcnemar_mid_p": mid_p,
        "difference": difference,
        "seed": seed,
        "settings_that_differ": _differing(first.results["settings"], second.results["settings"]),
    }
    found["real"] = is_real(found)
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


def is_real(found: dict[str, Any]) -> bool:
    """McNemar's mid-p is below 0.05 and the bootstrap's 95 % interval of the accuracy difference excludes 0.

    Both ask about accuracy. McNemar takes the texts as independent; the bootstrap draws whole notes, so that
    the two versions of one note do not count as two.
    """
    low, high = found["difference"]["accuracy"]["interval"]
    return bool(found["mcnemar_mid_p"] < LEVEL and (low > 0 or high < 0))


def verdict_sentence(found: dict[str, Any]) -> str:
    """One sentence for a person."""
    difference = found["difference"]["accuracy"]
    (low, high), balanced = difference["interval"], found["difference"]["balanced_accuracy"]
    numbers = (
        f"accuracy {difference['value']:+.3f} (95 % interval {low:+.3f} to {high:+.3f}), balanced accuracy "
        f"{balanced['value']:+.3f} ({balanced['interval'][0]:+.3f} to {balanced['interval'][1]:+.3f}), McNemar "
        f"mid-p {found['mcnemar_mid_p']:.3g}, {found['texts']} texts"
    )
    if not found["real"]:
        return f"No real difference is shown between the second and the first, it may be chance: {numbers}."
    better, worse = ("second", "first") if difference["value"] > 0 else ("first", "second")
    return f"The difference is real, the {better} is better than the {worse}: {numbers}."


def _differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Settings besides the model that may explain a difference."""
    names = ("format", "prompt_set", "prompt_sha256", "samples", "temperature", "max_tokens", "thinking", "seed")
    return [name for name in names if first.get(name) != second.get(name)]


def comparison_markdown(found: dict[str, Any]) -> str:
    """The comparison as a table and its sentence."""
    lines = [
        f"# {found['second']['model']} against {found['first']['model']}",
        "",
        found["sentence"],
        "",
        "| | first | second | difference | 95 % interval |",
        "| --- | ---: | ---: | ---: | :---: |",
    ]
    for name in ("accuracy", "balanced_accuracy", "mcc", "recall_correct", "recall_incorrect", "parse_failure_rate"):
        one, two = found["first"][name], found["second"][name]
        gap = found["difference"].get(name)
        bounds = "" if gap is None else " to ".join(_signed(bound) for bound in gap["interval"])
        change = None if one is None or two is None else two - one
        cells = [name.replace("_", " "), _plain(one), _plain(two), _signed(change), bounds]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"First: {found['first']['path']}; second: {found['second']['path']}. Only the first is right on "
        f"{found['only_first_right']} texts, only the second on {found['only_second_right']}; McNemar exact "
        f"p {found['mcnemar_exact_p']:.3g}, mid-p {found['mcnemar_mid_p']:.3g}.",
    ]
    if any(found["left_out"].values()):
        lines.append(
            f"Left out, being in one of them only: {found['left_out']['first']} texts of the first, "
            f"{found['left_out']['second']} of the second."
        )
    if found["settings_that_differ"]:
        lines.append(f"They also differ in: {', '.join(found['settings_that_differ'])}.")
    return "\n".join(lines) + "\n"


def _plain(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.3f}"
