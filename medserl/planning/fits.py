"""The refusal of what cannot fit, in one sentence; `medserl plan`, `slurm`, `doctor` and `train` all ask here."""

from __future__ import annotations

from medserl.errors import ConfigError
from medserl.planning.job import Job, Rollout
from medserl.planning.memory import (
    CRITIC,
    FROZEN,
    GIB,
    LOG_PROBS,
    ROLLOUT,
    SAVE,
    TRANSFER,
    UPDATE,
    Cache,
    Need,
    Phase,
    size_text,
)
from medserl.planning.shapes import Shape
from medserl.words import counted

TIGHT = 0.05
"""Share of a GPU that should stay free: PyTorch's allocator fragments. Less is no refusal, but said."""
_SHARE = "actor_rollout_ref.rollout.gpu_memory_utilization"
_NAMES = {
    LOG_PROBS: "pass of log-probs",
    CRITIC: "update of the critic",
    TRANSFER: "transfer of weights",
    FROZEN: "frozen model beside the training",
}
_REMEDY = {
    UPDATE: "raise TP or PP, lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu, or take more or larger GPUs",
    ROLLOUT: f"lower {_SHARE}, or set actor_rollout_ref.actor.megatron.param_offload and optimizer_offload",
}
_REMEDY[SAVE] = f"lower {_SHARE}"
_REMEDY[TRANSFER] = "lower actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes"
_REMEDY[FROZEN] = "raise medserl.referee.options.tensor_parallel_size, or serve it yourself (url)"
_CACHE_KEY = "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes"
_RESIDENT = (
    "raise TP, PP or actor_rollout_ref.rollout.tensor_model_parallel_size, set "
    "actor_rollout_ref.actor.megatron.param_offload and optimizer_offload, or take more or larger GPUs"
)
_SUPERVISED = "raise engine.tensor_model_parallel_size, or lower data.micro_batch_size_per_gpu"


def gpu_misfit(job: Job, need: Need, gpu: float, whose: str) -> str | None:
    """Why the job does not fit its GPUs; None where it does.

    Args:
        job: The job.
        need: What it needs, ``need_of``.
        gpu: Bytes of a GPU.
        whose: Who says so, for the sentence.
    """
    cache, rollout = need.cache, job.rollout
    if cache is not None and rollout is not None and cache.size < cache.needed:
        return _no_cache(rollout, cache, gpu)
    for phase in sorted(need.phases, key=lambda phase: phase.name != UPDATE):  # the update is what most ask about
        if phase.total > gpu:
            return _too_much(job, phase, gpu, whose)
    return None


def _no_cache(rollout: Rollout, cache: Cache, gpu: float) -> str:
    """vLLM's share is too small, or what else it holds too large even for the whole GPU."""
    needed = (
        f"one sequence of actor_rollout_ref.rollout.max_model_len {rollout.max_model_len} needs "
        f"{size_text(cache.needed)}"
    )
    if rollout.cache is not None:
        return f"a rollout's KV cache has {size_text(cache.size)} of each GPU ({_CACHE_KEY}), {needed}; raise it"
    if cache.beside + cache.needed <= gpu:
        return (
            f"a rollout's KV cache has {size_text(max(0.0, cache.size))} of each GPU, {needed}; raise "
            f"{_SHARE} or its tensor_model_parallel_size"
        )
    by = "tensor_model_parallel_size, or lower its max_num_seqs and max_num_batched_tokens"
    return (
        f"a rollout's weights and workspace take {size_text(cache.beside)} of each GPU of {size_text(gpu)}, and "
        f"{needed} besides; raise actor_rollout_ref.rollout.{by}, or take larger GPUs"
    )


def _too_much(job: Job, phase: Phase, gpu: float, whose: str) -> str:
    remedy = _remedy(job, phase, phase.total - gpu)
    article = "an" if phase.name in (UPDATE, CRITIC) else "a"
    name = _NAMES.get(phase.name, phase.name)
    return (
        f"{article} {name} needs about {size_text(phase.total)} of each GPU ({phase.told()}), {whose} "
        f"{gpu / GIB:.4g} GiB; {remedy}"
    )


