"""What made a result: versions and commit. No environment variables: they hold secrets."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from medserl import __version__

RECORDED_PACKAGES = (
    "torch",
    "vllm",
    "verl",
    "megatron-core",
    "mbridge",
    "ray",
    "transformers",
    "tensordict",
    "numpy",
)


def package_versions() -> dict[str, str | None]:
    """Installed versions of what a run is made of; None for what is not installed."""
    versions: dict[str, str | None] = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return versions


def git_commit() -> str | None:
    """Commit of the checkout that runs; None where it is none, an installed package for instance."""
    return _git("rev-parse", "HEAD")


def git_dirty() -> bool:
    """Whether tracked files of that checkout differ from the commit."""
    return bool(_git("status", "--porcelain", "--untracked-files=no"))


def git_changes() -> str:
    """A short SHA-256 of how tracked files of that checkout differ from the commit; empty where they do not."""
    changes = _git("diff", "HEAD") if git_dirty() else None
    return hashlib.sha256(changes.encode("utf-8", "surrogatepass")).hexdigest()[:12] if changes else ""


def provenance(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """What is needed to repeat a run: versions, commit, command."""
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "medserl": __version__,
        "git_commit": git_commit(),
        "git_dirty": git_dirty(),
        "config": config_name,
        "overrides": overrides,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": package_versions(),
    }


def _git(*arguments: str) -> str | None:
    source = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(
            ["git", "-C", str(source), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
