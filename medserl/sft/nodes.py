"""Where a warm start's processes run: one node, or several that share a run directory. No torch.

On several nodes the same command is given on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK in its environment. The
first (NODE_RANK 0) holds the run directory, makes what the training reads and publishes the model; the others wait
until its launcher listens, and bring their workers.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from medserl.errors import ConfigError

PATIENCE = 1800.0
"""Seconds in which the first node must have read the notes and made the demonstrations."""
_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


class FirstNodeAbsent(RuntimeError):
    """The first node did not begin in time."""


@dataclass(frozen=True)
class Place:
    """This node among the nodes of a training.

    Args:
        nodes: How many there are.
        rank: Of this one, from 0.
        address: Of the first one; empty where there is one only.
        port: On which the first one's launcher listens.
    """

    nodes: int = 1
    rank: int = 0
    address: str = ""
    port: int = 0

    @property
    def first(self) -> bool:
        """Whether the run directory is this node's to write."""
        return self.rank == 0

    def launcher_options(self) -> list[str]:
        """What torch's launcher is told of it."""
        if self.nodes == 1:
            return ["--standalone", "--local-addr=127.0.0.1"]  # which the workers meet at
        return [
            *(f"--nnodes={self.nodes}", f"--node-rank={self.rank}"),
            *(f"--master-addr={self.address}", f"--master-port={self.port}"),
        ]

    def wait_for_first(self, over: Callable[[], bool], patience: float = PATIENCE, period: float = 1.0) -> bool:
        """Wait until the first node's launcher listens, which it does once all that the workers read is there.

        Args:
            over: Whether there is nothing left to do.
            patience: Seconds.
            period: Seconds between two looks.

        Returns:
            Whether there is something to do.

        Raises:
            FirstNodeAbsent: it did not in time.
        """
        deadline = time.monotonic() + patience
        while not over():
            try:
                socket.create_connection((self.address, self.port), timeout=5.0).close()
                return True
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise FirstNodeAbsent(
                        f"node {self.rank} of {self.nodes}: the first node, {self.address}:{self.port} (MASTER_ADDR, "
                        f"MASTER_PORT), does not answer after {patience / 60:.0f} minutes ({error}); look at what it "
                        "says (NODE_RANK=0)"
                    ) from None
            time.sleep(period)
        return False


def place_of(nodes: int) -> Place:
    """This node's place, as the environment has it.

    Raises:
        ConfigError: several nodes, and the environment does not say, or says what cannot be.
    """
    if nodes == 1:
        return Place()
    address, port, rank = (os.environ.get(name, "").strip() for name in _VARIABLES)
    if not (address and port and rank):
        raise ConfigError(
            f"trainer.nnodes: {nodes} nodes need MASTER_ADDR, MASTER_PORT and NODE_RANK in the environment of each"
        )
    if not rank.isdecimal() or int(rank) >= nodes:
        raise ConfigError(f"NODE_RANK: {rank!r} is not one of the ranks 0 to {nodes - 1} of trainer.nnodes {nodes}")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"MASTER_PORT: {port!r} is not a port; give the same number from 1 to 65535 on each node")
    return Place(nodes, int(rank), address, int(port))
