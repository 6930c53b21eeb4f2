"""Ports for a job's Ray, and the wait until all of its nodes are there."""

from __future__ import annotations

import socket
import sys
import time

from medserl.errors import UserError

FIRST_PORT = 20000  # below the range of outgoing connections, which starts at 32768
JOBS = 1200
PORTS_PER_JOB = 10
PORTS_WANTED = 3
"""Ray's head, its client server, and the store of the preflight's all-reduce."""


def free_port(address: str, job: int) -> int:
    """The first of three ports in a row that follow from the job's number and are free on this node.

    Raises:
        UserError: all that the job may use are taken.
    """
    base = FIRST_PORT + job % JOBS * PORTS_PER_JOB
    for first in range(base, base + PORTS_PER_JOB - PORTS_WANTED + 1, PORTS_WANTED):
        if all(_is_free(address, port) for port in range(first, first + PORTS_WANTED)):
            return first
    raise UserError(f"ports {base} to {base + PORTS_PER_JOB - 1} of {address} are taken; submit the job again")


def _is_free(address: str, port: int) -> bool:
    for host in (address, ""):  # the second finds those that listen on another address of this node
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except (OSError, TypeError):  # TypeError: a name that no host can have
                return False
    return True


def wait_for_nodes(address: str, nodes: int, gpus: int, seconds: float) -> None:
    """Wait until Ray counts ``nodes`` nodes with ``gpus`` GPUs each.

    Raises:
        UserError: they did not join within ``seconds``; the sentence says which did.
    """
    import ray

    ray.init(address=address, log_to_driver=False, logging_level="error")
    deadline = time.monotonic() + seconds
    shown = 0
    while True:
        alive = {node["NodeManagerAddress"]: node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]}
        if len(alive) != shown:
            print(f"{len(alive)} of {nodes} nodes have joined", file=sys.stderr, flush=True)
            shown = len(alive)
        if len(alive) == nodes and all(count >= gpus for count in alive.values()):
            return
        if time.monotonic() > deadline:
            there = ", ".join(f"{node} with {count:g}" for node, count in sorted(alive.items()))
            raise UserError(f"{nodes} nodes with {gpus} GPUs each were wanted, these joined in time: {there or 'none'}")
        time.sleep(0.5)
