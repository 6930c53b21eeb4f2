"""Nothing of a run survives it: finds and ends the processes of one run, and clears what they left. Standard library
only.

Every process of a run has the run's token in its environment (``MEDSERL_RUN_TOKEN``). The main process looks for them
when it ends. A small guard beside it, this file run as a script, does so in its stead where the main process could
not: killed, or ended by Ray, which ends its driver 60 s after it lost its head (Ray 2.60, rpc_client.h).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO

RUN_TOKEN = "MEDSERL_RUN_TOKEN"
SOCKETS = "rl-colocate-zmq-"  # medserl.training.verl_plugin: in /tmp, with the token behind it
GRACE = 5.0  # seconds to end by themselves
DONE = b"done"
STATE, PARENT, START = 0, 1, 19  # places in what stands behind the name in /proc/PID/stat


def processes_of(token: str) -> list[int]:
    """Process ids of the run with this token, but neither this process nor its guard; those of this user only.

    What they started is the run's as well: Ray's agents hide the environment that they were given.
    """
    marked = f"{RUN_TOKEN}={token}".encode()
    found, parents = set(), dict[int, int]()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            status = _status(int(entry.name))
            if status is None:
                continue
            parents[int(entry.name)] = int(status[PARENT])
            if marked in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sorted(found)


def _status(pid: int) -> list[str] | None:
    """What /proc/PID/stat says behind the name, from the state on; None where the process is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[STATE] == "Z" else fields


def _is_tracker(pid: int) -> bool:
    """Whether it is Python's resource tracker, which removes shared memory once its users are gone."""
    with contextlib.suppress(OSError):
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def end_processes(token: str, grace: float = GRACE) -> int:
    """End every process of the run: politely, then by force; Python's resource trackers last.

    Returns:
        How many there were.
    """
    known: dict[int, str] = {}

    def left() -> list[int]:
        """The run's processes, and those seen before, whose parents may have gone since."""
        seen = ((pid, _status(pid)) for pid in processes_of(token))
        known.update({pid: status[START] for pid, status in seen if status})
        now = {pid: _status(pid) for pid in known}
        return [pid for pid, began in known.items() if (status := now[pid]) and status[START] == began]

    count = len(left())
    for number, chosen in (
        (signal.SIGTERM, lambda pid: not _is_tracker(pid)),
        (signal.SIGKILL, lambda pid: not _is_tracker(pid)),
        (signal.SIGKILL, lambda pid: True),
    ):
        _signal(filter(chosen, left()), number)
        if wait_for(lambda: not left(), grace):
            break
    return count


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came true within so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def keep_logs(ray_folder: Path, log_dir: Path) -> None:
    """Save the workers' output, which Ray keeps in its temporary folder; it may quote clinical text."""
    log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for source in ray_folder.glob("session_2*/logs/worker-*.*"):
        with contextlib.suppress(OSError):
            if source.stat().st_size:
                target = log_dir / source.name
                shutil.copyfile(source, target)
                target.chmod(0o600)


def clear(token: str, ray_folder: Path | None, log_dir: Path) -> None:
    """Keep the logs, remove Ray's temporary folder and the sockets of the run."""
    if ray_folder is not None:
        keep_logs(ray_folder, log_dir)
        shutil.rmtree(ray_folder, ignore_errors=True)
    for socket in Path("/tmp").glob(f"{SOCKETS}{token}-*"):
        socket.unlink(missing_ok=True)


class Guard:
    """The process that clears up where the main process cannot.

    Args:
        token: The run's token.
        ray_folder: Ray's temporary folder, to be removed; None where Ray is not this run's own.
        log_dir: Where the workers' logs go.
        console: Where it says what it did; None: standard error.
    """

    def __init__(self, token: str, ray_folder: Path | None, log_dir: Path, console: IO[str] | None = None) -> None:
        self.arguments = [token, str(ray_folder or ""), str(log_dir)]
        environment = {name: value for name, value in os.environ.items() if name != RUN_TOKEN}
        self._process = subprocess.Popen(
            # -I -S: starts in 10 ms; a session of its own: Ctrl-C is not for it
            [sys.executable, "-I", "-S", __file__, str(os.getpid()), *self.arguments],
            stdin=subprocess.PIPE,
            stderr=console,
            env=environment,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """The main process has cleared up itself."""
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(DONE, timeout=10)


def main(arguments: list[str]) -> int:
    """Wait until the main process says that it is done, or is gone; then clear up in its stead."""
    parent, token, ray_folder, log_dir = int(arguments[0]), *arguments[1:]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # a launcher signals everybody; this one ends last
    said = b""
    while not said.startswith(DONE):
        # A forked child of the main process may hold the pipe open: so its parent's number is looked at too.
        if select.select([0], [], [], 0.5)[0]:
            more = os.read(0, 64)
            said += more
            if not more:
                break
        elif os.getppid() != parent:
            break
    if said.startswith(DONE):
        return 0
    count = end_processes(token)
    clear(token, Path(ray_folder) if ray_folder else None, Path(log_dir))
    print(
        f"medserl: the run's main process ended without a message; its {count} other processes were ended, their "
        f"output is in {log_dir}; the same command resumes after the last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
