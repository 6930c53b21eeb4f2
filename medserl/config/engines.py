"""The training engines that a configuration can choose: Megatron, the default, or FSDP (``model_engine=dp``).

A configuration is written for Megatron; with ``dp``, configs/fsdp/train.yaml is laid over it and Megatron's keys go.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config.family import TRAIN, TRAIN_FSDP, Family, compose
from medserl.config.refused import ENGINES, check_supported
from medserl.errors import ConfigError

MEGATRON, FSDP = "megatron", "dp"
CRITIC_FOLLOWS = {"critic.model": "actor_rollout_ref.model", "critic.megatron": "actor_rollout_ref.actor.megatron"}
"""Sections of the critic that are the policy's, by configs/base.yaml."""
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
    _check_followers(overrides)
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key == "model_engine" and value != "null":  # else Hydra looks for a file of that name
            check_supported(OmegaConf.create({key: value.strip("\"'")}), ENGINES)
    config = compose(path.parent, path.stem, overrides, TRAIN)
    _check_critics_sections(config)
    if config.get("model_engine") != FSDP:  # a configuration of `medserl sft` has none, which load_config tells
        return config, TRAIN
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        if any(key.startswith(f"{section}.megatron") for section in _SECTIONS):
            raise ConfigError(f"{key}: Megatron's, which model_engine=dp does not use; leave it out")
    config = compose(path.parent, path.stem, [_PART, *overrides], TRAIN_FSDP)
    with open_dict(config):
        for section in (OmegaConf.select(config, name) for name in _SECTIONS):
            for part, names in ((section, ("megatron",)), (section.get("optim"), (_OPTIMIZER,))):
                _drop(part, names)
        _drop(config.critic, ("megatron",))
        _drop(config.critic.optim, (_OPTIMIZER, *_MEGATRONS_ADAM))
        _check_optimizer(path, config.actor_rollout_ref.actor.optim)
    return config, TRAIN_FSDP


def _drop(section: DictConfig | None, names: Sequence[str]) -> None:
    for name in names:
        if section is not None and name in section.keys():  # noqa: SIM118 - `in` says no for what cannot be resolved
            del section[name]


def _check_followers(overrides: Sequence[str]) -> None:
    """An override below a section that is another one's would change that one."""
    for text in overrides:
        key = text.lstrip("+~").partition("=")[0]
        for own, section in CRITIC_FOLLOWS.items():
            if key == own or key.startswith(f"{own}."):
                raise ConfigError(
                    f"{key}: the critic's follows from the policy's; set {section}{key[len(own) :]} instead"
                )


def _check_critics_sections(config: DictConfig) -> None:
    """A file that sets a key there has all others of the section, as they were, merged with it."""
    for own, section in CRITIC_FOLLOWS.items():
        node = config.critic._get_node(own.partition(".")[2]) if "critic" in config else None
        if isinstance(node, DictConfig) and not node._is_interpolation():
            raise ConfigError(f"{own}: the critic's follows from the policy's; leave it out of the file, set {section}")


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
    of_megatron = (".optim.betas", ".optim.optimizer", "_gradient_checkpointing", "_activation_offload")
    return ".megatron." in key or key.endswith(of_megatron)
