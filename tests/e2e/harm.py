"""Harms a run while it runs: kills a part of it at a certain moment, or gives it a disk that is too small."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

from tests.e2e.runs import Action, Started, processes


def kill_worker(after: str) -> Action:
    """SIGKILL to a Megatron worker as soon as ``after`` is in what the run says."""

    def kill(run: Started) -> None:
        if run.wait_for_text(after):
            os.kill(max(pid for pid, title in processes().items() if "WorkerDict" in title), signal.SIGKILL)

    return kill


def vllm_worker() -> int:
    """The newest of vLLM's workers: Ray's actor has the engine as a child, and that one a worker for each rank."""
    servers = [pid for pid, title in processes().items() if "vLLMHttpServer" in title]
    return max(pid for pid in servers if parent(pid) in servers and parent(parent(pid)) in servers)


def kill_vllm_inside_a_transfer(run: Started) -> None:
    """SIGKILL to vLLM's second worker as soon as the sender of new weights has opened the socket for it."""
    pid = vllm_worker()
    token = re.search(rb"MEDSERL_RUN_TOKEN=(\w+)", Path(f"/proc/{pid}/environ").read_bytes())
    assert token is not None
    name = f"rl-colocate-zmq-{token[1].decode()}-*-rank-1.sock"

    def is_open() -> bool:
        return any(Path("/tmp").glob(name))

    if run.wait_for(lambda: not is_open(), 0.01) and run.wait_for(is_open, 0.001):
        os.kill(pid, signal.SIGKILL)


def kill_vllm_while_it_generates(after: str) -> Action:
    """SIGKILL to vLLM's engine when its worker has begun to compute, once ``after`` is in what the run says.

    ``after`` must be said at the end of a round: what vLLM computes next then are the next round's games.
    """

    def kill(run: Started) -> None:
        if not run.wait_for_text(after):
            return
        worker = vllm_worker()
        before = cpu_seconds(worker)
        if run.wait_for(lambda: cpu_seconds(worker) > before + 0.15, 0.01):
            os.kill(parent(worker), signal.SIGKILL)

    return kill


def parent(pid: int) -> int:
    return int(_stat(pid)[1])


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class NoNamespace(RuntimeError):
    """Neither root nor a user that may make namespaces."""


class SmallDisk:
    """A file system of some megabytes over an empty folder, which only its own mount namespace sees: what does not
    fit there fails with the kernel's own "No space left on device".

    Args:
        folder: Is made.
        mebibytes: Size of the file system.

    Raises:
        NoNamespace: this machine does not let us.
    """

    def __init__(self, folder: Path, mebibytes: int) -> None:
        folder.mkdir()
        self.folder = folder
        user = [] if os.geteuid() == 0 else ["--map-root-user"]
        mount = f'mount -t tmpfs -o size={mebibytes}m,mode=700 none "$1" && echo there && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", *user, "--mount", "sh", "-c", mount, "sh", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None and self._holder.stderr is not None
        if not self._holder.stdout.readline():
            why = self._holder.stderr.read().strip()
            self.close()
            folder.rmdir()
            raise NoNamespace(f"this machine gives a test no mount namespace of its own ({why})")

    def enter(self) -> None:
        """Move this process, which must have one thread only, to where the file system is seen."""
        process = f"/proc/{self._holder.pid}/ns"
        names = (
            (("mnt", os.CLONE_NEWNS),) if os.geteuid() == 0 else (("user", os.CLONE_NEWUSER), ("mnt", os.CLONE_NEWNS))
        )
        handles = [(os.open(f"{process}/{name}", os.O_RDONLY), kind) for name, kind in names]
        for handle, kind in handles:
            os.setns(handle, kind)
            os.close(handle)

    def move_out(self) -> None:
        """Copy what is on it to the folder that it hides, on a disk with room; it is gone afterwards."""
        shutil.copytree(f"/proc/{self._holder.pid}/root{self.folder}", self.folder, symlinks=True, dirs_exist_ok=True)
        self.close()

    def close(self) -> None:
        """Nobody needs it any more."""
        self._holder.communicate("")
