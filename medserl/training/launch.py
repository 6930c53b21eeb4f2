"""Brings up what a run stands on: the environment of every process, and Ray."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.errors import ConfigError

MODULES = "VERL_USE_EXTERNAL_MODULES"
VERL_PLUGIN = "medserl.training.verl_plugin"
RUN_TOKEN = "MEDSERL_RUN_TOKEN"  # medserl.training.verl_plugin, which verl's processes import
logger = logging.getLogger("medserl.launch")


def prepare_environment(config: DictConfig) -> dict[str, str]:
    """Put into ``os.environ`` what torch, verl and vLLM must find there, before any of them is imported.

    Returns:
        The variables, for Ray's workers.

    Raises:
        ConfigError: ``medserl.device`` and ``trainer.device`` contradict each other.
    """
    from medserl.cpu.environment import choose_device, cpu_environment, no_telemetry_environment

    device = choose_device(config.medserl.device)
    if device != config.trainer.device:
        raise ConfigError(
            f"trainer.device: the configuration is for {config.trainer.device}, this machine runs {device}; "
            f"choose another --config or set medserl.device={config.trainer.device}"
        )
    if device == "cpu":
        variables = cpu_environment()
        if config.trainer.nnodes > 1 or OmegaConf.select(config, "ray_kwargs.ray_init.address"):
            # Several nodes: not only the loopback interface.
            for name in ("GLOO_SOCKET_IFNAME", "VLLM_HOST_IP"):
                variables.pop(name, None)
    else:
        variables = no_telemetry_environment()
    modules = (variables.get(MODULES) or os.environ.get(MODULES, "")).split(",")
    variables[MODULES] = ",".join([*(m for m in modules if m and m != VERL_PLUGIN), VERL_PLUGIN])
    variables[RUN_TOKEN] = secrets.token_hex(4)
    os.environ.update(variables)
    return variables


class Cluster:
    """A Ray cluster of this run's own, or the one that ``ray_kwargs.ray_init.address`` names.

    Args:
        config: The run's configuration.
        variables: Environment of every worker process.
        log_dir: Where the workers' logs of an own cluster are kept when it ends.
        forward_logs: Whether the workers' output appears in this process's.
    """

    def __init__(
        self, config: DictConfig, variables: dict[str, str], log_dir: Path, forward_logs: bool = False
    ) -> None:
        import ray
        from verl.trainer.constants_ppo import get_ppo_ray_runtime_env

        self._temporary: Path | None = None
        self._log_dir = log_dir
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
        ray.init(log_to_driver=forward_logs, **options)
        if not config.ray_kwargs.ray_init.get("address"):
            return
        logger.info("joined the Ray cluster at %s with %d nodes", options["address"], len(ray.nodes()))

    def close(self) -> None:
        """End Ray, if it is this run's own its processes too, and remove its temporary files."""
        import ray

        ray.shutdown()
        if self._temporary is not None:
            self._keep_logs(self._temporary)
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _keep_logs(self, temporary: Path) -> None:
        """Save the workers' output, which Ray keeps in its temporary folder; it may quote clinical text."""
        self._log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        for source in temporary.glob("session_2*/logs/worker-*.*"):
            if source.stat().st_size:
                target = self._log_dir / source.name
                shutil.copyfile(source, target)
                target.chmod(0o600)
