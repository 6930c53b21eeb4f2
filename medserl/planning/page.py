"""A plan as tables for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medserl.planning.assumptions import Assumptions
from medserl.planning.choices import Choice
from medserl.planning.fits import TIGHT
from medserl.planning.gpus import Gpu
from medserl.planning.job import Job
from medserl.planning.memory import ASSUMED, EXACT, FROZEN, GIB, MARKS, PARTS, Need
from medserl.planning.scaling import Point
from medserl.planning.shapes import Shape
from medserl.planning.speed import Seconds
from medserl.report.terminal import Table
from medserl.words import counted

SHOWN = 12
"""Choices in the table; JSON has all."""


@dataclass(frozen=True)
class Plan:
    """Everything that `medserl plan` found out."""

    config: str
    job: Job
    shape: Shape
    gpu: Gpu
    need: Need
    seconds: Seconds
    rounds: int
    counted: bool
    """Whether the rounds follow from notes that are there."""
    choices: Sequence[Choice]
    strong: Sequence[Point]
    weak: Sequence[Point]
    assumed: Assumptions
    given: Sequence[str]
    """Names of the assumptions that the user replaced."""
    refused: str | None
    """Why the job cannot run; None where it can."""

    @property
    def hours(self) -> float:
        """Of the run."""
        return (self.assumed.start + self.rounds * self.seconds.round) / 3600


def tables(plan: Plan, shown: int = SHOWN) -> list[tuple[str, Table]]:
    """Title and table of each part, with the best ``shown`` ways to split it."""
    found = [
        ("", _head(plan)),
        ("Memory of the fullest GPU, GiB", _memory(plan)),
        ("Host and disk", _host(plan)),
        ("Seconds of a round", _seconds(plan)),
        ("Ways to split it", _choices(plan, shown)),
        ("The same round on more nodes (strong scaling)", _scaling(plan.strong)),
        ("A round that grows with the nodes (weak scaling)", _scaling(plan.weak)),
        ("Assumptions (none was measured on a GPU; --assume NAME=VALUE)", _assumptions(plan)),
    ]
    return [(title, table) for title, table in found if table.rows]


def _head(plan: Plan) -> Table:
    training, rollout, served = plan.job.training, plan.job.rollout, plan.job.served
    split = f"Megatron TP {training.tp} x PP {training.pp} x DP {training.dp}"
    engines = f"; vLLM TP {rollout.tp}, {counted(training.world // rollout.tp, 'engine')}" if rollout else ""
    beside = f"; {counted(served.gpus, 'GPU')} for a frozen model" if served else ""
    beside += " (not seen from here, taken to be as large)" if served and served.shape is None else ""
    rows = [
        ["configuration", plan.config],
        ["model", f"{plan.shape.name}: {plan.shape.parameters / 1e9:.3f} G parameters ({EXACT})"],
        ["GPU", f"{plan.gpu.name}: {plan.gpu.memory / GIB:.1f} GiB, {plan.gpu.flops / 1e12:.0f} TFLOP/s bf16, "
                f"{plan.gpu.bandwidth / 1e12:.2f} TB/s, link {plan.gpu.link / 1e9:.0f} GB/s ({plan.gpu.told})"],
        ["layout", f"{training.nodes} x {counted(training.gpus_per_node, 'GPU')} = {split}{engines}{beside}"],
        ["verdict", _verdict(plan)],
    ]  # fmt: skip
    return Table((), rows)


def _verdict(plan: Plan) -> str:
    if plan.refused is not None:
        return "cannot run: the sentence is below"
    fullest = plan.need.fullest
    left = plan.gpu.memory - fullest.total
    tight = ", which fragmentation may take" if left < TIGHT * plan.gpu.memory else ""
    return f"fits; fullest in its {fullest.name} phase, {left / GIB:.1f} GiB left{tight}"


def _memory(plan: Plan) -> Table:
    phases = plan.need.phases
    rows = []
    for part in PARTS:
        sizes = [phase.parts.get(part, 0.0) for phase in phases]
        if any(sizes):
            rows.append([part, MARKS[part], *(_gib(size) if size else "-" for size in sizes)])
    rows.append(["total", "", *(_gib(phase.total) for phase in phases)])
    rows.append(["headroom", "", *(_gib(plan.gpu.memory - phase.total) for phase in phases)])
    if plan.job.training.pp > 1:
        stages = ["-" if phase.name == FROZEN else str(phase.stage + 1) for phase in phases]
        rows.append(["fullest stage", "", *stages])
    return Table(("part", "known", *(phase.name for phase in phases)), rows)


def _host(plan: Plan) -> Table:
    host, cache = plan.need.host, plan.need.cache
    kept = plan.job.round.kept
    on_disk = f"{_gib(host.checkpoint)} GiB each"
    if kept:
        beside = "the best and one under way" if plan.job.rollout else "one under way"  # a warm start judges none
        others = 2 if plan.job.rollout else 1
        on_disk += f", {kept} kept, {beside}: {_gib((kept + others) * host.checkpoint)} GiB"
    rows = [
        ["checkpoint", EXACT, on_disk],
        ["node at a save", ASSUMED, f"{_gib(host.saving)} GiB, and {_gib(host.processes)} of processes"],
        ["node at a load", ASSUMED, f"{_gib(host.loading)} GiB, and {_gib(host.processes)} of processes"],
    ]
    if host.always:
        rows.append(["node all along", ASSUMED, f"{_gib(host.always)} GiB of weights and optimizer that live there"])
    if cache is not None and plan.job.rollout is not None:
        longest = plan.job.rollout.max_model_len
        rows.append(
            ["KV cache", ASSUMED, f"{cache.tokens} tokens an engine, {cache.tokens // longest} sequences of {longest}"]
        )
    return Table(("what", "known", "how much"), rows)


def _seconds(plan: Plan) -> Table:
    seconds = plan.seconds
    saving = seconds.save / seconds.save_every if seconds.save_every else 0.0
    parts = [f"{name} {size:.1f}" for name, size in seconds.work.items() if size >= 0.05]
    told = "; ".join(filter(None, (", ".join(parts), f"MFU {seconds.mfu:.2f}")))
    rounds = "rounds" if plan.job.rollout else "steps"
    rows = [["rollout", f"{seconds.rollout:.1f}", f"{seconds.written:,.0f} tokens written"]] if plan.job.rollout else []
    if plan.job.rollout:
        rows.append(["log-probs", f"{seconds.log_probs:.1f}", "policy and reference"])
    if plan.job.critic:
        rows.append(["critic", f"{seconds.critic:.1f}", "values and update"])
    rows.append(["update", f"{seconds.update:.1f}", told])
    if plan.job.rollout:
        rows.append(["transfer", f"{seconds.transfer:.1f}", "weights to vLLM"])
    rows.append(["checkpoint", f"{saving:.1f}", _every(seconds, rounds)])
    world, rate = plan.job.training.world, seconds.tokens / seconds.round
    told = f"{seconds.trajectories:.0f} trajectories, {rate:,.0f} tokens/s, {rate / world:,.0f} a GPU"
    rows.append([rounds[:-1], f"{seconds.round:.1f}", told])
    run = f"{plan.hours:.1f} h on {counted(plan.job.gpus, 'GPU')} = {plan.hours * plan.job.gpus:.1f} GPU hours"
    rows.append(["run", f"{plan.hours * 3600:.0f}", f"{counted(plan.rounds, rounds[:-1])} ({_known(plan)}): {run}"])
    return Table(("phase", "seconds", f"all {ASSUMED}"), rows)


def _every(seconds: Seconds, rounds: str) -> str:
    if not seconds.save_every:
        return f"{seconds.save:.0f} s, at the end only"
    return f"{seconds.save:.0f} s every {seconds.save_every} {rounds}"


def _known(plan: Plan) -> str:
    if not plan.counted:
        return ASSUMED
    if not plan.job.rollout:
        return "medserl.steps"
    return "counted in the notes" if plan.job.round.rounds is None else "medserl.max_rounds"


def _choices(plan: Plan, shown: int) -> Table:
    """The best micro-batch of each split, the configuration's own, and no more than ``shown`` of them."""
    rows: list[list[str]] = []
    seen = set()
    own = plan.job.training
    for rank, choice in enumerate(plan.choices, 1):
        split = choice.job.training
        asked = (split.tp, split.pp, split.tokens) == (own.tp, own.pp, own.tokens)
        again = (split.tp, split.pp) in seen and shown < len(plan.choices)
        if not asked and (again or len(rows) >= shown):
            continue
        seen.add((split.tp, split.pp))
        time = f"{choice.seconds.round:.1f}" if choice.seconds else "-"
        size = _gib(choice.need.fullest.total) if choice.need else "-"
        reason = choice.reason or "the fastest that fits"
        rows.append([str(rank), f"{choice.name}{' *' if asked else ''}", time, size, reason])
    if (left := len(plan.choices) - len(rows)) > 0:
        rows.append(["", f"{left} more", "", "", "--all or --json shows them; * is the configuration's own"])
    if (rollout := plan.job.rollout) is not None and rows:
        why = "not varied: the latency of its all-reduces, 10 us each, is assumed and was not measured (docs/gpu.md)"
        rows.append(["", f"vLLM TP {rollout.tp} in all", "", "", why])
    return Table(("", "split", "seconds", "GiB", "why not"), rows)


