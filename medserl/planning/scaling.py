"""What more nodes bring: the same round in less time (strong), or a larger one in the same (weak). No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from medserl.planning.assumptions import Assumptions
from medserl.planning.choices import Choice, choices
from medserl.planning.gpus import Gpu
from medserl.planning.job import Critic, Job, Round
from medserl.planning.shapes import Shape
from medserl.planning.speed import Seconds

NODES = (1, 2, 4, 8, 16, 32, 64)
_LOSS = 0.05
"""Seconds that are shown as +0.1; less is no loss to speak of."""


@dataclass(frozen=True)
class Point:
    """A number of nodes."""

    nodes: int
    choice: Choice | None
    """The best that fits; None where none does."""
    efficiency: float | None
    """Tokens per second and GPU, against the fewest nodes that work."""
    why: str
    """What keeps it from 1, where something does, or why there is no choice."""


def scaling(job: Job, shape: Shape, gpu: Gpu, host: float | None, assumed: Assumptions, *, weak: bool) -> list[Point]:
    """The best split for each number of nodes.

    Args:
        job: The job; a frozen model stays as it is.
        shape: The model.
        gpu: The kind of GPU.
        host: Bytes of a node's memory, or None.
        assumed: For the seconds.
        weak: Whether a round and its mini-batches grow with the nodes.
    """
    points: list[Point] = []
    first: Point | None = None
    for nodes in NODES:
        sized = job.with_training(nodes=nodes)
        if weak:
            factor = nodes / job.training.nodes
            sized = dataclasses.replace(sized, round=_times(job, factor), critic=_critic_times(job, factor))
        ranked = choices(sized, shape, gpu, host, assumed)
        best = ranked[0] if ranked and ranked[0].fits else None
        if best is None or best.seconds is None:
            points.append(Point(nodes, None, None, ranked[0].reason if ranked else "no split divides the GPUs"))
            continue
        if first is None:
            first = Point(nodes, best, 1.0, "")
            points.append(first)
            continue
        points.append(_against(first, nodes, best, best.seconds))
    return points


def _times(job: Job, factor: float) -> Round:
    work = job.round
    return dataclasses.replace(
        work,
        fresh=_whole(work.fresh, factor) if work.fresh else 0,
        labelled=round(work.labelled * factor),
        mini=_whole(work.mini, factor),
    )


def _critic_times(job: Job, factor: float) -> Critic | None:
    return None if job.critic is None else dataclasses.replace(job.critic, mini=_whole(job.critic.mini, factor))


def _whole(number: int, factor: float) -> int:
    return max(1, round(number * factor))


def _against(first: Point, nodes: int, best: Choice, seconds: Seconds) -> Point:
    assert first.choice is not None and first.choice.seconds is not None
    base = first.choice.seconds
    speed, usual = seconds.tokens / seconds.round / nodes, base.tokens / base.round / first.nodes
    scale = (seconds.tokens / nodes) / (base.tokens / first.nodes)  # what each phase would take if all went on evenly
    lost = {
        "rollout": seconds.rollout - scale * base.rollout,
        "log-probs": seconds.log_probs - scale * base.log_probs,
        "critic": seconds.critic - scale * base.critic,
        "update": seconds.update - scale * base.update,
        "transfer": seconds.transfer - scale * base.transfer,
    }
    name = max(lost, key=lambda part: lost[part])
    return Point(nodes, best, speed / usual, f"{name} {lost[name]:+.1f} s" if lost[name] >= _LOSS else "")
