"""The all-reduce of the preflight between processes of one machine; also what runs in them (``python -m``)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence

from medserl.loopback import ON_LOOPBACK
from medserl.preflight.node_checks import Check

JOIN_SECONDS = 20.0
SECONDS = 55.0
"""For all of it, torch's import included."""
_SIOCGIFADDR = 0x8915  # linux/sockios.h


def address_of(interface: str) -> str | None:
    """IPv4 address of a network interface; None where it has none, or is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        return socket.inet_ntoa(answer[20:24])
    return None


class LocalRanks:
    """Ranks of this machine that add numbers, started at once so that the caller can do something else meanwhile.

    Args:
        interface: The network interface that Gloo and NCCL must take; empty: their own choice.
        gpus: NCCL joins in with two or more, one rank on each; Gloo has two ranks at least.
    """

    def __init__(self, interface: str, gpus: int) -> None:
        self._process: subprocess.Popen[str] | None = None
        address = address_of(interface) if interface else "127.0.0.1"
        if address is None:
            return
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        if interface:
            environment |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
        else:
            environment |= ON_LOOPBACK
        self._process = subprocess.Popen(
            # -P: a torch.py in the current directory is not what is meant
            [sys.executable, "-P", "-m", "medserl.preflight.local_ranks", address, str(gpus)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def checks(self) -> list[Check]:
        """What the first rank found; waits for it."""
        if self._process is None:
            return [Check("all-reduce", "-", "the interface has no IPv4 address; name another one")]
        try:
            out, err = self._process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return [Check("all-reduce", "-", f"no answer within {SECONDS:.0f} s; a firewall, or a busy machine")]
        finally:
            self.close()
        if self._process.returncode != 0 or not out.strip():
            said = err.strip().splitlines() or ["no message"]
            return [Check("all-reduce", "-", f"could not be tried: {said[-1][:200]}")]
        return [Check(**check) for check in json.loads(out.splitlines()[-1])]

    def close(self) -> None:
        """End the ranks, where they are still there."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def main(arguments: Sequence[str]) -> int:
    """Fork the other ranks after torch's import, which is what takes the time; print what the first one found."""
    address, gpus = arguments[0], int(arguments[1])
    import torch.distributed  # noqa: F401

    from medserl.preflight.all_reduce import all_reduce_checks

    nodes = [f"rank {rank}" for rank in range(max(2, gpus))]
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    others = []
    for rank in range(1, len(nodes)):
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                all_reduce_checks(address, port, rank, nodes, gpus > 1, JOIN_SECONDS, device=rank)
            os._exit(0)
        others.append(child)
    found = all_reduce_checks(address, port, 0, nodes, gpus > 1, JOIN_SECONDS)
    for child in others:  # one that waits for what has failed would do so for a minute
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    print(json.dumps([vars(check) for check in found]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