def _scaling(points: Sequence[Point]) -> Table:
    rows = []
    for point in points:
        if point.choice is None or point.choice.seconds is None:
            rows.append([str(point.nodes), "-", "-", "-", "-", point.why])
            continue
        seconds = point.choice.seconds
        rate = f"{seconds.tokens / seconds.round:,.0f}"
        efficiency = f"{point.efficiency:.2f}" if point.efficiency is not None else "-"
        loss = f"most is lost in {point.why}" if point.why else ""
        rows.append([str(point.nodes), point.choice.name, f"{seconds.round:.1f}", rate, efficiency, loss])
    return Table(("nodes", "split", "seconds", "tokens/s", "efficiency", ""), rows)


def _assumptions(plan: Plan) -> Table:
    rows = []
    for name, value, why in plan.assumed.named():
        rows.append([name, f"{value:g}", "given" if name in plan.given else ASSUMED, why])
    return Table(("name", "value", "known", "meaning"), rows)


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}"


def as_json(plan: Plan) -> dict[str, Any]:
    """Everything, in bytes and seconds."""
    phases = {
        phase.name: {
            "parts": dict(phase.parts),
            "total": phase.total,
            "headroom": plan.gpu.memory - phase.total,
            "stage": phase.stage,
        }
        for phase in plan.need.phases
    }
    return {
        "config": plan.config,
        "refused": plan.refused,
        "model": {**dataclasses.asdict(plan.shape), "parameters": plan.shape.parameters},
        "gpu": {**dataclasses.asdict(plan.gpu), "memory": plan.gpu.memory},
        "gpus": plan.job.gpus,
        "training": {**dataclasses.asdict(plan.job.training), "dp": plan.job.training.dp},
        "critic": dataclasses.asdict(plan.job.critic) if plan.job.critic else None,
        "phases": phases,
        "known": MARKS,
        "cache": dataclasses.asdict(plan.need.cache) if plan.need.cache else None,
        "host": dataclasses.asdict(plan.need.host),
        "seconds": {**dataclasses.asdict(plan.seconds), "round": plan.seconds.round},
        "run": {"rounds": plan.rounds, "counted": plan.counted, "gpu_hours": plan.hours * plan.job.gpus},
        "choices": [_choice_json(choice) for choice in plan.choices],
        "strong": [_point_json(point) for point in plan.strong],
        "weak": [_point_json(point) for point in plan.weak],
        "assumptions": {
            name: {"value": value, "known": "given" if name in plan.given else ASSUMED, "meaning": why}
            for name, value, why in plan.assumed.named()
        },
    }


def _choice_json(choice: Choice) -> dict[str, Any]:
    split = choice.job.training
    return {
        "tp": split.tp,
        "pp": split.pp,
        "dp": split.dp,
        "tokens": split.tokens,
        "vllm_share": choice.job.rollout.share if choice.job.rollout else None,
        "seconds": choice.seconds.round if choice.seconds else None,
        "bytes": choice.need.fullest.total if choice.need else None,
        "reason": choice.reason or None,
    }


def _point_json(point: Point) -> dict[str, Any]:
    choice = _choice_json(point.choice) if point.choice else None
    return {"nodes": point.nodes, "choice": choice, "efficiency": point.efficiency, "why": point.why or None}
