"""What nvidia-smi tells of this machine's GPUs: memory, driver, and whose processes are there. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

GIB = 2**30
MIB = 2**20
DRIVER_WANTED = 580
"""First branch of the driver that knows CUDA 13.0, for which the pinned packages are built (CUDA's release notes)."""
CUDA_WANTED = 13000
MEMORY_IN_USE = 0.1
_CARD = ("index", "uuid", "name", "driver_version", "memory.total", "memory.used")
_PROCESS = ("gpu_uuid", "pid", "process_name", "used_memory")


class NoAnswer(Exception):
    """nvidia-smi is not here, or does not tell; a phrase says why."""


@dataclass(frozen=True)
class Card:
    """One GPU."""

    index: str
    uuid: str
    name: str
    driver: str
    total: int
    """Bytes; 0 where it does not say."""
    used: int

    @property
    def free(self) -> int:
        """Bytes that a run can have; the little that the driver keeps for itself is counted with the run's contexts."""
        return self.total if self.used <= MEMORY_IN_USE * self.total else self.total - self.used


@dataclass(frozen=True)
class Guest:
    """A process that computes on a GPU."""

    uuid: str
    pid: str
    name: str
    used: int
    """Bytes; 0 where it does not say."""


def cards(environ: Mapping[str, str] = os.environ) -> list[Card]:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves; all of them where it names none that nvidia-smi knows.

    Raises:
        NoAnswer: there is no nvidia-smi, or it fails.
    """
    found = [
        Card(index, uuid, name, driver, _mib(total), _mib(used))
        for index, uuid, name, driver, total, used in _ask("gpu", _CARD)
    ]
    wanted = [word.strip() for word in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    visible = [card for card in found if any(word == card.index or card.uuid.startswith(word) for word in wanted)]
    return visible or found


def guests(shown: Sequence[Card]) -> list[Guest]:
    """Processes on these GPUs; none where nvidia-smi does not tell, as in a container."""
    known = {card.uuid for card in shown}
    try:
        rows = _ask("compute-apps", _PROCESS)
    except NoAnswer:
        return []
    return [Guest(uuid, pid, PurePath(name).name, _mib(used)) for uuid, pid, name, used in rows if uuid in known]


def guest_problems(shown: Sequence[Card]) -> list[str]:
    """A phrase for each GPU that others compute on."""
    found = []
    there = guests(shown)
    for card in shown:
        on_it = [guest for guest in there if guest.uuid == card.uuid]
        told = ", ".join(
            f"process {guest.pid} ({guest.name}{f', {guest.used / GIB:.1f} GiB' if guest.used else ''})"
            for guest in on_it
        )
        if on_it:
            found.append(f"GPU {card.index} is used by {told}; end it, or leave the GPU out by CUDA_VISIBLE_DEVICES")
        elif card.used > MEMORY_IN_USE * card.total:
            found.append(f"GPU {card.index} has {card.used / GIB:.1f} GiB in use (nvidia-smi shows by whom)")
    return found


def driver_problem(driver: str, cuda: int | None) -> str | None:
    """Why a driver is too old for the pinned packages; None where it is not, or where that cannot be told.

    Args:
        driver: Its version, as nvidia-smi writes it.
        cuda: What libcuda says it can do, ``cuda_of_driver``: a compatibility package makes it more than the
            driver's own; None where there is no libcuda.
    """
    major = driver.partition(".")[0]
    too_old = cuda < CUDA_WANTED if cuda is not None else major.isdigit() and int(major) < DRIVER_WANTED
    if not too_old:
        return None
    return (
        f"driver {driver} is older than {DRIVER_WANTED}, which CUDA {CUDA_WANTED // 1000}.0 of the pinned packages "
        "needs; update it, or install its cuda-compat package"
    )


def cuda_of_driver() -> int | None:
    """The newest CUDA that libcuda can do, 13000 for 13.0; None where there is none."""
    version = ctypes.c_int()
    with contextlib.suppress(OSError, AttributeError):
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version)) == 0:
            return version.value
    return None


def _ask(what: str, fields: Sequence[str]) -> list[list[str]]:
    command = ["nvidia-smi", f"--query-{what}={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswer(f"nvidia-smi: {type(error).__name__}; no driver, or not passed into the container") from None
    if done.returncode != 0:
        raise NoAnswer(f"nvidia-smi: {' '.join((done.stdout + done.stderr).split())[:200]}")
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    if any(len(row) != len(fields) for row in rows):
        raise NoAnswer(f"nvidia-smi: answers {rows[0]}, not {', '.join(fields)}")
    return rows


def _mib(cell: str) -> int:
    return int(cell) * MIB if cell.isdigit() else 0
