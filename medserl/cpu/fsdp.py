"""verl's FSDP engines on CPUs (gloo), for ``model_engine=dp``.

Imported after ``verl.workers.engine.fsdp`` by `medserl.cpu.plugin`. FSDP names no device of its own, so nothing is
answered for here, but for one thing: what has no gradients keeps its parameters in pinned memory.
"""

from __future__ import annotations

from typing import Any

from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl

BACKENDS = ["fsdp2"]
"""FSDP1 asks for a device that its flat parameters are copied to."""


def unpinned(*arguments: Any, **options: Any) -> Any:
    """torch's policy for parameters on the host, which they are on anyway; memory is pinned for a GPU only."""
    from torch.distributed.fsdp import CPUOffloadPolicy

    return CPUOffloadPolicy(*arguments, **{**options, "pin_memory": False})


def register() -> None:
    """Makes verl choose its own engines on the platform "cpu"; once per process."""
    transformer_impl.CPUOffloadPolicy = unpinned
    for kind, engine in (
        ("language_model", transformer_impl.FSDPEngineWithLMHead),
        ("value_model", transformer_impl.FSDPEngineWithValueHead),
    ):
        EngineRegistry.register(model_type=kind, backend=BACKENDS, device="cpu")(engine)
