"""The arithmetic of a job, and the refusal of what cannot work. No torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.errors import ConfigError
from medserl.report.terminal import Table
from medserl.slurm.memory import GIB, Estimate, estimate

CPUS_PER_WORKER = 3
"""Logical CPUs that verl's placement bundles ask Ray for with each GPU (verl 0.9.1, RayResourcePool)."""

"""Keys that the arithmetic divides by, or multiplies."""


@dataclass(frozen=True)
class Shape:
    """What the job has."""

    nodes: int
    gpus_per_node: int
    cpus_per_node: int
    time_limit: int | None = None
    """Seconds."""
    lead: int = 0
    """Seconds before the limit at which the job is told to save."""
    gpu_memory_gb: float | None = None
    binds: tuple[str, ...] = ()
    """SOURCE:TARGET pairs of a container; paths of the arguments are those inside."""
    in_container: bool = False


@dataclass
class Plan:
    """Lines for people, and what every node must have for this job."""

    lines: list[str] = field(default_factory=list)
    device: str = "cuda"
    model: str | None = None
    files: list[str] = field(default_factory=list)
    checkpoint_bytes: float = 0.0
    cpus: int = 0
    """Logical CPUs that Ray is told of on each node; 0 where there is no Ray."""

    def add(self, name: str, text: str) -> None:
        """One line of the plan."""
        self.lines.append(f"{name:<10} {text}")

    def table(self) -> Table:
        """The lines, for a terminal."""
        rows = [[name, text.lstrip()] for name, _, text in (line.partition(" ") for line in self.lines)]
        return Table((), rows, "\n".join(self.lines))

    def to_json(self) -> str:
        """For the nodes' preflight."""
        return json.dumps(
            {
                "device": self.device,
                "model": self.model,
                "files": self.files,
                "checkpoint_bytes": self.checkpoint_bytes,
                "cpus": self.cpus,
            }
        )


def plan_training(config: DictConfig, shape: Shape) -> Plan:
    """The plan of ``medserl train``.

    Raises:
        ConfigError: sizes that do not divide or do not fit, a model or notes that are not there, too little time.
    """
    from medserl.preflight.layout import check_layout

    plan = Plan(device=config.trainer.device, cpus=shape.cpus_per_node)
    _check_shape(config, shape)
    check_layout(config)
    _say_layout(plan, config, shape)
    _check_cpus(plan, shape)
    plan.files = note_files(config)
    for path in plan.files:
        _look_for(plan, path, "notes", shape)
    estimated = _check_model(plan, config, shape)
    if estimated is not None and plan.device == "cuda":
        _check_memory(plan, config, estimated, shape)
    _check_time(plan, config, shape)
    return plan


def note_files(config: DictConfig) -> list[str]:
    """The files of notes that a training reads."""
    notes = config.medserl.notes
    return [str(path) for path in (notes.path, notes.labelled_path, config.medserl.validation.path) if path]


def plan_evaluation(model: str | None, data: Sequence[str], config: DictConfig, shape: Shape) -> Plan:
    """The plan of ``medserl evaluate``: vLLM in one process.

    Args:
        config: What the engine's settings come from.

    Raises:
        ConfigError: more GPUs wanted than there are, a model or data that is not there.
    """
    plan = Plan(model=model)
    if shape.nodes != 1:
        raise ConfigError(f"medserl evaluate runs on one node, the job has {shape.nodes}")
    tensor_parallel = config.actor_rollout_ref.rollout.tensor_model_parallel_size
    if tensor_parallel > shape.gpus_per_node:
        raise ConfigError(
            f"actor_rollout_ref.rollout.tensor_model_parallel_size: {tensor_parallel} is more than the job's "
            f"{shape.gpus_per_node} GPUs; change it or --gpus-per-node"
        )
    plan.add("layout", f"1 node x {shape.gpus_per_node} GPUs, vLLM TP {tensor_parallel}")
    _check_evaluated(plan, model, shape)
    plan.files = [source for source in data if not source.startswith("ward:")]
    for path in plan.files:
        _look_for(plan, path, "data", shape)
    if shape.time_limit:
        plan.add("time", f"limit {_duration(shape.time_limit)}")
    return plan


