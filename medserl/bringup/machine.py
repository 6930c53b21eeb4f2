"""What the first line says of a machine, and the environment that checks run in. No torch."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.bringup.checks import CPU, CUDA
from medserl.cpu.environment import common_environment, cpu_environment, gpus_here
from medserl.cpu.probe import ProbeError
from medserl.errors import ConfigError
from medserl.preflight.node_checks import gpu_checks
from medserl.provenance import git_commit, package_versions

BESIDE = ("transformer-engine", "flash-attn", "triton")
"""Packages whose version matters here beside those that every run records."""


def device_here(asked: str = "auto") -> str:
    """The device to check: a GPU that is here, unless the installed vLLM is for CPUs.

    Other commands take a machine without vLLM for one without GPUs; the first checks need no vLLM.

    Raises:
        ConfigError: ``cuda`` is asked for and no GPU is here.
    """
    if asked == CUDA and not gpus_here():
        raise ConfigError("--device: cuda, but no GPU is here (CUDA_VISIBLE_DEVICES counts); leave the option out")
    if asked != "auto":
        return asked
    return CUDA if gpus_here() and "cpu" not in (_version("vllm") or "") else CPU


def first_line(device: str) -> dict[str, Any]:
    """Machine, device, driver, versions, and what is odd about the GPUs (another program's memory, no driver)."""
    here = {check.name: check for check in gpu_checks(1)} if device == CUDA else {}
    return {
        "machine": platform.node(),
        "device": here["GPUs"].value if here else f"CPU, {os.cpu_count()} cores, {platform.machine()}",
        "driver": here["driver"].value if "driver" in here else None,
        "memory": here["GPU memory"].value if "GPU memory" in here else None,
        "odd": [f"{check.name}: {check.problem}" for check in here.values() if check.problem],
        "versions": package_versions() | {name: _version(name) for name in BESIDE} | {"medserl": __version__},
        "commit": git_commit(),
        "python": sys.version.split()[0],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def children_environment(device: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What a child gets: this process's environment, what the device needs, and this very package first."""
    own = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([own, *filter(None, [environ.get("PYTHONPATH")])])
    if device == CUDA:
        return {**environ, **common_environment(), "PYTHONPATH": path}
    found = {**environ, "PYTHONPATH": path}
    with contextlib.suppress(ProbeError):  # no torch: then no check that needs it is run either
        found |= cpu_environment()
    return found


def missing(packages: tuple[str, ...]) -> str | None:
    """The first of these modules that is not installed; nothing is imported but the packages above them."""
    for name in packages:
        try:
            found = importlib.util.find_spec(name.partition(".")[0]) is not None
        except (ImportError, ValueError):
            found = False
        if not found:
            return name
    return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
