"""Where a run's time went and why edits were rejected, added up over its rounds. Reads nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

PHASES: tuple[tuple[str, str], ...] = (
    ("timing_s/gen", "playing the games"),
    ("timing_s/old_log_prob", "log-probabilities of the policy"),
    ("timing_s/ref", "log-probabilities of the reference"),
    ("timing_s/values", "the critic's values"),
    ("timing_s/adv", "rewards and advantages"),
    ("timing_s/update_critic", "updating the critic"),
    ("timing_s/update_actor", "updating the policy"),
    ("timing_s/update_weights", "sending the weights to vLLM"),
)
REST, VALIDATION = "everything else of a round", "judging the held-out notes"
REASONS = "vcf_rejections/"
MEANING = {
    "too_many_edits": "more words changed than allowed",
    "jaccard_low": "too little of the note is left",
    "jaccard_high": "next to nothing changed",
    "several_sentences": "more than one sentence changed",
    "leak": "the edit says what it is",
    "identical": "nothing changed",
    "empty": "an empty reply",
    "unparseable": "a reply without an edit",
    "cosmetic": "only case, punctuation or look-alikes changed",
}
"""Why the change filter rejects, in words; a reason without words is shown by its name."""


def seconds(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Phase and its seconds over all rounds, in a round's order; phases that took none are left out."""
    rows = [row for row in rows if not row.get("validation")]
    parts = [(name, _sum(rows, metric)) for metric, name in PHASES]
    rest = _sum(rows, "timing_s/step") - sum(took for _, took in parts)
    judged = _sum(rows, "timing_s/validate")
    return [(name, took) for name, took in (*parts, (REST, max(rest, 0.0)), (VALIDATION, judged)) if took > 0]


def rejections(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, int, int, int]]:
    """Reason, meaning, and how often it was given: in all rounds, in their first third and in their last.

    Most frequent first; reasons that were never given are left out.
    """
    rows = [row for row in rows if not row.get("validation")]
    third = max(len(rows) // 3, 1)
    names = {name for row in rows for name in row if name.startswith(REASONS)}
    found = []
    for name in names:
        total, first, last = (int(_sum(part, name)) for part in (rows, rows[:third], rows[-third:]))
        reason = name.removeprefix(REASONS)
        if total:
            found.append((reason, MEANING.get(reason, reason.replace("_", " ")), total, first, last))
    return sorted(found, key=lambda item: (-item[2], item[0]))


def _sum(rows: Iterable[Mapping[str, Any]], metric: str) -> float:
    values = (row.get(metric) for row in rows)
    return math.fsum(float(value) for value in values if isinstance(value, int | float) and math.isfinite(value))
