"""Chooses the device, and builds the environment of a run without an accelerator.

Everything here must be in ``os.environ`` before torch is imported, in the command line's own process
and (through Ray's ``runtime_env``) in every other. This module does not import torch.
"""

from __future__ import annotations

import gc
import getpass
import glob
import importlib.metadata
import itertools
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from medserl.cpu.probe import ProbeResult, probe
from medserl.errors import ConfigError

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda")
_DEVICE = re.compile(r"\d+|(GPU|MIG)-[0-9A-Za-z/-]+")
PLUGIN_MODULE = "medserl.cpu.plugin"
NOBODY = "medserl"
LONGEST_TMPDIR = 26
"""Bytes: the sockets of a run's own Ray lie 81 deeper, and a socket's path has 107 bytes at most."""
SHORT_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))


def choose_device(requested: str = "auto", environ: Mapping[str, str] = os.environ) -> str:
    """Returns "cpu" or "cuda" without importing torch.

    An explicit choice is obeyed unseen: the head of a cluster may have no GPU itself. "auto" says
    "cuda" where all of these hold:

    - ``CUDA_VISIBLE_DEVICES`` does not hide every device (empty, -1 first, or a word that names none);
    - the kernel shows an NVIDIA device (``/dev/nvidia0`` …; under WSL ``/dev/dxg`` and a working
      ``nvidia-smi``);
    - the installed vLLM is not the CPU build.

    Raises ConfigError for any other word.
    """
    if requested not in DEVICES:
        raise ConfigError(f"device: {requested!r} is unknown; choose one of {', '.join(DEVICES)}")
    if requested != "auto":
        return requested
    visible = visible_devices(environ)
    if visible is not None and not visible:
        return "cpu"
    if not _has_nvidia_device():
        return "cpu"
    if vllm_is_cpu_build():
        logger.warning(
            "This machine has an NVIDIA GPU, but the installed packages are those for CPUs, so the CPU is used. "
            "Install the GPU requirements to use the GPU, or set device=cpu to silence this warning."
        )
        return "cpu"
    return "cuda"


def visible_devices(environ: Mapping[str, str] = os.environ) -> list[str] | None:
    """The devices that ``CUDA_VISIBLE_DEVICES`` names, as CUDA reads it; None where it is not set.

    CUDA takes numbers and the beginnings of UUIDs (GPU-…, MIG-…), and stops at the first other word: Slurm, which sets
    NoDevFiles for a job without GPUs, hides them all.
    """
    words = environ.get("CUDA_VISIBLE_DEVICES")
    if words is None:
        return None
    return list(itertools.takewhile(_DEVICE.fullmatch, (word.strip() for word in words.split(","))))


def gpus_here(environ: Mapping[str, str] = os.environ) -> int:
    """GPUs that this process may use, without asking torch."""
    if not _has_nvidia_device():
        return 0
    there = len(glob.glob("/dev/nvidia[0-9]*")) or 1  # under WSL the one that nvidia-smi showed
    visible = visible_devices(environ)
    if visible is None:
        return there
    return len(visible) if any(word.startswith("MIG") for word in visible) else min(len(visible), there)


def _has_nvidia_device() -> bool:
    if glob.glob("/dev/nvidia[0-9]*"):
        return True
    if not os.path.exists("/dev/dxg") or shutil.which("nvidia-smi") is None:
        return False
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listing.returncode == 0 and "GPU " in listing.stdout


def vllm_is_cpu_build() -> bool:
    """True where the distribution ``vllm`` is the CPU build (its version then says "cpu")."""
    try:
        return "cpu" in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return True


