"""Seconds of each phase of a round, from shapes, data sheets and named assumptions. No torch.

Time is work over speed, summed: nothing overlaps but what says so. A forward pass takes 2 FLOP per token and element of
a matrix, a backward pass twice that, recomputation one forward pass of the layers more; attention takes
4 x heads x head x length / 2 per token and layer, as half of a causal square is empty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from medserl.planning.assumptions import Assumptions
from medserl.planning.gpus import Gpu
from medserl.planning.job import Job, Training
from medserl.planning.memory import WORLD, Need
from medserl.planning.shapes import Shape

LAYER_REDUCES = 2
"""All-reduces of one layer's forward pass over its tensor-parallel ranks, or as much in gathers and scatters."""


@dataclass(frozen=True)
class Seconds:
    """Of one round, by phase."""

    rollout: float
    log_probs: float
    update: float
    transfer: float
    save: float
    """Of one checkpoint; a round takes its share of it (trainer.save_freq)."""
    save_every: int
    critic: float = 0.0
    """Values of all trajectories and the critic's update; 0 where there is none."""
    work: dict[str, float] = field(default_factory=dict)
    """What the training's phases consist of: matrices, tensor-parallel sums, pipeline, gradients, optimizer."""
    trajectories: float = 0.0
    tokens: float = 0.0
    """Of all trajectories, prompts included."""
    written: float = 0.0
    """Tokens that vLLM writes."""
    mfu: float = 0.0
    """Share of peak FLOP/s in the update, without what is recomputed."""

    @property
    def round(self) -> float:
        """All phases, a share of a checkpoint included."""
        saving = self.save / self.save_every if self.save_every else 0.0
        return self.rollout + self.log_probs + self.critic + self.update + self.transfer + saving


def trajectories(job: Job, assumed: Assumptions) -> float:
    """Replies of a round: attempts at an edit, an assessment of each accepted one, one of each labelled note."""
    accepted = 1 - (1 - assumed.acceptance) ** job.round.attempts
    attempts = accepted / assumed.acceptance  # the sum of a geometric series: one more after each refusal
    return job.round.fresh * (attempts + accepted) + job.round.labelled


def seconds_of(job: Job, shape: Shape, gpu: Gpu, need: Need, assumed: Assumptions) -> Seconds:
    """The time of a round.

    Args:
        job: The job.
        shape: The model that trains.
        gpu: The kind of GPU.
        need: What it needs: room for vLLM's cache.
        assumed: Everything else.
    """
    training, work = job.training, job.round
    prompt, response = assumed.prompt * work.prompt, assumed.response * work.response
    length = prompt + response
    count = trajectories(job, assumed)
    steps = max(1.0, math.ceil(count / work.mini)) * work.epochs if job.rollout else 1.0
    per_gpu = count * length / training.dp
    forward, sums = _forward(training, shape, gpu, per_gpu, length, assumed)
    again = 1 if training.recomputes else 0
    logits = _logits(training, shape, gpu, per_gpu, assumed)
    waiting = _waiting(training, shape, (3 + again) * forward, 3 * logits)
    passes = 1 + (1 if training.reference else 0)
    micro = _micro_batches(training, count * work.epochs / steps, length)
    pipeline = 1 + (training.pp - 1) / micro
    launches = assumed.launch * max(training.layers(shape))
    parts = {
        "matrices": work.epochs * ((3 + again) * forward + waiting),
        "tensor-parallel sums": work.epochs * (2 + again) * sums,
        "micro-batches": steps * micro * ((3 + again) * launches + _accumulation(training, shape, gpu, assumed)),
        "gradients": steps * _gradients(training, shape, gpu, assumed),
        "optimizer": steps * _optimizer(training, shape, gpu, assumed),
    }
    parts["pipeline's bubble"] = (parts["matrices"] + parts["tensor-parallel sums"]) * (pipeline - 1)
    offloaded = _offloads(training, shape, gpu, assumed)
    if offloaded:
        parts["offload"] = offloaded
    update = sum(parts.values())
    body = forward + sums + _micro_batches(training, count, length) * launches
    one = body + _waiting(training, shape, forward, logits)
    values = body * pipeline
    log_probs = passes * one * pipeline if job.rollout else 0.0
    peak = gpu.flops * training.world
    useful = 6.0 * work.epochs * count * length * (shape.layers * shape.matrices + shape.embedding)
    return Seconds(
        rollout=_rollout(job, shape, gpu, need, count, assumed) if job.rollout else 0.0,
        log_probs=log_probs,
        critic=values + _critic(job, parts, work.epochs * waiting, steps, count) if job.critic else 0.0,
        update=update,
        transfer=_transfer(job, shape, gpu, assumed) if job.rollout else 0.0,
        save=_save(job, shape, need, assumed),
        save_every=work.save_every,
        work=parts,
        trajectories=count,
        tokens=count * length,
        written=count * response,
        mfu=useful / (update * peak),
    )


