"""Answers, on a host without CUDA, the CUDA names that megatron-core 0.16.1 spells out.

megatron-core has no device abstraction. It asks ``torch.cuda`` for the current device and for
streams, makes tensors with ``device="cuda"``, and recognises gradients by ``tensor.type() ==
"torch.cuda.FloatTensor"``. Two means cover all of it, with no upstream source edited:

- `install_stand_ins` replaces functions of ``torch.cuda`` in this process. It is called by Megatron
  workers only (`medserl.cpu.megatron`), never in vLLM's processes.
- `CudaToCPU` is a mode: inside it, and in this thread only, "cuda" means the host.

The places are listed in `medserl.cpu.patches`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


class HostStream:
    """Stands in for ``torch.cuda.Stream`` and ``Event``: work on the host is done when it returns."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        del args, kwargs

    def __enter__(self) -> HostStream:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def wait_stream(self, stream: object) -> None:
        del stream

    def wait_event(self, event: object) -> None:
        del event

    def record(self, stream: object = None) -> None:
        del stream

    def wait(self, stream: object = None) -> None:
        del stream

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True


def _same_tensor(self: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
    return self


def _same_module(self: torch.nn.Module, *args: object, **kwargs: object) -> torch.nn.Module:
    return self


def install_stand_ins() -> None:
    """Replaces what megatron-core, mbridge and verl's Megatron engine call in ``torch.cuda``.

    ``is_available`` must say False by itself: vLLM, where it is imported in the same process, sets
    PYTORCH_NVML_BASED_CUDA_CHECK, and torch's optimizers ask whether a CUDA graph is being captured if
    it says True. Can be called any number of times.
    """
    cuda: Any = torch.cuda
    cuda.is_available = lambda: False
    cuda.is_current_stream_capturing = lambda: False
    cuda.current_device = lambda: CPU
    cuda.set_device = lambda device: None
    cuda.synchronize = lambda device=None: None
    cuda.empty_cache = lambda: None
    cuda.Stream = HostStream
    cuda.Event = HostStream
    cuda.current_stream = lambda device=None: HostStream()
    cuda.default_stream = lambda device=None: HostStream()
    cuda.stream = lambda stream: HostStream()
    torch.Tensor.cuda = _same_tensor
    torch.nn.Module.cuda = _same_module
    _use_host_generator()


def _use_host_generator() -> None:
    """megatron's named random states become states of the host's generator.

    Its own setter hands the work to CUDA's lazy initialisation, which never comes here: the host's
    generator would be left at whatever seed megatron tried last.
    """
    from megatron.core.tensor_parallel import random

    cuda: Any = torch.cuda
    cuda.manual_seed = lambda seed: torch.manual_seed(seed)
    cuda.get_rng_state = lambda device=None: torch.get_rng_state()
    cuda.set_rng_state = lambda state, device=None: torch.set_rng_state(state)
    random._get_cuda_rng_state = lambda device=None, clone=False, graph_safe=False: torch.get_rng_state()
    random._set_cuda_rng_state = lambda state, device=None, graph_safe=False: torch.set_rng_state(state)


def _is_cuda(value: object) -> bool:
    return isinstance(value, str | torch.device) and str(value).startswith("cuda")


class CudaToCPU(TorchFunctionMode):
    """Within ``with CudaToCPU():`` a device "cuda" is the host, for calls from this thread.

    ``tensor.type()`` answers with the name that the same tensor would have on a GPU, because
    megatron-core compares with such names; nothing else in its call tree reads them.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.Tensor.type and len(args) == 1 and not kwargs:
            return func(*args).replace("torch.", "torch.cuda.", 1)
        if kwargs and _is_cuda(kwargs.get("device")):
            kwargs = {**kwargs, "device": CPU}
        if len(args) > 1 and any(map(_is_cuda, args[1:])):  # tensor.to("cuda"), tensor.to("cuda:0", dtype)
            args = (args[0], *(CPU if _is_cuda(a) else a for a in args[1:]))
        return func(*args, **(kwargs or {}))
