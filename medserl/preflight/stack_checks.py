"""What a machine has installed and set for MedSeRL: versions, environment traps, tools. Imports no package of them."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import site
import subprocess
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from medserl.cpu.environment import LONGEST_TMPDIR, fits_sockets, socket_environment
from medserl.preflight.node_checks import Check

STACK = ("torch", "vllm", "verl", "megatron-core", "ray", "transformers")
"""What a training cannot do without; looked for also where no pin is known."""
TOOLS = {
    "Slurm": ("sbatch", "--version"),
    "Docker": ("docker", "--version"),
    "Podman": ("podman", "--version"),
    "Apptainer": ("apptainer", "--version"),
}
VISIBLE = "_VISIBLE_DEVICES"
SET_UP = "run python3 bootstrap.py setup, or use an image"


def installed(name: str) -> str | None:
    """The version of a distribution, None where it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def pins(device: str) -> dict[str, str]:
    """Exact versions by distribution, as the package's own metadata pins them for this device's extra.

    Args:
        device: ``cpu`` or ``cuda``; what vLLM is installed counts more, where one is.

    Returns:
        Nothing where medserl itself is not installed.
    """
    vllm = installed("vllm")
    extra = ("cpu" if "cpu" in vllm else "gpu") if vllm else {"cpu": "cpu"}.get(device, "gpu")
    try:
        lines = importlib.metadata.requires("medserl") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found = {}
    for requirement in map(Requirement, lines):
        exact = [part.version for part in requirement.specifier if part.operator == "=="]
        if exact and requirement.marker is not None and requirement.marker.evaluate({"extra": extra}):
            found[requirement.name] = exact[0]
    return found


def version_checks(device: str) -> list[Check]:
    """Each package of the stack: there, and of the version that MedSeRL is tested with."""
    pinned = pins(device)
    checks = []
    if not pinned:
        problem = f"medserl is not installed as a package, so vLLM does not find its plug-in; {SET_UP}"
        checks.append(Check("package", "not installed", problem))
    for name in dict.fromkeys([*STACK, *pinned]):
        version = installed(name)
        checks.append(Check(name, version or "missing", _odd(version, pinned.get(name))))
    return checks


def _odd(version: str | None, wanted: str | None) -> str | None:
    if version is None:
        return f"is not installed; {SET_UP}"
    if wanted is not None and Version(version).public != wanted:
        return f"{version} is installed, {wanted} is what MedSeRL is tested with; {SET_UP}"
    return None


def environment_checks(tmp: Path, environ: Mapping[str, str] = os.environ) -> list[Check]:
    """Settings that make runs fail later, or take other packages than the installed ones."""
    shown = {maker: environ[f"{maker}{VISIBLE}"] for maker in ("CUDA", "ROCR", "HIP") if f"{maker}{VISIBLE}" in environ}
    # verl 0.9.1, single_controller/base/worker.py: Ray sets CUDA's in each worker, and verl raises where another stands
    # beside it (ROCR) or differs (HIP).
    amd = [f"{maker}{VISIBLE}" for maker in shown if maker != "CUDA"]
    short = socket_environment(tmp).get("TMPDIR")
    return [
        Check(
            "visible GPUs",
            " ".join(f"{maker}={value}" for maker, value in shown.items()) or "all",
            f"verl refuses to start with {' and '.join(amd)} beside CUDA{VISIBLE}; unset it" if amd else None,
        ),
        Check(
            "TMPDIR",
            str(tmp) if fits_sockets(tmp) or not short else f"{short} for sockets, as {tmp} is too long",
            None
            if fits_sockets(tmp) or short
            else f"{tmp} is too long for Ray's sockets; set TMPDIR to a folder of at most {LONGEST_TMPDIR} characters",
        ),
        _user_site(),
    ]


def _user_site() -> Check:
    """Packages in the home directory come before those of the system, and into every container that mounts it."""
    folder = Path(site.getusersitepackages())
    seen = bool(site.ENABLE_USER_SITE) and folder.is_dir() and any(folder.iterdir())
    problem = f"packages of {folder} mix with the installed ones; set PYTHONNOUSERSITE=1" if seen else None
    return Check("user packages", "seen" if seen else "not seen", problem)


def tool_checks(environ: Mapping[str, str] = os.environ) -> list[Check]:
    """What else is here; none of it is needed everywhere, so none of it is a problem."""
    offline = environ.get("HF_HUB_OFFLINE")
    told = [Check("HF_HUB_OFFLINE", offline if offline is not None else "not set (runs set it to 1)")]
    return told + [Check(name, _version_of(command)) for name, command in TOOLS.items()]


def _version_of(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return "not here"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"there, but gives no answer ({type(error).__name__})"
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else "here"
