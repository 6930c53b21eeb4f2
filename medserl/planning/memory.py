"""Bytes of each GPU, phase by phase, and of each host, from shapes alone. No torch.

Bytes per parameter (distributed optimizer, bf16): weights 2, gradients 4 (float32 accumulation), and 12 for the float32
master copy and Adam's two moments, shared between data-parallel ranks. Activations with full recomputation keep one
hidden state per layer and token; without it, 34 bytes per token, layer and hidden element (Korthikanti et al. 2022,
"Reducing Activation Recomputation", equation 2 without the attention's part, which flash attention does not keep).
An estimate to refuse the hopeless with, not a promise: nothing of it was measured on a GPU, and fragmentation comes on
top. What is exact in it, and what is assumed, `MARKS` says for each part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medserl.planning.job import Job, Rollout, Served, Training
from medserl.planning.shapes import Shape

GIB = 2**30
EXACT, ASSUMED, MEASURED = "exact", "assumed", "measured"
WORLD = 12  # bytes per parameter of a checkpoint's optimizer: master copy and two moments, float32
MASTER = 4
"""Bytes per parameter of that before the first optimizer step, which makes the moments."""
# A CUDA context each for the trainer and vLLM, NCCL's buffers, workspaces of cuBLAS and cuDNN.
CONTEXTS = 3.0 * GIB
# vLLM's CUDA graphs: not in its share of the GPU (its new model runner counts them as 0), and sleep does not free them.
GRAPHS = 1.5 * GIB
PROCESSES = 0.8 * GIB
"""Host memory of one process of Ray, verl or vLLM, the greatest seen on CPUs (0.4 to 0.8)."""
MARKS = {
    "weights": EXACT,
    "gradients": EXACT,
    "optimizer": EXACT,
    "reference": EXACT,
    "critic": EXACT,
    "activations": ASSUMED,
    "logits": ASSUMED,
    "vLLM weights": EXACT,
    "vLLM workspace": ASSUMED,
    "KV cache": ASSUMED,
    "CUDA graphs": ASSUMED,
    "buckets": ASSUMED,
    "contexts": ASSUMED,
}
"""How each part is known: computed from the shape and compared with the real thing in tests, or assumed."""
PARTS = tuple(MARKS)
LOG_PROBS, UPDATE, TRANSFER, ROLLOUT, SAVE, LOAD = "log-probs", "update", "transfer", "rollout", "save", "load"
CRITIC = "critic"
"""The critic's update; its values need less."""
FROZEN = "frozen model"
"""Not a phase of the training's GPUs: what fills those of a model that verl serves beside it."""


