"""Whether a run fits this machine: the planner's sums against its GPUs' and its own memory. No torch."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.config.complete import CRITIC_TOKENS
from medserl.errors import ConfigError
from medserl.planning.cpus import bytes_on_cpus
from medserl.planning.fits import check_fits
from medserl.planning.job import Job, job_of, unplanned
from medserl.planning.memory import GIB, need_of, size_text
from medserl.planning.shapes import Shape, shape_of
from medserl.preflight.nvidia import NoAnswer, cards
from medserl.run.launch import MEMORY_SHARE

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
BASE = 0.75 * GIB
"""What this machine's other programs need, at least."""
_log = logging.getLogger("medserl.run")
_NO_LIMIT = 2**60
"""What the first kind of control group answers where there is no limit is more than this."""


def check_memory(config: DictConfig, model: Mapping[str, Any], where: str, asked: Collection[str] = ()) -> None:
    """Raise where this machine's memory cannot hold the run.

    Looked at where this process brings up its own Ray only: on a cluster, each node looks at itself
    (medserl/preflight/node_checks.py).

    Args:
        config: A configuration of ``load_config`` or ``load_sft_config``.
        model: The model's config.json.
        where: The model's directory.
        asked: Keys that the user set, and that nothing here changes but the tokens of a micro-batch.

    On CPUs, micro-batches may become smaller in ``config``, and workers fewer.

    Raises:
        ConfigError: what needs how much, and what would help.
    """
    if OmegaConf.select(config, "ray_kwargs.ray_init.address") or unplanned(config):
        return
    shape = shape_of(model, where)
    host, limited = host_memory()
    told = "its control group allows" if limited else "this machine has"
    if config.trainer.device != "cuda":
        fit_host_alone(config, shape, host, told, asked)
        return
    job = job_of(config)
    gpu, name = gpu_memory()
    check_fits(job, need_of(job, shape, gpu), gpu, host, (f"{name} has", told))


def fit_host_alone(config: DictConfig, shape: Shape, memory: float, told: str, asked: Collection[str] = ()) -> None:
    """The same for a run on CPUs, whose processes hold everything in the host's memory: where micro-batches of fewer
    tokens fit, or one worker instead of several, it becomes that, and a line says so.

    Raises:
        ConfigError: what it needs, a row at a time.
    """
    room = memory * (1.0 if "engine" in config else MEMORY_SHARE) - BASE
    before = job_of(config).training.tokens
    for changes, job in _ways(config, asked):
        parts = bytes_on_cpus(job, shape)
        if sum(parts.values()) <= room:
            _apply(config, changes)
            if changes:
                _log.warning("one worker trains: %s (%s of memory)", ", ".join(_told(changes)), size_text(memory))
            if job.training.tokens < before:
                _set_tokens(config, job.training.tokens, before, f"{told} {size_text(memory)}")
            return
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    most = ", ".join(f"{part} {size_text(size)}" for part, size in ordered[:4])
    raise ConfigError(
        f"a run on CPUs needs about {size_text(sum(parts.values()))} of memory for {shape.parameters / 1e9:.2f} G "
        f"parameters ({most}), {told} {size_text(memory)}; take a smaller model, shorter prompts "
        "(data.max_prompt_length), or a configuration for GPUs"
    )


ONE_WORKER = {
    "trainer.n_gpus_per_node": 1,
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "ray_kwargs.ray_init.num_gpus": 1,
    "actor_rollout_ref.rollout.dtype": "bfloat16",
    "actor_rollout_ref.actor.megatron.dist_ckpt_optim_fully_reshardable": False,
}
"""What makes a run on CPUs as small as it gets: the embedding once and not in the first and the last stage, one vLLM
instead of two, its weights as wide as they are trained, and no copy of the optimizer when a checkpoint is written."""
_FOLLOW = {
    "trainer.n_gpus_per_node": ["actor_rollout_ref.rollout.n_gpus_per_node"],
    "actor_rollout_ref.rollout.dtype": ["distillation.teacher_models.teacher_model.inference.dtype"],
    **{
        f"actor_rollout_ref.actor.megatron.{key}": [f"{part}.megatron.{key}" for part in parts]
        for key, parts in {
            "tensor_model_parallel_size": ("actor_rollout_ref.ref", "critic"),
            "pipeline_model_parallel_size": ("actor_rollout_ref.ref", "critic"),
            "dist_ckpt_optim_fully_reshardable": ("critic",),
        }.items()
    },
}
"""Keys whose values are taken from others when a configuration is composed."""
ONE_SUPERVISED = {
    "trainer.n_gpus_per_node": 1,
    "engine.tensor_model_parallel_size": 1,
    "engine.pipeline_model_parallel_size": 1,
}


