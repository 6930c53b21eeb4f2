"""What a machine finds out about itself, in the preflight of a job and for ``medserl doctor``. No torch.

Each check is a function that returns a ``Check``; its value goes into the table, its problem into the list of bad
nodes.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import socket
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.preflight import nvidia
from medserl.preflight.fit import host_memory
from medserl.preflight.host import shared_memory_problem
from medserl.run.weights import DamagedWeights, indexed
from medserl.words import counted

GIB = 2**30
OPEN_FILES_WANTED = 4096  # Ray opens some hundreds of sockets per node, vLLM its own
SCRATCH_WANTED = 2 * GIB


@dataclass(frozen=True)
class Check:
    """One cell of the table. ``problem`` is a phrase; None where all is well."""

    name: str
    value: str
    problem: str | None = None
    remark: str | None = None
    """A phrase about what may be meant."""


def gpu_checks(wanted: int, show_unasked: bool = False, least: float = 0.0) -> list[Check]:
    """Number, kind, driver, memory and guests of the GPUs, as nvidia-smi tells.

    Args:
        wanted: How many must be there. With 0 nothing about them is a problem.
        show_unasked: Look also where none is wanted, if there is an nvidia-smi.
        least: Bytes that each of them must have.
    """
    if wanted == 0:
        if not show_unasked or shutil.which("nvidia-smi") is None:
            return [Check("GPUs", "none asked")]
        return [Check(check.name, check.value) for check in gpu_checks(1)]
    try:
        shown = nvidia.cards()
    except nvidia.NoAnswer as error:
        return [Check("GPUs", "?", str(error))]
    return read_gpus(shown, wanted, least)


def read_gpus(shown: Sequence[nvidia.Card], wanted: int, least: float = 0.0) -> list[Check]:
    """Checks on what nvidia-smi tells."""
    problems = [f"{counted(len(shown), 'GPU')} instead of {wanted}"] if len(shown) < wanted else []
    problems += nvidia.guest_problems(shown)
    drivers = sorted({card.driver for card in shown})
    cuda = nvidia.cuda_of_driver()
    memory = min((card.total for card in shown if card.total), default=0)
    free = min((card.total - card.used for card in shown if card.total), default=0)
    small = f"{memory / GIB:.0f} GiB, the run needs about {least / GIB:.0f}" if memory and memory < least else None
    return [
        Check("GPUs", f"{len(shown)} {'/'.join(sorted({card.name for card in shown}))}", "; ".join(problems) or None),
        Check("GPU memory", f"{memory / GIB:.0f} GiB, {free / GIB:.0f} free" if memory else "?", small),
        Check("driver", "/".join(drivers), next(filter(None, (nvidia.driver_problem(d, cuda) for d in drivers)), None)),
    ]


def cpu_check(told: int = 0) -> Check:
    """Processors that this process may use, where srun, taskset or a control group left it some of the machine's only.

    Args:
        told: How many Ray is told that there are, 0 where that is not known. More than a whole machine has may be told
            on purpose (MEDSERL_RAY_CPUS).
    """
    usable, there = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    if usable >= there:
        return Check("CPUs", str(usable))
    cause = "srun --cpus-per-task, SLURM_CPU_BIND"
    may = f"{usable} CPU{'s' if usable > 1 else ''} may be used"
    problem = f"{may}, Ray is told {told} ({cause})" if usable < told else None
    return Check("CPUs", f"{usable} of {there}", problem, None if problem else f"{may} of {there} ({cause}, taskset)")


def host_checks(tmp: Path, cpus: int = 0, least: float = 0.0) -> list[Check]:
    """Processors, memory, limits and node-local disk.

    Args:
        tmp: The folder for temporary files.
        cpus: How many Ray is told of; 0 where that is not known.
        least: Bytes of memory that the run's fullest moment takes; 0 where that is not known.
    """
    with open("/proc/meminfo", encoding="ascii") as file:
        fields = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in file}
    available = fields["MemAvailable"]
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    shared = shutil.disk_usage("/dev/shm").free
    scratch = shutil.disk_usage(tmp).free
    return [
        cpu_check(cpus),
        memory_check(available, least),
        Check(
            "/dev/shm",
            f"{shared / GIB:.1f} GiB",
            shared_memory_problem(),
        ),
        Check(
            "scratch",
            f"{scratch / GIB:.0f} GiB",
            None if scratch >= SCRATCH_WANTED else f"less than 2 GiB free in {tmp} (TMPDIR, in jobs MEDSERL_SCRATCH)",
        ),
        Check(
            "open files",
            _limit(resource.RLIMIT_NOFILE),
            None
            if soft >= OPEN_FILES_WANTED or soft == resource.RLIM_INFINITY
            else f"limit of open files {soft}, {OPEN_FILES_WANTED} are wanted (ulimit -n)",
        ),
        Check("processes", _limit(resource.RLIMIT_NPROC)),
    ]


def memory_check(available: float, least: float = 0.0) -> Check:
    """Memory that is free, of what this process may have; a checkpoint's save or load must fit into the latter."""
    memory, limited = host_memory()
    whose = "its control group (docker --memory, Slurm --mem)" if limited else "this machine"
    problem = f"a checkpoint takes about {least / GIB:.0f} GiB of memory, {whose} gives {memory / GIB:.0f}"
    return Check(
        "memory",
        f"{min(available, memory) / GIB:.0f} GiB" + (f" of {memory / GIB:.0f} allowed" if limited else ""),
        problem if memory < least else None,
    )