@dataclass(frozen=True)
class Phase:
    """What the fullest GPU holds in one phase of a round."""

    name: str
    parts: Mapping[str, float]
    """Bytes by ``PARTS``; what is left out is 0."""
    stage: int = 0
    """The pipeline's stage of that GPU."""

    @property
    def total(self) -> float:
        """Bytes."""
        return sum(self.parts.values())

    def told(self) -> str:
        """Its parts in words, the greatest first."""
        ordered = sorted(self.parts.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {size_text(size)}" for name, size in ordered if size >= GIB / 10)


@dataclass(frozen=True)
class Host:
    """Bytes of one node's memory while a checkpoint is written and read, and of the checkpoint on disk."""

    always: float
    """What lives there all along: offloaded weights, Adam's part."""
    saving: float
    loading: float
    processes: float
    checkpoint: float
    """On disk."""

    @property
    def peak(self) -> float:
        """The most at any time, processes included."""
        return max(self.saving, self.loading) + self.processes


@dataclass(frozen=True)
class Cache:
    """vLLM's KV cache on one GPU."""

    size: float
    """Bytes; negative where weights and workspace leave nothing."""
    tokens: int
    """That fit into it."""
    needed: float
    """Bytes of one sequence of ``max_model_len``."""
    beside: float
    """Bytes of vLLM's weights and workspace."""


@dataclass(frozen=True)
class Need:
    """All of it."""

    phases: Sequence[Phase] = field(default_factory=list)
    host: Host = field(default_factory=lambda: Host(0, 0, 0, 0, 0))
    cache: Cache | None = None
    """None for supervised fine-tuning, and where a GPU's memory is not known and vLLM takes a share of it."""

    def phase(self, name: str) -> Phase:
        """One of them."""
        return next(phase for phase in self.phases if phase.name == name)

    @property
    def fullest(self) -> Phase:
        """The phase that needs the most of a GPU."""
        return max(self.phases, key=lambda phase: phase.total)


def need_of(job: Job, shape: Shape, gpu: float | None) -> Need:
    """What a job needs of its fullest GPU and of a host.

    Args:
        job: The job.
        shape: The model that trains.
        gpu: A GPU's bytes; None where they are not known: then the share that vLLM takes is not either, and the
            phases in which it is awake are left out.
    """
    layers = job.training.layers(shape)
    stages = [_phases(job, shape, stage, layers, gpu) for stage in range(len(layers))]
    names = [phase.name for phase in stages[0]]
    phases = [max((stage[at] for stage in stages), key=lambda phase: phase.total) for at in range(len(names))]
    if job.served is not None and (alone := _alone(job.served, shape, gpu)) is not None:
        phases.append(alone)
    cache = _cache(job.rollout, shape, gpu) if job.rollout else None
    return Need(phases, _host(job, shape, layers), cache)


def stage_bytes(training: Training, share: float) -> dict[str, float]:
    """Weights, gradients, optimizer and reference of a stage with ``share`` parameters, all of them on the GPU."""
    on_gpu = (WORLD if training.updates else MASTER) * (1 - training.cpu_adam)
    if training.cpu_adam and not training.precision_aware:
        on_gpu += 4 * training.cpu_adam
    return {
        "weights": 2.0 * share,
        "gradients": 4.0 * share,
        "optimizer": on_gpu * share / training.dp,
        "reference": 2.0 * share if training.reference else 0.0,
    }


def critic_bytes(training: Training, share: float) -> dict[str, float]:
    """Of a critic's stage with ``share`` parameters; rounds before the policy's first update train it too."""
    return stage_bytes(dataclasses.replace(training, reference=False, updates=True), share)


def _phases(job: Job, shape: Shape, stage: int, layers: Sequence[int], gpu: float | None) -> list[Phase]:
    """The phases of a round on a GPU of one stage (verl 0.9.1, workers/engine/base.py and engine_workers.py)."""
    training, rollout = job.training, job.rollout
    model = stage_bytes(training, shape.stage(training.tp, layers, stage))
    last = stage == len(layers) - 1
    logits = 4.0 * training.tokens * shape.vocab / training.tp if last else 0.0
    always = {"contexts": CONTEXTS if rollout else CONTEXTS / 2}
    if rollout and not rollout.eager:
        always["CUDA graphs"] = GRAPHS
    if rollout and not rollout.sleeps:
        always |= _awake(rollout, shape, gpu)
    resident = dict(model)
    if training.param_offload:
        resident |= {"weights": 0.0, "gradients": 0.0}
    if training.optimizer_offload:
        resident["optimizer"] = 0.0
    if training.reference_offload:
        resident["reference"] = 0.0
    critic = _critic(job, shape, stage, layers)
    if critic:
        resident["critic"] = _resting(training, critic)
    weights = {"weights": model["weights"]}
    loaded = weights | {"gradients": model["gradients"]}
    kept = _activations(training, shape, layers, stage)
    found = []
    if rollout:
        passing = {"activations": _one_layer(training, shape)}
        old = resident | weights | passing | {"logits": training.entropy_copies * logits}
        reference = resident | {"reference": model["reference"]} | passing | {"logits": 2.5 * logits}
        found.append(
            max((Phase(LOG_PROBS, parts | always, stage) for parts in (old, reference)), key=lambda p: p.total)
        )
    if critic:
        found.append(Phase(CRITIC, resident | {"critic": sum(critic.values()), "activations": kept} | always, stage))
    update = resident | loaded | {"optimizer": model["optimizer"]}
    if training.updates:
        update |= {"activations": kept, "logits": training.update_copies * logits}
    found.append(Phase(UPDATE, update | always, stage))
    if rollout:
        served = {"vLLM weights": _served_weights(rollout, shape)}
        largest = 2.0 * shape.embedding
        moving = {"buckets": rollout.bucket + largest}
        found.append(Phase(TRANSFER, resident | weights | served | moving | always, stage))
        if awake := _awake(rollout, shape, gpu):
            found.append(Phase(ROLLOUT, resident | awake | always, stage))
            # medserl saves after the new weights have gone to vLLM, which is awake then (training/api.py).
            found.append(Phase(SAVE, resident | (loaded if training.param_offload else {}) | awake | always, stage))
    else:
        found.append(Phase(SAVE, resident | loaded | always, stage))
    found.append(Phase(LOAD, resident | loaded | {"optimizer": model["optimizer"]} | always, stage))
    return found


def _awake(rollout: Rollout, shape: Shape, gpu: float | None) -> dict[str, float]:
    """What vLLM holds while it generates; nothing where that is not known."""
    if (cache := _cache(rollout, shape, gpu)) is None:
        return {}
    parts = {"vLLM weights": _served_weights(rollout, shape), "vLLM workspace": _workspace(rollout, shape)}
    return parts | {"KV cache": max(0.0, cache.size)}


def _critic(job: Job, shape: Shape, stage: int, layers: Sequence[int]) -> dict[str, float]:
    """Bytes of the critic's part in a stage by kind; empty where there is no critic."""
    if job.critic is None:
        return {}
    return critic_bytes(job.training, shape.critic_stage(job.training.tp, layers, stage))


def _resting(training: Training, critic: Mapping[str, float]) -> float:
    """What stays of it on the GPU while others compute; it is moved to the host where the policy is."""
    weights = 0.0 if training.param_offload else critic["weights"] + critic["gradients"]
    return weights + (0.0 if training.optimizer_offload else critic["optimizer"])


def _alone(served: Served, trained: Shape, gpu: float | None) -> Phase | None:
    """A frozen model on GPUs of its own; taken to be like the trained one where its directory is not seen."""
    shape = served.shape or trained
    cache = _cache(served.rollout, shape, gpu)
    if cache is None:
        return None
    parts = {
        "vLLM weights": _served_weights(served.rollout, shape),
        "vLLM workspace": _workspace(served.rollout, shape),
        "KV cache": max(cache.size, cache.needed),
        "CUDA graphs": 0.0 if served.rollout.eager else GRAPHS,
        "contexts": CONTEXTS / 2,
    }
    return Phase(FROZEN, parts)


def _one_layer(training: Training, shape: Shape) -> float:
    """Activations inside one layer, no attention matrix: all that a pass without gradients holds."""
    per_element = 34 / training.tp if training.sequence_parallel or training.tp == 1 else 10 + 24 / training.tp
    return per_element * training.tokens * shape.hidden


def _activations(training: Training, shape: Shape, layers: Sequence[int], stage: int) -> float:
    """Kept for the backward pass, of as many micro-batches as a pipeline's stage has begun at once (1F1B)."""
    under_way = len(layers) - stage
    one = _one_layer(training, shape)
    if not training.recomputes:
        return one * layers[stage] * under_way
    split = training.tp if training.sequence_parallel else 1
    return 2.0 * training.tokens * shape.hidden / split * layers[stage] * under_way + one


def _served_weights(rollout: Rollout, shape: Shape) -> float:
    """vLLM's own copy: divided by its TP, norms and all, which are a ten-thousandth."""
    return (4.0 if rollout.full_precision else 2.0) * shape.parameters / rollout.tp


def _workspace(rollout: Rollout, shape: Shape) -> float:
    """vLLM's activations of one step, which its profiling run takes off the cache: the MLP of all batched tokens, and
    float32 logits of all sequences, three times over while they are sampled."""
    mlp = 2.0 * rollout.max_batched * (3 * shape.intermediate / rollout.tp + 2 * shape.hidden)
    return mlp + 3 * 4.0 * rollout.max_num_seqs * shape.vocab


def _cache(rollout: Rollout, shape: Shape, gpu: float | None) -> Cache | None:
    token = shape.cache(rollout.tp) * (2 if rollout.full_precision else 1)
    beside = _served_weights(rollout, shape) + _workspace(rollout, shape)
    if rollout.cache is not None:
        size = float(rollout.cache)
    elif gpu is None:
        return None
    else:
        size = rollout.share * gpu - beside
    return Cache(size, max(0, int(size // token)), float(token * rollout.max_model_len), beside)


def _host(job: Job, shape: Shape, layers: Sequence[int]) -> Host:
    """Host bytes of a node (megatron-core 0.16.1: distrib_optimizer.py, filesystem_async.py; verl 0.9.1).

    Every rank has its own part of the optimizer's state there to be written. In the reshardable form, the first
    data-parallel rank of each share gathers all of that share, and clones it for the writer; at a load, each rank does.
    """
    training = job.training
    ranks = training.gpus_per_node
    share = max(shape.stage(training.tp, layers, stage) for stage in range(len(layers)))
    own = WORLD * share / training.dp
    # What lives on the host all along: Adam's share of it with copies of its gradients, weights that were moved there.
    adam = ranks * training.cpu_adam * (own + 4.0 * share / training.dp)
    adam += ranks * own * (1 - training.cpu_adam) * training.optimizer_offload
    moved = ranks * 2.0 * share * training.param_offload
    # A critic is saved and loaded after the policy, so that only what lives there adds up; it is as large, nearly.
    always = (adam + moved) * (1 if job.critic is None else 2)
    always += ranks * 2.0 * share * (training.reference and training.reference_offload)
    saving = loading = always + ranks * own
    if training.reshardable:
        gathering = min(ranks, training.tp * training.pp)
        saving, loading = saving + gathering * 2.0 * WORLD * share, always + ranks * 2.0 * WORLD * share
    processes = PROCESSES * (ranks * (3 if job.rollout else 1) + job.round.workers + 2)
    return Host(always, saving, loading, processes, checkpoint_bytes(shape, job.critic is not None))


def checkpoint_bytes(shape: Shape, critic: bool = False) -> float:
    """One checkpoint on disk, a critic's part included: weights in bf16 and the optimizer's state; tokenizer and random
    states are next to nothing."""
    return (2.0 + WORLD) * (shape.parameters + (shape.critic if critic else 0))


def size_text(size: float) -> str:
    """Bytes for people."""
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"
