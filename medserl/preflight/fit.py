"""Whether a run fits this machine: the planner's sums against its GPUs' and its own memory. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.errors import ConfigError
from medserl.planning.fits import check_fits
from medserl.planning.job import Job, job_of, unplanned
from medserl.planning.memory import GIB, ROLLOUT, UPDATE, Need, need_of, size_text
from medserl.planning.shapes import Shape, shape_of
from medserl.preflight.nvidia import NoAnswer, cards

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 2**60
"""What the first kind of control group answers where there is no limit is more than this."""


def check_memory(config: DictConfig, model: Mapping[str, Any], where: str) -> None:
    """Raise where this machine's memory cannot hold the run.

    Looked at where this process brings up its own Ray only: on a cluster, each node looks at itself
    (medserl/preflight/node_checks.py).

    Args:
        config: A configuration of ``load_config`` or ``load_sft_config``.
        model: The model's config.json.
        where: The model's directory.

    Raises:
        ConfigError: what needs how much, and what would help.
    """
    if OmegaConf.select(config, "ray_kwargs.ray_init.address") or unplanned(config):
        return
    job, shape = job_of(config), shape_of(model, where)
    host, limited = host_memory()
    told = "its control group allows" if limited else "this machine has"
    if config.trainer.device != "cuda":
        check_host_alone(job, shape, host, told)
        return
    gpu, name = gpu_memory()
    check_fits(job, need_of(job, shape, gpu), gpu, host, (f"{name} has", told))


def check_host_alone(job: Job, shape: Shape, memory: float, told: str) -> None:
    """The same for a run on CPUs, whose processes hold everything in the host's memory.

    Raises:
        ConfigError: what it needs.
    """
    needed = on_cpus(need_of(job, shape, None), job)
    if needed > memory:
        raise ConfigError(
            f"a run on CPUs needs about {size_text(needed)} of memory for {shape.parameters / 1e9:.2f} G parameters, "
            f"{told} {size_text(memory)}; take a smaller model, or a configuration for GPUs"
        )


def on_cpus(need: Need, job: Job) -> float:
    """Bytes of all workers of this machine together: an update's, vLLM's weights and cache, and a checkpoint's."""
    own = sum(size for part, size in need.phase(UPDATE).parts.items() if part not in ("contexts", "CUDA graphs"))
    served = 0.0
    if job.rollout is not None and need.cache is not None:
        awake = next((phase.parts for phase in need.phases if phase.name == ROLLOUT), {})
        served = awake.get("vLLM weights", 0.0) + need.cache.size
    return job.training.gpus_per_node * (own + served) + need.host.saving


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
