"""Whether this machine can hold a run: shared memory, temporary folder, a run directory that can be written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from medserl.cpu.environment import LONGEST_TMPDIR, fits_sockets, socket_environment
from medserl.errors import ConfigError

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_WANTED = 2**30
"""Bytes: Ray's objects and the queues of vLLM's workers lie there; docker gives 64 MiB unless told otherwise."""


def check_machine(config: DictConfig) -> None:
    """Raise where a run would die minutes after its start for want of something that can be seen now.

    Raises:
        ConfigError: too little shared memory, no temporary folder that sockets fit in.
    """
    if config.ray_kwargs.ray_init.get("address"):
        return  # Ray is up already, and its processes may be on other machines
    if (problem := shared_memory_problem()) is not None:
        raise ConfigError(f"{SHARED_MEMORY}: {problem}")
    folder = Path(tempfile.gettempdir())
    if not fits_sockets(folder) and not socket_environment(folder):
        raise ConfigError(
            f"TMPDIR: {folder} is too long for Ray's sockets; set it to a folder of at most {LONGEST_TMPDIR} characters"
        )


def shared_memory_problem(folder: Path = SHARED_MEMORY) -> str | None:
    """What is wrong with the machine's shared memory; None where nothing is."""
    try:
        size = shutil.disk_usage(folder).total
    except OSError as error:
        return f"there is no shared memory ({error.strerror}); mount it (docker: --shm-size=8g)"
    if size >= SHARED_MEMORY_WANTED:
        return None
    return f"only {size / 2**20:.0f} MiB of shared memory, Ray and vLLM need 1 GiB (docker: --shm-size=8g)"


def check_writable(path: Path, what: str = "run directory", option: str = "--run-dir") -> None:
    """Raise where a directory cannot be made or written; nothing is left behind.

    Args:
        path: The directory.
        what: What it is called in the sentence.
        option: What gives another one.

    Raises:
        ConfigError: says which folder refuses, and why.
    """
    try:
        folder = _nearest(path)
        longest = os.pathconf(folder, "PC_NAME_MAX")
        if any(len(os.fsencode(part)) > longest for part in path.parts):
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        with tempfile.TemporaryDirectory(dir=folder, prefix=".medserl-"):
            pass
    except OSError as error:
        raise ConfigError(f"{what} {path}: cannot be written ({error.strerror}); give another {option}") from None


def _nearest(path: Path) -> Path:
    """The folder that is there already, of a path and those above it.

    Raises:
        OSError: it is no folder; a link into nowhere is none either.
    """
    for folder in (path, *path.parents):
        if os.path.lexists(folder):
            os.stat(folder)  # FileNotFoundError of a link into nowhere
            if not folder.is_dir():
                raise NotADirectoryError(20, f"{folder} is not a folder")
            return folder
    return Path("/")
