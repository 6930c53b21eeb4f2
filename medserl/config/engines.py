"""The training engines that a configuration can choose: Megatron, the default, or FSDP (``model_engine=dp``).

A configuration is written for Megatron; with ``dp``, configs/fsdp/train.yaml is laid over it and Megatron's keys go.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config.family import TRAIN, TRAIN_FSDP, Family, compose
from medserl.errors import ConfigError

MEGATRON, FSDP = "megatron", "dp"
_PART = "+fsdp=train"
_SECTIONS = ("actor_rollout_ref.actor", "actor_rollout_ref.ref")
# Of Megatron's optimizer: what verl's FSDP does by itself.
_MEGATRONS_ADAM = ("use_precision_aware_optimizer", "main_grads_dtype", "exp_avg_dtype", "exp_avg_sq_dtype")
_OPTIMIZER = "use_checkpoint_opt_param_scheduler"


def compose_training(path: Path, overrides: Sequence[str]) -> tuple[DictConfig, Family]:
    """A training's configuration, and the family whose keys it may have.

    Raises:
        ConfigError: as ``compose``; a key of Megatron's beside ``model_engine=dp``.
    """
    config = compose(path.parent, path.stem, overrides, TRAIN)
    if config.get("model_engine") != FSDP:  # a configuration of `medserl sft` has none, which load_config tells
        return config, TRAIN
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if any(key.startswith(f"{section}.megatron") for section in _SECTIONS):
            raise ConfigError(f"{key}: Megatron's, which model_engine=dp does not use; leave it out")
    config = compose(path.parent, path.stem, [_PART, *overrides], TRAIN_FSDP)
    with open_dict(config):
        for section in map(lambda name: OmegaConf.select(config, name), _SECTIONS):
            section.pop("megatron", None)
            if "optim" in section:
                section.optim.pop(_OPTIMIZER, None)
                _check_optimizer(path, section.optim)
    return config, TRAIN_FSDP


def _check_optimizer(path: Path, optimizer: DictConfig) -> None:
    """A file that keeps Adam on the host by Megatron's means would not fit where FSDP leaves them out."""
    for key in _MEGATRONS_ADAM:
        if key in optimizer:
            raise ConfigError(
                f"model_engine=dp: {path.stem} is for Megatron (actor_rollout_ref.actor.optim.{key} has no "
                "counterpart in FSDP); leave it out, or choose another configuration"
            )


def megatrons(key: str) -> bool:
    """Whether what is known of a key, its values or that it has no effect, holds for Megatron only."""
    return ".megatron." in key or key.endswith((".optim.betas", ".optim.optimizer"))
