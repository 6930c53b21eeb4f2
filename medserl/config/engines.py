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
_SECTIONS = ("actor_rollout_ref.actor", "actor_rollout_ref.ref", "critic")
# Of Megatron's optimizer: what verl's FSDP does by itself.
_OPTIMIZER = "use_checkpoint_opt_param_scheduler"


def compose_training(path: Path, overrides: Sequence[str]) -> tuple[DictConfig, Family]:
    """A training's configuration, and the family whose keys it may have.

    Raises:
        ConfigError: as ``compose``; a key of Megatron's beside ``model_engine=dp``.
    """
    config = compose(path.parent, path.stem, overrides, TRAIN)
    if config.model_engine != FSDP:
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
    return config, TRAIN_FSDP


def megatrons(key: str) -> bool:
    """Whether what is known of a key, its values or that it has no effect, holds for Megatron only."""
    return ".megatron." in key or key.endswith((".optim.betas", ".optim.optimizer"))
