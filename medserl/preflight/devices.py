"""Whether this machine has what a configuration asks of it: a GPU, attention for it, room in Ray. No torch.

Looked at where this process brings up its own Ray only: the head of a cluster may have no GPU, and whoever started
that cluster has counted its devices.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os

from omegaconf import DictConfig, OmegaConf

from medserl.cpu.environment import gpus_here, vllm_is_cpu_build
from medserl.errors import ConfigError, Problems, all_told
from medserl.preflight.nvidia import NoAnswer, cards, cuda_of_driver, driver_problem, guest_problems
from medserl.run.launch import device_of
from medserl.words import counted

_log = logging.getLogger("medserl.run")
CPUS_PER_WORKER = 3
"""Logical CPUs that verl's placement bundles ask Ray for with each worker (verl 0.9.1, RayResourcePool)."""
CPUS_BESIDE = 2
"""Of TransferQueue's controller and storage unit."""
_FLASH = ("flash-attn", "flash-attn-3", "flash-attn-4")
_BACKENDS = ("auto", "fused", "flash", "unfused", "local")


def check_device(config: DictConfig, problems: Problems | None = None) -> None:
    """The device must be the configuration's, and a GPU must be here where this process is to use one.

    Args:
        config: The run's configuration.
        problems: Takes what is wrong; None: it is raised.

    Raises:
        ConfigError: devices that contradict each other, too few GPUs, packages for CPUs, or an attention backend
        whose package is not installed.
    """
    with all_told(problems) as found:
        device = None
        with found.noted():
            device = device_of(config)
        if device != "cuda":
            return
        with found.noted():
            check_attention(config)
        if not joins_a_cluster(config):
            _check_gpus(config, found)


def _check_gpus(config: DictConfig, found: Problems) -> None:
    there, needed = gpus_here(), devices_on_node(config)
    if there < needed:
        shown = counted(there, "GPU")
        found.add(
            ConfigError(
                f"trainer.n_gpus_per_node: this machine shows {shown} (CUDA_VISIBLE_DEVICES counts), the configuration "
                f"needs {needed}; change it, or choose another --config"
            )
        )
        return
    with found.noted():
        check_driver()
    tell_guests()
    if vllm_is_cpu_build():
        found.add(
            ConfigError(
                "trainer.device: cuda, but the installed packages are those for CPUs; run `python3 bootstrap.py "
                "--device cuda setup`, or choose another --config"
            )
        )


def check_driver() -> None:
    """The driver must know the CUDA that the pinned packages are built for.

    Raises:
        ConfigError: it is too old; torch would say so after minutes, and of the first GPU only.
    """
    try:
        drivers = {card.driver for card in cards()}
    except NoAnswer:
        return
    for driver in sorted(drivers):
        if (problem := driver_problem(driver, cuda_of_driver())) is not None:
            raise ConfigError(f"trainer.device: cuda, but {problem}")


def tell_guests() -> None:
    """A line for each GPU that others compute on: vLLM ends a start, or its sleep, where their memory changes."""
    with contextlib.suppress(NoAnswer):
        for problem in guest_problems(cards()):
            _log.warning("%s: a run needs its GPUs for itself, whose free memory vLLM watches", problem)


def check_attention(config: DictConfig) -> None:
    """Transformer Engine must have what the chosen attention backend needs.

    Raises:
        ConfigError: ``flash`` without the package flash-attn: Megatron switches all other backends off then, and the
        first forward pass raises "No dot product attention backend is available", after minutes.
    """
    keys = [f"actor_rollout_ref.{part}.megatron" for part in ("actor", "ref")] + ["engine"]
    for key in keys:
        name = f"{key}.override_transformer_config.attention_backend"
        backend = OmegaConf.select(config, name)
        if backend is None:
            continue
        if backend not in _BACKENDS:
            raise ConfigError(f"{name}: {backend!r} is not one of {', '.join(_BACKENDS)}")
        if backend == "flash" and not any(map(_installed, _FLASH)):
            raise ConfigError(f"{name}: flash needs the package flash-attn, which is not installed; use fused or auto")
        if backend == "local":
            raise ConfigError(
                f"trainer.device: cuda, but the configuration is one for CPUs ({name} is local, which Transformer "
                "Engine does not take); choose another --config, such as embedded_gpu, or set that key to fused or auto"
            )


def check_ray(config: DictConfig, problems: Problems | None = None) -> None:
    """A Ray of this run's own must have the devices and CPUs that the workers ask for, or they wait for ever.

    Args:
        config: The run's configuration.
        problems: Takes what is wrong; None: it is raised.

    Raises:
        ConfigError: names what is too little.
    """
    if joins_a_cluster(config):
        return
    ray, devices = config.ray_kwargs.ray_init, devices_on_node(config)
    logical, cpus, least = ray.get("num_gpus"), ray.get("num_cpus"), CPUS_PER_WORKER * devices + CPUS_BESIDE
    there = cpus if cpus is not None else os.cpu_count() or 1
    with all_told(problems) as found:
        if config.trainer.nnodes > 1:
            found.add(
                ConfigError(
                    f"trainer.nnodes: {config.trainer.nnodes}, but a Ray that this run starts has one node; give "
                    "+ray_kwargs.ray_init.address=HOST:PORT, or start it with `medserl slurm submit`"
                )
            )
        if logical is not None and logical < devices:
            found.add(
                ConfigError(
                    f"ray_kwargs.ray_init.num_gpus: {logical} is less than the {counted(devices, 'worker')} of "
                    "trainer.n_gpus_per_node and the served models; raise it"
                )
            )
        if there < least:
            found.add(
                ConfigError(
                    f"ray_kwargs.ray_init.num_cpus: {there} is less than the {least} logical CPUs that a run of "
                    f"{counted(devices, 'worker')} asks Ray for; set ray_kwargs.ray_init.num_cpus={least} or more"
                )
            )


def joins_a_cluster(config: DictConfig) -> bool:
    """Whether the run joins a Ray that somebody else has started."""
    return bool(OmegaConf.select(config, "ray_kwargs.ray_init.address"))


def devices_on_node(config: DictConfig) -> int:
    """Devices on one node: those of the training, and of a frozen model that verl serves beside it."""
    served = OmegaConf.select(config, "reward.reward_model")
    beside = served.n_gpus_per_node * served.nnodes if served is not None and served.enable else 0
    return int(config.trainer.n_gpus_per_node + beside)


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
