"""Brings up what a run stands on: the environment of every process, and Ray."""

from __future__ import annotations

import logging
import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from medserl.errors import ConfigError
from medserl.loopback import ON_LOOPBACK
from medserl.run.leftovers import GRACE, RUN_TOKEN, Guard, clear, end_processes, processes_of, wait_for

MODULES = "VERL_USE_EXTERNAL_MODULES"
VERL_PLUGIN = "medserl.training.verl_plugin"
RAY_WAS_SLOW = "node timed out during startup"  # Ray 2.60, _private/node.py: its 30 s cannot be changed
# Ray 2.60, _private/ray_constants.py (ENABLE_RAY_CLUSTER): the node's address is 127.0.0.1 then, on every system, and
# with it what Ray, TransferQueue, verl and vLLM bind their servers to.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **ON_LOOPBACK}
MEMORY_SHARE = 0.98
"""Of this machine's memory that may be in use before Ray ends workers of a run on CPUs. Ray's 0.95 leaves more of a
small machine unused than its other programs need, and what a run needs was added up before it started."""
MEMORY_VARIABLE = "RAY_memory_usage_threshold"
logger = logging.getLogger("medserl.launch")


def is_on_one_node(config: DictConfig) -> bool:
    """Whether nothing outside this machine has to reach the run."""
    return config.trainer.nnodes == 1 and not OmegaConf.select(config, "ray_kwargs.ray_init.address")


def prepare_environment(config: DictConfig, threads: int = 1) -> dict[str, str]:
    """Put into ``os.environ`` what torch, verl and vLLM must find there, before any of them is imported.

    Args:
        config: The run's configuration.
        threads: Compute threads of a worker, on CPUs.

    Returns:
        The variables, for Ray's workers.

    Raises:
        ConfigError: ``medserl.device`` and ``trainer.device`` contradict each other.
    """
    from medserl.cpu.environment import common_environment, cpu_environment

    device = device_of(config)
    if device == "cpu":
        variables = cpu_environment(threads=threads)
        if config.trainer.nnodes > 1 or OmegaConf.select(config, "ray_kwargs.ray_init.address"):
            # Several nodes: not only the loopback interface.
            for name in ("GLOO_SOCKET_IFNAME", "VLLM_HOST_IP"):
                variables.pop(name, None)
        elif MEMORY_VARIABLE not in os.environ:
            variables[MEMORY_VARIABLE] = f"{MEMORY_SHARE:g}"
    else:
        variables = common_environment() | _connections(config)
    modules = (variables.get(MODULES) or os.environ.get(MODULES, "")).split(",")
    variables[MODULES] = ",".join([*(m for m in modules if m and m != VERL_PLUGIN), VERL_PLUGIN])
    variables[RUN_TOKEN] = secrets.token_hex(4)
    if is_on_one_node(config):
        variables |= LOOPBACK_ONLY
    if not OmegaConf.select(config, "ray_kwargs.ray_init.address"):
        variables |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # the run's own, in no file
    os.environ.update(variables)
    if "TMPDIR" in variables:
        logger.info("TMPDIR %s is too long for sockets; the run uses %s", tempfile.gettempdir(), variables["TMPDIR"])
        tempfile.tempdir = None  # Python remembers the one that it found first
    return variables


def _connections(config: DictConfig) -> dict[str, str]:
    """What lets Megatron's tensor parallelism overlap on A100 and H100, where verl cannot know that it is needed.

    verl (0.9.1, trainer/constants_ppo.py) sets it where the driver's own process sees such a GPU; the head of a
    cluster may have none. Not for FSDP, which it would slow down.
    """
    from medserl.cpu.environment import gpus_here

    name = "CUDA_DEVICE_MAX_CONNECTIONS"
    if name in os.environ or config.get("model_engine") == "dp" or gpus_here():
        return {}
    return {name: "1"}


