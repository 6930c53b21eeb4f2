"""The ways to split a training over its GPUs, ranked; each loser with the reason why it loses. No torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from medserl.errors import ConfigError
from medserl.planning.assumptions import Assumptions
from medserl.planning.fits import TIGHT, gpu_misfit, host_misfit
from medserl.planning.gpus import Gpu
from medserl.planning.job import Job
from medserl.planning.memory import ROLLOUT, SAVE, Need, need_of, size_text
from medserl.planning.shapes import Shape, stage_layers, undivided
from medserl.planning.speed import Seconds, seconds_of
from medserl.words import counted

TENSOR = (1, 2, 4, 8, 16)
PIPELINE = (1, 2, 3, 4, 6, 8, 9, 12)
TOKENS = (4096, 8192, 16384, 24576, 32768, 49152)


@dataclass(frozen=True)
class Choice:
    """One way."""

    job: Job
    need: Need | None
    """None where it is not worth a sum."""
    seconds: Seconds | None
    reason: str
    """Why it is not the best; empty for the best."""
    less_for_vllm: bool = False
    """Whether vLLM takes a smaller share of the GPU than the configuration gives it."""

    @property
    def fits(self) -> bool:
        """Whether it could run."""
        return self.seconds is not None

    @property
    def name(self) -> str:
        """In short."""
        split = self.job.training
        share = f", vLLM's share {self.job.rollout.share:g}" if self.less_for_vllm and self.job.rollout else ""
        micro = counted(split.rows, "row") if split.rows else f"{split.tokens} tokens"
        return f"TP {split.tp} x PP {split.pp} x DP {split.dp}, {micro}{share}"


def choices(job: Job, shape: Shape, gpu: Gpu, host: float | None, assumed: Assumptions) -> list[Choice]:
    """Every split and micro-batch, those that fit first, by seconds of a round; then the others.

    Args:
        job: What is asked for; its own split is one of the choices.
        shape: The model.
        gpu: The kind of GPU.
        host: Bytes of a node's memory; None where they are not known.
        assumed: For the seconds.
    """
    own = job.training
    found = []
    for tp in sorted({own.tp, *TENSOR}):
        for pp in sorted({own.pp, *PIPELINE}):
            if own.world % (tp * pp):
                continue
            changes: dict[str, int | None] = {"tp": tp, "pp": pp}
            if pp != own.pp:
                changes |= {"first_layers": None, "last_layers": None}
            split = job.with_training(**changes)
            if (reason := _impossible(split, shape)) is not None:
                found.append(Choice(split, None, None, reason))
                continue
            sizes = TOKENS if own.rows is None else ()
            for tokens in sorted({own.tokens, *(size for size in sizes if size >= job.longest)}):
                found.append(_judged(split.with_training(tokens=tokens), shape, gpu, host, assumed))
    return _ranked(found)


def _impossible(job: Job, shape: Shape) -> str | None:
    split = job.training
    if split.tp > split.gpus_per_node:
        return f"TP {split.tp} crosses nodes, whose network is slower than NVLink by an order"
    if (reason := undivided(shape, split.tp)) is not None:
        return reason
    try:
        stage_layers(shape, split.pp, split.first_layers, split.last_layers)
    except ConfigError:
        return f"{shape.layers} layers cannot be divided by PP {split.pp}"
    for mini in (job.round.mini, job.critic.mini if job.critic else job.round.mini):
        if mini % split.dp:
            return f"a mini-batch of {mini} trajectories cannot be divided by DP {split.dp}"
    return None


def _judged(asked: Job, shape: Shape, gpu: Gpu, host: float | None, assumed: Assumptions) -> Choice:
    """One split: with a smaller share of the GPU for vLLM where that makes it fit."""
    job, need = asked, need_of(asked, shape, gpu.memory)
    room = (1 - TIGHT) * gpu.memory
    if _awake(job, need) > room:
        job = _less_for_vllm(job, need, gpu.memory, room)
        need = need_of(job, shape, gpu.memory)
    seconds, reason = None, ""
    if gpu_misfit(job, need, gpu.memory, gpu.name) is not None:
        reason = f"does not fit: {_over(job, need, gpu)}"
    elif host is not None and (told := host_misfit(job, need, host, "a node has")) is not None:
        reason = "does not fit: " + told.partition(";")[0]
    elif need.fullest.total > room:
        left = size_text(gpu.memory - need.fullest.total)
        reason = f"leaves {left} in its {need.fullest.name} phase, less than {TIGHT:.0%} for fragmentation"
    else:
        seconds = seconds_of(job, shape, gpu, need, assumed)
    return Choice(job, need, seconds, reason, less_for_vllm=job is not asked)


def _awake(job: Job, need: Need) -> float:
    """The most while vLLM is awake; 0 where there is none."""
    return max(need.phase(ROLLOUT).total, need.phase(SAVE).total) if job.rollout else 0.0


def _less_for_vllm(job: Job, need: Need, gpu: float, room: float) -> Job:
    """The largest share in steps of a twentieth that leaves room, where vLLM's cache has no size of its own."""
    rollout = job.rollout
    assert rollout is not None
    if rollout.cache is not None:
        return job
    over = _awake(job, need) - room
    share = math.floor((rollout.share - over / gpu) * 20) / 20
    return dataclasses.replace(job, rollout=dataclasses.replace(rollout, share=max(0.05, share)))


def _over(job: Job, need: Need, gpu: Gpu) -> str:
    """In short: the phase that is worst, or the cache."""
    worst = need.fullest
    if worst.total <= gpu.memory and need.cache is not None and job.rollout is not None:
        return f"vLLM's share {job.rollout.share:g} of a GPU leaves no cache for one sequence"
    part = max(worst.parts, key=lambda name: worst.parts[name])
    told = f"its {worst.name} phase needs {size_text(worst.total)} of {size_text(gpu.memory)}"
    return f"{told} ({part} {size_text(worst.parts[part])})"


def _ranked(found: list[Choice]) -> list[Choice]:
    """By seconds, then by less memory: of equals, the one with more room."""
    fitting = [(choice, choice.seconds) for choice in found if choice.seconds is not None]
    fitting.sort(key=lambda pair: (round(pair[1].round, 2), pair[0].need.fullest.total if pair[0].need else 0.0))
    if not fitting:
        return found
    best, time = fitting[0]
    ranked = [best]
    for choice, seconds in fitting[1:]:
        ranked.append(dataclasses.replace(choice, reason=_slower(seconds, time, choice, best)))
    return ranked + [choice for choice in found if choice.seconds is None]


def _slower(seconds: Seconds, best: Seconds, choice: Choice, winner: Choice) -> str:
    """What a slower one loses most by."""
    more = seconds.round - best.round
    if more < 0.005:
        assert choice.need is not None and winner.need is not None
        extra = choice.need.fullest.total - winner.need.fullest.total
        return f"no faster, and {size_text(max(0.0, extra))} more of a GPU"
    parts = {name: seconds.work.get(name, 0.0) - best.work.get(name, 0.0) for name in {*seconds.work, *best.work}}
    parts |= {
        "log-probs": seconds.log_probs - best.log_probs,
        "critic": seconds.critic - best.critic,
        "transfer": seconds.transfer - best.transfer,
        "checkpoints": _saving(seconds) - _saving(best),
    }
    name = max(parts, key=lambda part: parts[part])
    return f"{more:.1f} s slower: {name} {parts[name]:+.1f} s"


def _saving(seconds: Seconds) -> float:
    return seconds.save / seconds.save_every if seconds.save_every else 0.0
