"""What a course found, as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medserl.evaluation.readiness import Readiness
from medserl.files import read_json
from medserl.proof.course import Course
from medserl.run.run_log import METRICS_FILE, read_metrics

TABLE = "real.md"
_PLAYED = ("vcf_acceptance_rate", "mean_reward", "actor/grad_norm", "training/rollout_actor_probs_pearson_corr")


def page(course: Course, stages: Sequence[dict[str, Any]]) -> str:
    """The stages so far, a row each, and what was cut."""
    rows = [f"| {stage['name']} | {stage['seconds']:.0f} | {stage['peak'] / 2**30:.1f} | {found(course, stage)} |"
            for stage in stages]  # fmt: skip
    minutes = sum(stage["seconds"] for stage in stages) / 60
    commands = "\n".join(stage["command"] for stage in stages)
    return "\n".join(
        [
            f"# {course.model.name} on {course.train.name} and {course.held_out.name}",
            "",
            "| stage | seconds | GiB at most | found |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"{minutes:.0f} minutes in all. {course.cut()}",
            "",
            "```bash",
            commands,
            "```",
            "",
        ]
    )


def found(course: Course, stage: dict[str, Any]) -> str:
    """What a stage found, in a phrase."""
    if "readiness" in stage:
        return edits_and_answers(Readiness(**stage["readiness"]))
    name = str(stage["name"])
    if name == "self-play":
        return "; ".join(played(row) for row in read_metrics(course.out / "game" / METRICS_FILE))
    if name in ("zero-shot", "trained"):
        return judged(course.out / name)
    return "a model directory" if name == "export" else f"{course.steps} steps"


def edits_and_answers(found: Readiness) -> str:
    """Of a model's edits and answers."""
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.verdicts.items()))
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(found.rejections.items()))
    return (
        f"{found.first_accepted} of {found.notes} first edits pass the filter ({found.first_share:.0%}), "
        f"{found.accepted} after all attempts{f' (rejected: {rejected})' if rejected else ''}; {found.parsed} of "
        f"{found.texts} answers read, {found.strict} in the strict form{f' ({verdicts})' if verdicts else ''}"
    )


def judged(folder: Path) -> str:
    """Of an evaluation's results."""
    results = read_json(folder / "results.json")
    metrics = results["metrics"]
    told = []
    for name in ("accuracy", "balanced_accuracy"):
        low, high = metrics["intervals"][name]
        told.append(f"{name.replace('_', ' ')} {metrics['flag'][name]:.2f} ({low:.2f} to {high:.2f})")
    texts, unread = int(metrics["flag"]["n"]), int(metrics["flag"]["parse_failures"])
    return f"{', '.join(told)} on {texts} texts, {texts - unread} answers read"


def played(row: dict[str, Any]) -> str:
    """Of a round of self-play."""
    told = ", ".join(f"{name.rpartition('/')[2]} {row[name]:.3g}" for name in _PLAYED if name in row)
    return f"round {row.get('round')}: {told}"
