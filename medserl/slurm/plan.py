"""The arithmetic of a job, and the refusal of what cannot work. No torch."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medserl.errors import ConfigError, all_told
from medserl.planning.fits import check_fits, check_served
from medserl.planning.job import Job, ends_of, job_of
from medserl.planning.memory import GIB, UPDATE, Need, need_of, size_text
from medserl.planning.shapes import Shape as Model
from medserl.planning.shapes import check_divides, shape_of
from medserl.preflight.devices import CPUS_PER_WORKER
from medserl.report.terminal import Table
from medserl.words import counted

GIVEN = "MEDSERL_GPU_MEMORY_GB says"


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
    gpu_memory_from: str = GIVEN
    host_memory: float | None = None
    """Bytes of each node's memory that the job asks for; None where it takes what there is."""
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
    host_bytes: float = 0.0
    """Memory of each node that the fullest moment takes; 0 where it is not known."""
    gpu_bytes: float = 0.0
    """The same of each GPU."""

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
                "host_bytes": self.host_bytes,
                "gpu_bytes": self.gpu_bytes,
            }
        )


def plan_training(config: DictConfig, shape: Shape) -> Plan:
    """The plan of ``medserl train``.

    Raises:
        ConfigError: sizes that do not divide or do not fit, a model or notes that are not there, too little time.
    """
    from medserl.preflight.layout import check_layout

    plan = Plan(device=config.trainer.device, cpus=shape.cpus_per_node)
    job = job_of(config)
    _check_shape(config, job, shape)
    check_layout(config)
    _say_layout(plan, config, job, shape)
    _check_cpus(plan, shape)
    plan.files = note_files(config)
    for path in plan.files:
        _look_for(plan, path, "notes", shape)
    model = _check_model(plan, config, shape)
    if model is not None:
        _check_memory(plan, config, job, model, shape)
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
            f"{counted(shape.gpus_per_node, 'GPU')}; change it or --gpus-per-node"
        )
    plan.add("layout", f"1 node x {counted(shape.gpus_per_node, 'GPU')}, vLLM TP {tensor_parallel}")
    _check_evaluated(plan, model, shape)
    plan.files = [source for source in data if not source.startswith("ward:")]
    for path in plan.files:
        _look_for(plan, path, "data", shape)
    if shape.time_limit:
        plan.add("time", f"limit {_duration(shape.time_limit)}")
    return plan


def _check_evaluated(plan: Plan, model: str | None, shape: Shape) -> None:
    """The model must be there, as ``medserl evaluate`` looks for it; a container has a disk of its own."""
    from medserl.evaluation.model import model_directory

    outside = host_path(model, shape.binds) if model else None
    if outside is not None and outside.is_dir():
        model_directory(str(outside))
    elif model and shape.in_container:
        plan.add("note", f"model {model}: not visible from here; the preflight looks for it in the container")
    else:
        model_directory(model)


def _check_shape(config: DictConfig, job: Job, shape: Shape) -> None:
    for key, wanted, there in (
        ("trainer.nnodes", config.trainer.nnodes, shape.nodes),
        ("trainer.n_gpus_per_node", config.trainer.n_gpus_per_node, shape.gpus_per_node),
    ):
        if wanted != there and not (job.served and wanted < there and key.endswith("per_node")):
            raise ConfigError(f"{key}: {wanted}, but the job has {there}; leave the key to the launcher")
    check_served(job, shape.gpus_per_node)


def _say_layout(plan: Plan, config: DictConfig, job: Job, shape: Shape) -> None:
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    tp, pp = actor.megatron.tensor_model_parallel_size, actor.megatron.pipeline_model_parallel_size
    cp = actor.megatron.context_parallel_size
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    beside = f", {counted(job.served.gpus, 'GPU')} for a frozen model" if job.served else ""
    dp = world // (tp * pp * cp)
    with_cp = f" x CP {cp}" if cp > 1 else ""
    plan.add(
        "layout",
        f"{counted(shape.nodes, 'node')} x {counted(config.trainer.n_gpus_per_node, 'GPU')} = {world} = "
        f"TP {tp} x PP {pp}{with_cp} x DP {dp}; "
        f"vLLM TP {rollout.tensor_model_parallel_size}, "
        f"{counted(world // rollout.tensor_model_parallel_size, 'engine')}{beside}",
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
            f"{counted(shape.gpus_per_node, 'worker')} need; ask for more, or set MEDSERL_RAY_CPUS"
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
        plan.add("note", f"{what} {path}: not visible from here; the preflight looks for it in the container")
        return False
    raise ConfigError(f"{what} {path}: is not there; give a path that all nodes see (nothing is downloaded)")


def _check_model(plan: Plan, config: DictConfig, shape: Shape) -> Model | None:
    from medserl.preflight.model_files import check_present, read_model_config

    key, path = "actor_rollout_ref.model.path", str(config.actor_rollout_ref.model.path)
    plan.model = path
    outside = host_path(path, shape.binds)
    if shape.in_container and not outside.is_dir():
        _look_for(plan, path, "model", shape)
        return None
    actor = config.actor_rollout_ref.actor.megatron
    tp, pp = actor.tensor_model_parallel_size, actor.pipeline_model_parallel_size
    with all_told() as found:
        model = read_model_config(outside, key)
        check_present(outside, key, found)
        served = config.actor_rollout_ref.rollout.tensor_model_parallel_size
        check_divides(shape_of(model, f"{key}: {outside}"), tp, pp, served, ends_of(actor))
    return shape_of(model, path)


def _check_memory(plan: Plan, config: DictConfig, job: Job, model: Model, shape: Shape) -> None:
    """Say what the model takes; for GPUs also refuse what does not fit, as ``medserl plan`` does."""
    gpu = shape.gpu_memory_gb * GIB if shape.gpu_memory_gb is not None else None
    need = need_of(job, model, gpu)
    plan.checkpoint_bytes = need.host.checkpoint
    plan.add(
        "model",
        f"{plan.model}, {model.parameters / 1e9:.2f} G parameters; a checkpoint takes about "
        f"{size_text(need.host.checkpoint)}, {config.trainer.max_actor_ckpt_to_keep} are kept",
    )
    if plan.device != "cuda":
        return
    _say_memory(plan, job, need)
    check_fits(job, need, gpu, shape.host_memory, (shape.gpu_memory_from, "--mem asks for"))
    plan.host_bytes, plan.gpu_bytes = need.host.peak, need.fullest.total


def _say_memory(plan: Plan, job: Job, need: Need) -> None:
    update = need.phase(UPDATE)
    plan.add("memory", f"about {size_text(update.total)} of the fullest GPU in an update ({update.told()})")
    for phase in need.phases:
        if phase.name != UPDATE:
            plan.add("", f"{size_text(phase.total)} in its {phase.name} phase")
    host = need.host
    plan.add(
        "host",
        f"{size_text(host.saving)} of a node's memory at a save, {size_text(host.loading)} at a load, and "
        f"{size_text(host.processes)} of processes",
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


def _duration(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{hours} h" if hours else "", f"{minutes} min" if minutes else "", f"{left} s" if left else ""]
    return " ".join(filter(None, parts)) or "0 s"


def binds_of(settings: Mapping[str, str]) -> tuple[str, ...]:
    """The site's binds, as SOURCE:TARGET pairs."""
    return tuple(bind if ":" in bind else f"{bind}:{bind}" for bind in settings.get("MEDSERL_BINDS", "").split())
