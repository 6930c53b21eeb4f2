"""Adds numbers over the network between all nodes of a job, as the training will: Gloo, and NCCL where GPUs are."""

from __future__ import annotations

import datetime
import time
from typing import TYPE_CHECKING

from medserl.loopback import keep_store_on_loopback
from medserl.preflight.node_checks import Check

if TYPE_CHECKING:
    import torch.distributed as dist

ELEMENTS = 2**20
"""float32 numbers in the buffer: 4 MiB."""
REPEATS = 4
JOIN_SECONDS = 90.0
REDUCE_SECONDS = 60.0


def all_reduce_checks(
    address: str,
    port: int,
    rank: int,
    nodes: list[str],
    gpu: bool,
    join_seconds: float = JOIN_SECONDS,
    device: int = 0,
) -> list[Check]:
    """Meet the other nodes at ``address``:``port`` (served by rank 0) and add a buffer, timed.

    Args:
        address: Rank 0's address on the chosen interface.
        port: Free there.
        rank: This node's place in ``nodes``.
        nodes: Names of all nodes.
        gpu: Whether to use NCCL too.
        join_seconds: How long to wait for the others.
        device: The GPU for NCCL, by its number here.

    Returns:
        One check for each backend; a problem names the nodes that did not come.
    """
    import torch.distributed as dist

    world = len(nodes)
    keep_store_on_loopback(dist)
    try:
        store = dist.TCPStore(
            address,
            port,
            world,
            is_master=rank == 0,
            timeout=datetime.timedelta(seconds=join_seconds),
            wait_for_workers=False,
        )
    except Exception as error:  # torch raises several kinds; the sentence is what matters
        return [Check("all-reduce", "-", f"cannot reach {nodes[0]} at {address}:{port} ({_first(error)})")]
    missing = _meet(store, rank, nodes, join_seconds)
    if missing:
        checks = [Check("all-reduce", "-", f"waited for {', '.join(missing)} in vain")]
    else:
        checks = [_reduce(store, "gloo", rank, world, device)]
        if gpu:
            checks.append(_reduce(store, "nccl", rank, world, device))
    _leave(store, rank, nodes)
    return checks


def _meet(store: dist.TCPStore, rank: int, nodes: list[str], seconds: float) -> list[str]:
    """Names of the nodes that did not come in time."""
    store.set(f"joined/{rank}", "yes")
    deadline = time.monotonic() + seconds
    while True:
        missing = [node for index, node in enumerate(nodes) if not store.check([f"joined/{index}"])]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(0.1)


def _leave(store: dist.TCPStore, rank: int, nodes: list[str]) -> None:
    """Rank 0 serves the store and goes last."""
    store.set(f"left/{rank}", "yes")
    deadline = time.monotonic() + 10
    while rank == 0 and time.monotonic() < deadline:
        if all(store.check([f"left/{index}"]) for index in range(len(nodes)) if store.check([f"joined/{index}"])):
            time.sleep(0.2)  # the last answers are on their way
            return
        time.sleep(0.1)


def _reduce(store: dist.TCPStore, backend: str, rank: int, world: int, gpu: int) -> Check:
    import torch
    import torch.distributed as dist

    name = "all-reduce" if backend == "gloo" else "NCCL"
    device = torch.device("cuda", gpu) if backend == "nccl" else torch.device("cpu")
    try:
        dist.init_process_group(
            backend,
            store=dist.PrefixStore(backend, store),
            rank=rank,
            world_size=world,
            timeout=datetime.timedelta(seconds=REDUCE_SECONDS),
        )
        times = []
        for _ in range(REPEATS):
            buffer = torch.full((ELEMENTS,), float(rank + 1), device=device)
            began = time.perf_counter()
            dist.all_reduce(buffer)
            total = float(buffer[-1])
            times.append(time.perf_counter() - began)
            if total != world * (world + 1) / 2:
                return Check(name, "wrong", f"{backend} added up to {total} instead of {world * (world + 1) / 2}")
        dist.destroy_process_group()
    except Exception as error:
        return Check(name, "-", f"{backend}: {_first(error)}")
    return Check(name, f"{ELEMENTS * 4 / min(times) / 1e9:.2f} GB/s")


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