def common_environment() -> dict[str, str]:
    """What every process needs, on CPUs and on GPUs alike: no usage statistics, no model hub, and what this machine
    lacks: a name for the user, a short folder for sockets."""
    return {
        **user_environment(),
        **socket_environment(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        # Models and tokenizers are directories here; a misspelt one must fail at once, not be looked for.
        "HF_HUB_OFFLINE": "1",
    }


def cpu_environment(
    result: ProbeResult | None = None,
    *,
    threads: int = 1,
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """The variables that every process of a CPU run needs before it imports torch.

    ``result`` is the processor probe's answer; without one the probe runs here (seconds, once per
    machine). ``threads``: compute threads per process, ≥ 1. A value that the user has set for
    ``ONEDNN_MAX_CPU_ISA`` is kept, and so are the user's own verl modules. Raises
    `medserl.cpu.probe.ProbeError` where the probe runs and has no answer.
    """
    if threads < 1:
        raise ValueError(f"threads must be at least 1, not {threads}")
    modules = [m for m in environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if m and m != PLUGIN_MODULE]
    variables = {
        # verl asks for its platform by this name, and loads the module that registers it.
        "VERL_PLATFORM": "cpu",
        "VERL_USE_EXTERNAL_MODULES": ",".join([*modules, PLUGIN_MODULE]),
        # Megatron's fused functions and vLLM's model go through torch.compile, which takes minutes of
        # C++ compilation here (first Megatron step 50 s, vLLM's warm-up 55 s) for nothing.
        "TORCHDYNAMO_DISABLE": "1",
        # Several processes share the cores; a pool of all cores in each only gets in the others' way.
        "OMP_NUM_THREADS": str(threads),
        # TransferQueue would set torch to eight threads and back at every access, and warn of fewer cores each time.
        "TQ_NUM_THREADS": str(threads),
        # Threads that wait for work sleep instead of spinning on a core that another process needs.
        "OMP_WAIT_POLICY": "PASSIVE",
        # vLLM would pin its workers to cores of its own choice, which Megatron's workers use too.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        # Everything runs on this host: talk over the loopback interface, listen on no other.
        "GLOO_SOCKET_IFNAME": "lo",
        "VLLM_HOST_IP": "127.0.0.1",
        # Megatron asserts it for tensor parallelism on older GPUs; verl sets it for these only.
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        # The tokenizers library warns in every forked process otherwise.
        "TOKENIZERS_PARALLELISM": "false",
        # Ray announces a change in how it hides GPUs from actors; there are none.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        **common_environment(),
    }
    isa = environ.get("ONEDNN_MAX_CPU_ISA") or (result or probe()).onednn_max_cpu_isa
    if isa is not None:
        # The processor cannot run what it advertises: see `medserl.cpu.probe`.
        variables["ONEDNN_MAX_CPU_ISA"] = isa
    return variables


def user_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``USER``, where this user id has no name: a container's ``--user``, a directory service that is away.

    torch 2.11.0 (torch/_inductor/runtime/cache_dir_utils.py) asks for the name when it is imported, and dies.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        return {"USER": NOBODY}
    return {}


def socket_environment(folder: Path | None = None) -> dict[str, str]:
    """``TMPDIR``, where ``folder`` (by default the present one) is too long for the names of Ray's sockets and a
    shorter folder can be had."""
    if fits_sockets(folder or Path(tempfile.gettempdir())):
        return {}
    short = next((path for path in SHORT_FOLDERS if path.is_dir() and os.access(path, os.W_OK | os.X_OK)), None)
    return {} if short is None else {"TMPDIR": str(short)}


def fits_sockets(folder: Path) -> bool:
    """Whether Ray's sockets can lie in a temporary folder."""
    return len(os.fsencode(folder)) <= LONGEST_TMPDIR


def relax_garbage_collector() -> None:
    """Looks for cyclic garbage after 50 000 new objects instead of 700 (Python 3.12's default).

    What a process imports stays for good, and the default spends a sixth of the import's time searching it
    for garbage (2.0 of 11.6 s of processor time). The plug-in calls this in every process that imports
    verl; the command line may call it first of all.
    """
    gc.set_threshold(50_000, 20, 100)
