"""verl on CPUs: the platform "cpu", and the two places where verl assumes an accelerator.

``import verl`` loads this module in every process (``VERL_USE_EXTERNAL_MODULES=medserl.cpu.plugin``).
It therefore imports nothing beyond what verl has imported before it (torch), and it does nothing
unless ``VERL_PLATFORM=cpu``. What must be changed in modules that verl imports later waits for their
import: see `medserl.imports`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry, get_platform

from medserl.cpu.environment import relax_garbage_collector
from medserl.imports import after_import

PLATFORM = "cpu"


class CPUDevice(ModuleType):
    """What verl asks of ``torch.<device>``: ``torch.cpu``, and answers where that has none.

    verl reads memory figures from here (they are zero: the host's own are no device's), seeds and
    saves random states (the host generator's), and waits for streams (nothing runs asynchronously).
    """

    Event = torch.cpu.Stream  # verl makes events only to wait for them; torch.cpu has no Event
    Stream = torch.cpu.Stream
    get_rng_state = staticmethod(torch.get_rng_state)
    set_rng_state = staticmethod(torch.set_rng_state)

    def __init__(self) -> None:
        super().__init__("medserl.cpu.device", "torch.cpu with the rest of torch.cuda's interface")
        for name in ("memory_allocated", "memory_reserved"):
            setattr(self, name, lambda *_: 0)
            setattr(self, f"max_{name}", lambda *_: 0)
        for name in ("empty_cache", "ipc_collect", "set_per_process_memory_fraction"):
            setattr(self, name, lambda *_: None)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def set_device(self, device: object) -> None:
        del device

    def get_device_name(self, device: object = None) -> str:
        """The key of verl's table of peak FLOPs (``verl.utils.flops_counter``)."""
        del device
        return "CPU"

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        """(free, total) bytes of the host's memory."""
        del device
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")


class PlatformCPU(PlatformBase):
    """verl's platform interface (``verl.plugin.platform.PlatformBase``) on a plain host."""

    _device = CPUDevice()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> ModuleType:
        return self._device

    def is_available(self) -> bool:
        return True

    def current_device(self) -> Any:
        """A device, not an index: verl calls ``tensor.to(get_device_id())``, and 0 means cuda:0 there."""
        return torch.device("cpu")

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        """verl counts only "GPU" and "NPU": ``ray.init(num_gpus=N)`` declares N slots, not devices."""
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    @contextlib.contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def cudart(self) -> None:
        return None


# --- changes to modules that verl imports later ------------------------------------------------------


def use_plain_gloo(distributed: ModuleType) -> None:
    """verl.utils.distributed: the default backend becomes "gloo" (patches.PROCESS_GROUP)."""
    distributed.initialize_global_process_group_ray = functools.partial(  # type: ignore[attr-defined]
        distributed.initialize_global_process_group_ray, backend="gloo"
    )


def register_megatron_engine(_: ModuleType) -> None:
    """verl.workers.engine.megatron: its engine for language models is registered for CPUs too."""
    from medserl.cpu.megatron import register

    register()


def register_fsdp_engine(_: ModuleType) -> None:
    """verl.workers.engine.fsdp: its engines are registered for CPUs too."""
    from medserl.cpu.fsdp import register

    register()


AFTER_IMPORT: dict[str, Callable[[ModuleType], None]] = {
    "verl.utils.distributed": use_plain_gloo,
    "verl.workers.engine.fsdp": register_fsdp_engine,
    "verl.workers.engine.megatron": register_megatron_engine,
}


def activate() -> None:
    """Registers the platform and installs the hooks; does nothing the second time."""
    if PlatformRegistry.get(PLATFORM) is PlatformCPU:
        return
    relax_garbage_collector()
    PlatformRegistry.register(platform=PLATFORM)(PlatformCPU)
    after_import(AFTER_IMPORT)


def assert_active() -> None:
    """Raises RuntimeError where this process is no CPU process: the trainer calls it at its start.

    verl logs the exceptions of some plug-ins at DEBUG only, and falls back to "nvidia"; the failure
    would then come much later and say nothing of its cause.
    """
    if os.environ.get("VERL_PLATFORM") != PLATFORM:
        raise RuntimeError(f"VERL_PLATFORM is {os.environ.get('VERL_PLATFORM')!r} here, not {PLATFORM!r}")
    if PlatformRegistry.get(PLATFORM) is not PlatformCPU:
        raise RuntimeError("verl was imported before the environment of medserl.cpu was set")
    platform = get_platform()
    if not isinstance(platform, PlatformCPU):
        raise RuntimeError(f"verl chose its platform {platform.device_name!r} before it loaded medserl.cpu")
    from verl.utils import distributed

    if not isinstance(distributed.initialize_global_process_group_ray, functools.partial):
        raise RuntimeError("verl.utils.distributed was imported past medserl.cpu's hook")


if os.environ.get("VERL_PLATFORM", "").strip().lower() == PLATFORM:
    activate()