def _limit(which: int) -> str:
    soft = resource.getrlimit(which)[0]
    return "unlimited" if soft == resource.RLIM_INFINITY else str(soft)


def run_dir_checks(run_dir: Path, checkpoint_bytes: float) -> tuple[list[Check], float]:
    """Whether the run's disk can be written and has room for a checkpoint.

    Returns:
        The checks, and this node's clock minus the disk's, in seconds.
    """
    folder = next(path for path in (run_dir, *run_dir.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    problem = None
    skew = 0.0
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".medserl-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
            skew = time.time() - os.fstat(file.fileno()).st_mtime
    except OSError as error:
        problem = f"cannot write in {folder} ({error.strerror})"
    if problem is None and free < checkpoint_bytes:
        problem = f"{free / GIB:.0f} GiB free for {run_dir}, one checkpoint takes {checkpoint_bytes / GIB:.0f}"
    return [Check("run disk", f"{free / GIB:.0f} GiB", problem)], skew


def content_checks(model: str | None, files: Sequence[str]) -> list[Check]:
    """Model, tokenizer and notes: there, whole and readable from this node."""
    checks = []
    if model is not None:
        checks.append(Check("model", Path(model).name, model_problem(model)))
    missing = [path for path in files if not os.access(path, os.R_OK)]
    if files:
        checks.append(Check("notes", str(len(files)), f"cannot read {', '.join(missing)}" if missing else None))
    return checks


def model_problem(name: str) -> str | None:
    """What is missing of a model directory, or of a hub model in the cache; None when it is whole."""
    if name.startswith("builtin:"):
        return None
    path = Path(name)
    if not path.is_dir():
        path_in_cache = _cached(name)
        if path_in_cache is None:
            return f"model {name} is not a directory here, and not in the Hugging Face cache"
        path = path_in_cache
    if not (path / "config.json").is_file():
        return f"{path} has no config.json"
    if not any((path / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        return f"{path} has no tokenizer"
    try:
        wanted = set(indexed(path))
    except DamagedWeights as error:
        return f"{path}: {error}"
    wanted = wanted or {file.name for file in (*path.glob("*.safetensors"), *path.glob("*.bin"))}
    if not wanted:
        return f"{path} has no weights"
    missing = sorted(file for file in wanted if not (path / file).is_file())
    return f"{path} lacks {', '.join(missing[:3])}" if missing else None


def _cached(name: str) -> Path | None:
    home = Path(os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"))
    snapshots = home / "hub" / f"models--{name.replace('/', '--')}" / "snapshots"
    found = sorted(snapshots.glob("*/config.json"))
    return found[-1].parent if found else None


def software_checks(interface: str) -> list[Check]:
    """Versions, which must be the same everywhere, and the network interface."""
    known = [name for _, name in socket.if_nameindex()]
    gone = bool(interface) and interface not in known
    return [
        Check("medserl", __version__),
        Check("Python", platform.python_version()),
        Check(
            "interface",
            interface or "any",
            f"no interface {interface}, there are {', '.join(known)}" if gone else None,
        ),
    ]


def instruction_check() -> Check:
    """Whether the processor runs what it advertises; the answer is kept for the training (medserl/cpu/probe.py)."""
    from medserl.cpu.probe import ProbeError, probe

    try:
        cap = probe().onednn_max_cpu_isa
    except ProbeError as error:
        return Check("instructions", "-", str(error))
    return Check("instructions", "all" if cap is None else f"up to {cap}")


def as_record(node: str, skew: float, checks: Sequence[Check]) -> dict[str, Any]:
    """What a node leaves for the report."""
    return {"node": node, "skew": skew, "checks": [vars(check) for check in checks]}
