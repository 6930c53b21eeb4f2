"""Whether this machine can hold a run: shared memory, temporary folder, a run directory that can be written."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from pathlib import Path

from omegaconf import DictConfig

from medserl.cpu.environment import LONGEST_TMPDIR, fits_sockets, socket_environment
from medserl.errors import ConfigError, Problems, all_told

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_WANTED = 2**30
"""Bytes: Ray's objects and the queues of vLLM's workers lie there; docker gives 64 MiB unless told otherwise."""
MIB = 2**20
SHARED_MEMORY_FREE = 256 * MIB
TEMPORARY_FREE = 64 * MIB
"""Bytes: Ray's logs and sockets, and what is spilled, lie in the temporary folder; one that is full ends Ray."""


def check_machine(config: DictConfig, problems: Problems | None = None) -> None:
    """Raise where a run would die minutes after its start for want of something that can be seen now.

    Args:
        config: The run's configuration.
        problems: Takes what is wanting; None: it is raised.

    Raises:
        ConfigError: too little shared memory, no temporary folder that has room and that sockets fit in.
    """
    if config.ray_kwargs.ray_init.get("address"):
        return  # Ray is up already, and its processes may be on other machines
    with all_told(problems) as found:
        if (problem := shared_memory_problem()) is not None:
            found.add(ConfigError(f"{SHARED_MEMORY}: {problem}"))
        with found.noted():
            _check_temporary()


def _check_temporary() -> None:
    try:
        folder = Path(tempfile.gettempdir())
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise ConfigError(f"TMPDIR: there is no temporary folder ({error.strerror}); set it to one") from None
    if free < TEMPORARY_FREE:
        raise ConfigError(
            f"TMPDIR: only {free / MIB:.0f} MiB are free in {folder}, a run needs {TEMPORARY_FREE / MIB:.0f}; make "
            "room, or set it to another folder"
        )
    if not fits_sockets(folder) and not socket_environment(folder):
        raise ConfigError(
            f"TMPDIR: {folder} is too long for Ray's sockets; set it to a folder of at most {LONGEST_TMPDIR} characters"
        )


def shared_memory_problem(folder: Path = SHARED_MEMORY) -> str | None:
    """What is wrong with the machine's shared memory; None where nothing is."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return f"there is no shared memory ({error.strerror}); mount it (docker: --shm-size=8g)"
    if not os.access(folder, os.W_OK | os.X_OK):
        return "nothing can be written there, Ray and vLLM must; mount it so that you may (docker: --shm-size=8g)"
    if usage.total < SHARED_MEMORY_WANTED:
        return f"only {usage.total / MIB:.0f} MiB of shared memory, Ray and vLLM need 1 GiB (docker: --shm-size=8g)"
    if usage.free < SHARED_MEMORY_FREE:
        return (
            f"only {usage.free / MIB:.0f} MiB of {usage.total / MIB:.0f} are free, Ray and vLLM need "
            f"{SHARED_MEMORY_FREE / MIB:.0f}; remove what ended programs left there"
        )
    return None


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