def _remedy(job: Job, phase: Phase, over: float) -> str:
    """What would help: a smaller share or buffer does where it is at least as large as what is too much."""
    if job.rollout is None:
        return _SUPERVISED
    awake = sum(phase.parts.get(part, 0.0) for part in ("vLLM weights", "vLLM workspace", "KV cache"))
    if not job.rollout.sleeps and phase.name not in (ROLLOUT, SAVE, FROZEN) and awake > over:
        smaller = _SHARE if job.rollout.cache is None else _CACHE_KEY
        return f"set actor_rollout_ref.rollout.free_cache_engine=true, or lower {smaller}, which vLLM holds here too"
    if phase.name == TRANSFER and phase.parts["buckets"] <= over:
        return _RESIDENT
    if phase.name in (ROLLOUT, SAVE) and phase.parts["KV cache"] <= over:
        return _RESIDENT
    if phase.name in (ROLLOUT, SAVE) and job.rollout.cache is not None:
        return f"lower {_CACHE_KEY}"
    return _REMEDY.get(phase.name, _REMEDY[UPDATE])


def host_misfit(job: Job, need: Need, memory: float, whose: str) -> str | None:
    """Why the job does not fit a host's memory; None where it does."""
    host = need.host
    if host.peak <= memory:
        return None
    what = "saving" if host.saving >= host.loading else "loading"
    remedy = "ask for more memory or more nodes"
    if job.training.reshardable and job.rollout:
        remedy = (
            "set actor_rollout_ref.actor.megatron.dist_ckpt_optim_fully_reshardable=false, whose checkpoints load in "
            "their own layout only, or ask for more memory"
        )
    return (
        f"{what} a checkpoint takes about {size_text(host.peak)} of each node's memory ({size_text(host.processes)} of "
        f"it processes), {whose} {size_text(memory)}; {remedy}"
    )


def check_served(job: Job, gpus_per_node: int | None) -> None:
    """Raise where a frozen model has no GPUs beside those of the training.

    Args:
        job: The job.
        gpus_per_node: What a node has; None for as many as are needed.

    Raises:
        ConfigError: how many it needs, how many are left, and what would help.
    """
    beside = job.served.gpus if job.served else 0
    if gpus_per_node is None or not beside:
        return
    left = gpus_per_node - job.training.gpus_per_node
    if beside > left:
        raise ConfigError(
            f"medserl.referee, medserl.frozen_injector: the frozen model that verl serves needs "
            f"{counted(beside, 'GPU')} in addition to the training's, on one node, where {max(0, left)} are left; "
            f"{_leave(job, gpus_per_node - beside)} or serve it yourself (url)"
        )


def _leave(job: Job, most: int) -> str:
    """The most GPUs of a node that the training can be split over, no more than ``most``."""
    split = job.training
    for gpus in range(most, 0, -1):
        replicas, rest = divmod(split.nodes * gpus, split.tp * split.pp)
        if not rest and job.round.mini % replicas == 0:
            return f"set trainer.n_gpus_per_node={gpus}"
    return "take nodes with more GPUs"


def check_context(job: Job, shape: Shape) -> None:
    """What a game may take must fit the model's context; vLLM would refuse it after minutes.

    Raises:
        ConfigError: both lengths.
    """
    length = job.rollout.max_model_len if job.rollout else job.longest
    key = "actor_rollout_ref.rollout.max_model_len" if job.rollout else "data.max_length"
    if shape.context is not None and length > shape.context:
        third = shape.context // 3
        fitting = f"data.max_prompt_length={shape.context - third} data.max_response_length={third}"
        raise ConfigError(
            f"{key}: {length} (data.max_prompt_length + data.max_response_length, where it is not set) is more than "
            f"the model's max_position_embeddings {shape.context}; give "
            + (fitting if job.rollout else f"data.max_length={shape.context}")
        )


def check_fits(job: Job, need: Need, gpu: float | None, host: float | None, whose: tuple[str, str]) -> None:
    """Raise where the job cannot fit.

    Args:
        job: The job.
        need: What it needs.
        gpu: Bytes of a GPU; None where they are not known.
        host: Bytes of a node's memory; None where they are not known.
        whose: Who says so, of the GPU and of the host, for the sentence.

    Raises:
        ConfigError: which phase needs how much, and what would help.
    """
    reason = gpu_misfit(job, need, gpu, whose[0]) if gpu is not None else None
    if reason is None and host is not None:
        reason = host_misfit(job, need, host, whose[1])
    if reason is not None:
        raise ConfigError(reason)