def _check_evaluated(plan: Plan, model: str | None, shape: Shape) -> None:
    """The model must be there, as ``medserl evaluate`` looks for it; a container has a disk of its own."""
    from medserl.evaluation.run import model_directory

    outside = host_path(model, shape.binds) if model else None
    if outside is not None and outside.is_dir():
        model_directory(str(outside))
    elif model and shape.in_container:
        plan.add("note", f"model {model}: not seen from here; the preflight looks for it in the container")
    else:
        model_directory(model)


def _check_shape(config: DictConfig, shape: Shape) -> None:
    beside = served_devices(config)
    for key, wanted, there in (
        ("trainer.nnodes", config.trainer.nnodes, shape.nodes),
        ("trainer.n_gpus_per_node", config.trainer.n_gpus_per_node, shape.gpus_per_node),
    ):
        if wanted != there and not (beside and wanted < there and key.endswith("per_node")):
            raise ConfigError(f"{key}: {wanted}, but the job has {there}; leave the key to the launcher")
    left = shape.gpus_per_node - config.trainer.n_gpus_per_node
    if beside > left:
        raise ConfigError(
            f"medserl.referee, medserl.frozen_injector: the frozen model that verl serves needs {beside} GPU(s) beside "
            f"those of the training, on one node, where {left} are left; "
            f"set trainer.n_gpus_per_node={max(1, shape.gpus_per_node - beside)} or serve it yourself (url)"
        )


def served_devices(config: DictConfig) -> int:
    """GPUs of the frozen model that verl serves beside the training, as judge or injector; all on one node."""
    model = config.reward.reward_model
    return int(model.n_gpus_per_node * model.nnodes) if model.enable else 0


def _say_layout(plan: Plan, config: DictConfig, shape: Shape) -> None:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    tp, pp = actor.megatron.tensor_model_parallel_size, actor.megatron.pipeline_model_parallel_size
    cp = actor.megatron.context_parallel_size
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    beside = f", {served} GPU(s) for a frozen model" if (served := served_devices(config)) else ""
    dp = world // (tp * pp * cp)
    with_cp = f" x CP {cp}" if cp > 1 else ""
    plan.add(
        "layout",
        f"{shape.nodes} nodes x {config.trainer.n_gpus_per_node} GPUs = {world} = "
        f"TP {tp} x PP {pp}{with_cp} x DP {dp}; "
        f"vLLM TP {rollout.tensor_model_parallel_size}, {world // rollout.tensor_model_parallel_size} engines{beside}",
    )
    mini = actor.ppo_mini_batch_size * rollout.n
    plan.add(
        "batches",
        f"{config.data.train_batch_size} notes a round, mini-batches of {actor.ppo_mini_batch_size} notes x "
        f"{rollout.n} trajectories = {mini}, {mini // dp} on each of {dp} replicas",
    )
    for name, size in (("Megatron", tp), ("vLLM", rollout.tensor_model_parallel_size)):
        if size > shape.gpus_per_node:
            plan.add("note", f"{name} TP {size} crosses nodes; tensor parallelism wants NVLink, pipelines do not")


def _check_cpus(plan: Plan, shape: Shape) -> None:
    least = CPUS_PER_WORKER * shape.gpus_per_node
    if shape.cpus_per_node < least:
        raise ConfigError(
            f"--cpus-per-task: {shape.cpus_per_node} logical CPUs on a node are less than the {least} that "
            f"{shape.gpus_per_node} workers ask Ray for; ask for more, or set MEDSERL_RAY_CPUS"
        )
    plan.add("cpus", f"{shape.cpus_per_node} a node for Ray, {least} of them for the workers")


def host_path(path: str, binds: Sequence[str]) -> Path:
    """Where a container's path lies outside of it."""
    for bind in binds:
        source, _, target = bind.partition(":")
        target = (target or source).split(":")[0].rstrip("/")
        if path == target or path.startswith(f"{target}/"):
            return Path(source + path[len(target) :])
    return Path(path)


def _look_for(plan: Plan, path: str, what: str, shape: Shape) -> bool:
    if host_path(path, shape.binds).exists():
        return True
    if shape.in_container:
        plan.add("note", f"{what} {path}: not seen from here; the preflight looks for it in the container")
        return False
    raise ConfigError(f"{what} {path}: is not there; give a path that all nodes see (nothing is downloaded)")