def _micro_batches(training: Training, rows: float, length: float) -> int:
    """Of a replica, for so many trajectories of all replicas: filled with as many tokens as one holds, or counted in
    rows."""
    own = rows / training.dp
    return math.ceil(max(1.0, own / training.rows if training.rows else own * length / training.tokens))


def _critic(job: Job, parts: dict[str, float], logits: float, steps: float, count: float) -> float:
    """The critic's update by that of the policy, whose work it is but for the logits; by its own epochs and steps."""
    assert job.critic is not None
    each_epoch = ("matrices", "tensor-parallel sums", "pipeline's bubble", "micro-batches")
    bubble = parts["pipeline's bubble"] / (parts["matrices"] + parts["tensor-parallel sums"])
    passes = sum(parts[name] for name in each_epoch) - logits * (1 + bubble)
    own = max(1.0, math.ceil(count / job.critic.mini)) * job.critic.epochs
    rest = parts["gradients"] + parts["optimizer"] + parts.get("offload", 0.0) * steps / own
    return passes * job.critic.epochs / job.round.epochs + rest * own / steps


def _forward(
    training: Training, shape: Shape, gpu: Gpu, tokens: float, length: float, assumed: Assumptions
) -> tuple[float, float]:
    """Seconds of a replica's layers for ``tokens`` on each of its GPUs, and of the sums between tensor ranks; where a
    pipeline's stages are of unequal length, of the longest."""
    attention = 2.0 * shape.heads * shape.head * length
    layers = max(training.layers(shape))
    flops = tokens * layers * (2.0 * shape.matrices + attention) / training.tp
    volume = LAYER_REDUCES * 2.0 * tokens * shape.hidden * 2 * (training.tp - 1) / training.tp
    link = gpu.link * assumed.link if training.tp <= training.gpus_per_node else assumed.network
    return flops / (gpu.flops * assumed.mfu), volume * layers / link


def _logits(training: Training, shape: Shape, gpu: Gpu, tokens: float, assumed: Assumptions) -> float:
    """The output layer, which the last stage has alone."""
    return 2.0 * tokens * shape.embedding / training.tp / (gpu.flops * assumed.mfu)


def _waiting(training: Training, shape: Shape, longest: float, logits: float) -> float:
    """What the last stage takes for the logits beyond the longest stage's time, ``longest``: all others wait for it."""
    layers = training.layers(shape)
    return max(0.0, logits - longest * (max(layers) - layers[-1]) / max(layers))


def _share(training: Training, shape: Shape) -> int:
    layers = training.layers(shape)
    return max(shape.stage(training.tp, layers, stage) for stage in range(len(layers)))


def _accumulation(training: Training, shape: Shape, gpu: Gpu, assumed: Assumptions) -> float:
    """Each micro-batch reads and writes the float32 gradients of its stage once."""
    return 8.0 * _share(training, shape) / (gpu.bandwidth * assumed.bandwidth)


def _gradients(training: Training, shape: Shape, gpu: Gpu, assumed: Assumptions) -> float:
    """Scatter of float32 gradients and gather of bf16 weights between replicas, for each optimizer step."""
    if training.dp == 1:
        return 0.0
    volume = (4.0 + 2.0) * _share(training, shape) * (training.dp - 1) / training.dp
    inside = training.world <= training.gpus_per_node
    return volume / (gpu.link * assumed.link if inside else min(assumed.network, gpu.link * assumed.link))