def _ways(config: DictConfig, asked: Collection[str]) -> Iterator[tuple[dict[str, Any], Job]]:
    """What may be tried, with what it changes: micro-batches of fewer and fewer tokens, then one worker, which is for
    want of memory and so takes the fewest."""
    job = job_of(config)
    for tokens in _smaller(config, job):
        yield {}, job.with_training(tokens=tokens)
    if changes := _for_one_worker(config, asked):
        trial = config.copy()
        _apply(trial, changes)
        job = job_of(trial)
        yield changes, job.with_training(tokens=_smaller(trial, job)[-1])


def _for_one_worker(config: DictConfig, asked: Collection[str]) -> dict[str, Any]:
    """What one worker instead of several would change; nothing where the user wants what it changes."""
    supervised, workers = "engine" in config, config.trainer.n_gpus_per_node
    usual = ONE_SUPERVISED if supervised else ONE_WORKER
    wanted = {key: value for key, value in usual.items() if OmegaConf.select(config, key) != value}
    alone = supervised or OmegaConf.select(config, "ray_kwargs.ray_init.num_gpus") in (None, workers)
    possible = workers > 1 and config.trainer.nnodes == 1 and alone and not set(wanted) & set(asked)
    return wanted if possible else {}


def _apply(config: DictConfig, changes: Mapping[str, Any]) -> None:
    """Set keys, and those that follow them."""
    for key, value in changes.items():
        for name in (key, *(() if "engine" in config else _FOLLOW.get(key, ()))):
            OmegaConf.update(config, name, value)


def _told(changes: Mapping[str, Any]) -> list[str]:
    return [f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in changes.items()]


def _smaller(config: DictConfig, job: Job) -> list[int]:
    """Tokens of a micro-batch to try: what the configuration says, then, where it counts tokens, less, down to the
    longest row alone."""
    asked, least = job.training.tokens, job.longest
    dynamic = config.data.use_dynamic_bsz if "engine" in config else config.actor_rollout_ref.actor.use_dynamic_bsz
    if not dynamic or least >= asked:
        return [asked]
    return [asked, *(tokens for tokens in (asked * 3 // 4, asked // 2, asked // 4) if tokens > least), least]


def _set_tokens(config: DictConfig, tokens: int, before: int, told: str) -> None:
    """Micro-batches of fewer tokens, in every pass."""
    if "engine" in config:
        keys, owner = ["data.max_token_len_per_gpu"], config
    else:
        owner = config.actor_rollout_ref
        keys = ["actor.ppo_max_token_len_per_gpu"]
        keys += [f"{part}.log_prob_max_token_len_per_gpu" for part in ("ref", "rollout")]
        if OmegaConf.select(config, CRITIC_TOKENS) is not None:  # load_config sets it where there is a critic
            OmegaConf.update(config, CRITIC_TOKENS, tokens)
    for key in keys:
        OmegaConf.update(owner, key, tokens)
    prefix = "" if "engine" in config else "actor_rollout_ref."
    _log.warning("%s%s is %d instead of %d: %s of memory", prefix, keys[0], tokens, before, told)


def gpu_memory() -> tuple[float | None, str]:
    """Bytes that the fullest of this machine's visible GPUs can give, and its name; None where nobody tells."""
    try:
        shown = [card for card in cards() if card.total]
    except NoAnswer:
        return None, ""
    if not shown:
        return None, ""
    least = min(shown, key=lambda card: card.free)
    busy = "" if least.free == least.total else f", beside {(least.total - least.free) / GIB:.1f} GiB of others,"
    return float(least.free), f"GPU {least.index} ({least.name}){busy}"


def host_memory(proc: Path = PROC, groups: Path = CGROUPS) -> tuple[float, bool]:
    """Bytes of this machine's memory, or of what its control group leaves, and whether that is less.

    Args:
        proc: Where the kernel tells.
        groups: Where it tells of control groups, of either kind.
    """
    fields = dict(line.split(":", 1) for line in (proc / "meminfo").read_text(encoding="ascii").splitlines())
    total = float(fields["MemTotal"].split()[0]) * 1024
    limit = min(_limits(proc, groups), default=total)
    return (limit, True) if limit < total else (total, False)


def _limits(proc: Path, groups: Path) -> list[float]:
    """Every limit on the way from this process's control group up to the root."""
    found = []
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        root, name = (groups / "memory", "memory.limit_in_bytes") if kinds else (groups, "memory.max")
        folder = root / path.strip().lstrip("/")
        for place in (folder, *folder.parents):
            if place == groups.parent:
                break
            try:
                text = (place / name).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if text.isdigit() and int(text) < _NO_LIMIT:
                found.append(float(text))
    return found