def _check_model(plan: Plan, config: DictConfig, shape: Shape) -> Estimate | None:
    from medserl.preflight.checks import check_model

    key, path = "actor_rollout_ref.model.path", str(config.actor_rollout_ref.model.path)
    plan.model = path
    outside = host_path(path, shape.binds)
    if shape.in_container and not outside.is_dir():
        _look_for(plan, path, "model", shape)
        return None
    actor = config.actor_rollout_ref.actor.megatron
    model = check_model(
        outside,
        key,
        actor.tensor_model_parallel_size,
        actor.pipeline_model_parallel_size,
        config.actor_rollout_ref.rollout.tensor_model_parallel_size,
    )
    estimated = estimate(config, model)
    plan.checkpoint_bytes = estimated.checkpoint
    plan.add(
        "model",
        f"{path}, {estimated.parameters / 1e9:.2f} G parameters; a checkpoint takes about "
        f"{_gib(estimated.checkpoint)}, {config.trainer.max_actor_ckpt_to_keep} are kept",
    )
    return estimated


def _check_memory(plan: Plan, config: DictConfig, need: Estimate, shape: Shape) -> None:
    rollout = config.actor_rollout_ref.rollout
    share = rollout.gpu_memory_utilization
    parts = (
        f"weights {_gib(need.weights)}, gradients {_gib(need.gradients)}, optimizer {_gib(need.optimizer)}, "
        f"reference {_gib(need.reference)}, activations {_gib(max(need.activations, need.log_probs))}"
    )
    plan.add("memory", f"about {_gib(need.training)} of the fullest GPU in an update ({parts})")
    plan.add("rollout", f"{_gib(need.resident)} stay there while vLLM generates, with {share:.0%} of the GPU")
    plan.add("host", f"{_gib(need.host_saving)} of a node's memory at a save, {_gib(need.host_loading)} at a load")
    if shape.gpu_memory_gb is not None and need.training > shape.gpu_memory_gb * GIB:
        raise ConfigError(
            f"an update needs about {_gib(need.training)} of each GPU ({parts}), MEDSERL_GPU_MEMORY_GB says "
            f"{shape.gpu_memory_gb:g}; raise TP or PP, or lower actor_rollout_ref.actor.ppo_max_token_len_per_gpu"
        )
    if shape.gpu_memory_gb is None:
        return
    total = shape.gpu_memory_gb * GIB
    cache = OmegaConf.select(config, "actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_memory_bytes")
    weights = 2.0 * need.parameters / rollout.tensor_model_parallel_size
    vllm = weights + cache + GIB if cache else share * total
    if (in_rollout := need.rollout(vllm, graphs=not rollout.enforce_eager)) > total:
        raise ConfigError(
            f"a rollout needs about {_gib(in_rollout)} of each GPU ({_gib(need.resident)} that training keeps there, "
            f"{_gib(vllm)} for vLLM, contexts and CUDA graphs), MEDSERL_GPU_MEMORY_GB says {shape.gpu_memory_gb:g}; "
            "lower actor_rollout_ref.rollout.gpu_memory_utilization, or set "
            "actor_rollout_ref.actor.megatron.param_offload and optimizer_offload"
        )


def _check_time(plan: Plan, config: DictConfig, shape: Shape) -> None:
    if shape.time_limit is None:
        plan.add("time", "no limit known; Slurm may have one of the partition's")
        return
    if shape.time_limit <= shape.lead:
        raise ConfigError(
            f"--time: {_duration(shape.time_limit)} is not more than the {_duration(shape.lead)} before the limit at "
            "which the job is told to save (--signal); ask for more time or give another --signal=B:USR1@SECONDS"
        )
    text = f"limit {_duration(shape.time_limit)}, told to save {_duration(shape.lead)} before it"
    if seconds := _seconds_per_round(Path(config.medserl.run_dir)):
        rounds = int((shape.time_limit - shape.lead) // seconds)
        text += f"; rounds took {seconds:.0f} s so far, about {rounds} fit into one attempt"
    plan.add("time", text)


def _seconds_per_round(run_dir: Path) -> float | None:
    """Median over what a run has recorded so far; None where it has not run yet."""
    from medserl.run.run_log import METRICS_FILE, read_metrics

    path = run_dir / METRICS_FILE
    if not path.is_file():
        return None
    times: list[Any] = [row["timing_s/step"] for row in read_metrics(path) if row.get("timing_s/step")]
    return float(statistics.median(times)) if times else None


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(filter(None, parts)) or "0 s"


def binds_of(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The site's binds, as SOURCE:TARGET pairs."""
    return tuple(bind if ":" in bind else f"{bind}:{bind}" for bind in settings.get("MEDSERL_BINDS", "").split())