def _optimizer(training: Training, shape: Shape, gpu: Gpu, assumed: Assumptions) -> float:
    """Adam reads and writes 28 bytes a parameter: gradient, master copy and moments, and the bf16 weight."""
    own = _share(training, shape) / training.dp
    on_gpu = 28.0 * own * (1 - training.cpu_adam) / (gpu.bandwidth * assumed.bandwidth)
    on_host = 28.0 * own * training.cpu_adam * training.gpus_per_node / assumed.host_adam
    copies = (4.0 + 4.0) * own * training.cpu_adam / (gpu.host * assumed.link)
    return on_gpu + on_host + copies


def _offloads(training: Training, shape: Shape, gpu: Gpu, assumed: Assumptions) -> float:
    """Copies from the host and back: weights for the old log-probs, the update and the transfer, the reference's for
    its pass, the optimizer for the update."""
    share = _share(training, shape)
    volume = 2.0 * share * 2 * 3 if training.param_offload else 0.0
    if training.reference and training.reference_offload:
        volume += 2.0 * share * 2
    if training.optimizer_offload:
        volume += WORLD * (1 - training.cpu_adam) * share / training.dp * 2
    return volume / (gpu.host * assumed.link)


def _rollout(job: Job, shape: Shape, gpu: Gpu, need: Need, count: float, assumed: Assumptions) -> float:
    """Games of one engine side by side: an attempt, perhaps more, then the assessment, one after the other. More
    engines than games do not make a round shorter.

    A turn's replies are written together for the mean length, and ``assumed.tail`` of them on to the longest.
    """
    rollout, work = job.rollout, job.round
    assert rollout is not None
    engines = min(job.training.world // rollout.tp, work.fresh + work.labelled)  # others have no game to play
    prompt, response = assumed.prompt * work.prompt, assumed.response * work.response
    games = (work.fresh + work.labelled) / engines
    room = need.cache.tokens / (prompt + response) if need.cache else math.inf
    together = max(1.0, min(games, rollout.max_num_seqs, room))
    turns = count / engines / together
    mean = _step(job, shape, gpu, together, prompt + response / 2, assumed)
    late = _step(job, shape, gpu, max(1.0, assumed.tail * together), prompt + response, assumed)
    decode = turns * (response * mean + (work.response - response) * late + assumed.turn)
    flops = 2.0 * prompt * count / engines * shape.layers * shape.matrices / rollout.tp
    return decode + flops / (gpu.flops * assumed.mfu)


def _step(job: Job, shape: Shape, gpu: Gpu, together: float, length: float, assumed: Assumptions) -> float:
    """One token of each of ``together`` sequences: the weights and their caches are read once."""
    rollout = job.rollout
    assert rollout is not None
    reads = 2.0 * (shape.layers * shape.matrices + shape.embedding) / rollout.tp
    reads += together * length * shape.cache(rollout.tp)
    flops = 2.0 * together * (shape.layers * shape.matrices + shape.embedding) / rollout.tp
    computed = max(reads / (gpu.bandwidth * assumed.bandwidth), flops / (gpu.flops * assumed.mfu))
    summed = 0.0
    if rollout.tp > 1:  # small messages: the latency of some 10 us counts, not their bytes
        summed = LAYER_REDUCES * shape.layers * 1e-5
    return computed + summed + (assumed.eager_step if rollout.eager else assumed.step)


def _transfer(job: Job, shape: Shape, gpu: Gpu, assumed: Assumptions) -> float:
    """Every GPU gathers the whole model from the other ranks of its replica, tensor by tensor, and hands it to vLLM's
    process, which copies its part."""
    training = job.training
    size = 2.0 * shape.parameters
    from_stages = size * (training.pp - 1) / training.pp
    inside = training.tp * training.pp <= training.gpus_per_node
    between = from_stages / (gpu.link * assumed.link if inside else assumed.network)
    gathered = size * (training.tp - 1) / training.tp / (gpu.link * assumed.link)
    copies = 3 * size / (gpu.bandwidth * assumed.bandwidth)
    return between + gathered + copies + assumed.switch


def _save(job: Job, shape: Shape, need: Need, assumed: Assumptions) -> float:
    """The critic, as large as the policy, is saved after it."""
    training, models = job.training, 2 if job.critic else 1
    gathers = training.reshardable and training.dp > 1
    gathered = models * WORLD * _share(training, shape) / assumed.gloo if gathers else 0.0
    return gathered + need.host.checkpoint / assumed.disk