def device_of(config: DictConfig) -> str:
    """``cpu`` or ``cuda``, which the configuration and this machine must agree on.

    Raises:
        ConfigError: ``medserl.device``, ``trainer.device`` and what is here contradict each other.
    """
    from medserl.cpu.environment import choose_device

    wanted, asked = str(config.trainer.device), str(config.medserl.device)
    device = choose_device(asked)
    if device != wanted and asked != "auto":
        raise ConfigError(
            f"medserl.device is {asked} and trainer.device {wanted}, which must be the same; choose a --config that is "
            "made for the device"
        )
    if device != wanted:
        raise ConfigError(
            f"trainer.device: the configuration is for {wanted}, this machine runs {device}; choose another --config "
            f"or set medserl.device={wanted}"
        )
    return device


class Cluster:
    """A Ray cluster of this run's own, or the one that ``ray_kwargs.ray_init.address`` names.

    Args:
        config: The run's configuration.
        variables: Environment of every worker process.
        log_dir: Where the workers' logs of an own cluster are kept when it ends.
        forward_logs: Whether the workers' output appears in this process's.
        console: Where people look; None: standard error.
    """

    def __init__(
        self,
        config: DictConfig,
        variables: dict[str, str],
        log_dir: Path,
        forward_logs: bool = False,
        console: IO[str] | None = None,
    ) -> None:
        import ray
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        self._temporary: Path | None = None
        self._log_dir = log_dir
        self._token = variables[RUN_TOKEN]
        options: dict[str, Any] = OmegaConf.to_container(config.ray_kwargs.ray_init, resolve=True)
        runtime_env = OmegaConf.to_container(
            OmegaConf.merge(get_ppo_ray_runtime_env(config), options.pop("runtime_env", None) or {})
        )
        assert isinstance(runtime_env, dict)
        runtime_env["env_vars"].update(variables, TRANSFER_QUEUE_ENABLE="1")
        options["runtime_env"] = {key: value for key, value in runtime_env.items() if value is not None}
        if options.get("address"):
            for key in ("num_cpus", "num_gpus", "object_store_memory", "include_dashboard"):
                options.pop(key, None)  # belong to whoever started that cluster
        else:
            # A short path of its own: socket names below it must stay under 107 bytes, and a machine's other
            # users must not be able to read logs with clinical text.
            self._temporary = Path(tempfile.mkdtemp(prefix="medserl-"))
            options["_temp_dir"] = str(self._temporary)
            options["address"] = "local"
        self._guard = Guard(self._token, self._temporary, log_dir, console)
        try:
            self._start_ray(log_to_driver=forward_logs, **options)
        except BaseException:
            self.close()
            raise
        finally:
            # Ray's processes and the workers have it; what a caller's program starts later is none of the run's.
            os.environ.pop(RUN_TOKEN, None)
        if config.ray_kwargs.ray_init.get("address"):
            logger.info("joined the Ray cluster at %s with %d nodes", options["address"], len(ray.nodes()))

    def _start_ray(self, **options: Any) -> None:
        """``ray.init``; once more where it gives up because the machine was too busy to start Ray in 30 s."""
        import ray

        for last in (False, False, True):
            try:
                ray.init(**options)
                return
            except Exception as error:
                if last or RAY_WAS_SLOW not in str(error):
                    raise
                logger.warning("this machine took longer than Ray waits (30 s) to start it; trying once more")
                ray.shutdown()
                end_processes(self._token)

    def own_processes(self) -> dict[str, Callable[[], bool]]:
        """Name and liveness of the processes of this run's own Ray; empty where it joined one."""
        import ray

        node = ray._private.worker._global_node
        if self._temporary is None or node is None:
            return {}

        def alive(process: Any) -> Callable[[], bool]:
            return lambda: process.poll() is None

        names = ("gcs_server", "raylet")
        return {name: alive(info.process) for name in names for info in node.all_processes.get(name, [])}

    def abandon(self) -> None:
        """End every process of this run without asking Ray, and remove temporary files."""
        end_processes(self._token)
        clear(self._token, self._temporary, self._log_dir)
        self._guard.dismiss()

    def close(self) -> None:
        """End Ray, every process of this run that is still there, and remove temporary files."""
        import ray

        ray.shutdown()
        wait_for(lambda: not processes_of(self._token), GRACE)
        if left := end_processes(self._token):
            logger.info("%d processes of the run outlived Ray and were ended", left)
        clear(self._token, self._temporary, self._log_dir)
        self._guard.dismiss()
