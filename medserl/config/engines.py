"""The training engines that a configuration can choose: Megatron, the default, or FSDP (``model_engine=dp``).

A configuration is written for Megatron; with ``dp``, configs/fsdp/train.yaml is laid over it and Megatron's keys go.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config.family import TRAIN, TRAIN_FSDP, Family, compose
from medserl.config.mistakes import key_of
from medserl.config.refused import ENGINES, check_supported
from medserl.errors import ConfigError, Problems, all_told

ENGINE, MEGATRON, FSDP = "model_engine", "megatron", "dp"
_CHOICES = tuple(f"{ENGINE}={name}" for name in (MEGATRON, FSDP))
CRITIC_FOLLOWS = {"critic.model": "actor_rollout_ref.model", "critic.megatron": "actor_rollout_ref.actor.megatron"}
"""Sections of the critic that are the policy's, by configs/base.yaml."""
_PART = "+fsdp=train"
_SECTIONS = ("actor_rollout_ref.actor", "actor_rollout_ref.ref")
# Of Megatron's optimizer: what verl's FSDP does by itself.
_MEGATRONS_ADAM = ("use_precision_aware_optimizer", "main_grads_dtype", "exp_avg_dtype", "exp_avg_sq_dtype")
_OPTIMIZER = "use_checkpoint_opt_param_scheduler"


def compose_training(
    path: Path, overrides: Sequence[str], problems: Problems | None = None
) -> tuple[DictConfig, Family]:
    """A training's configuration, and the family whose keys it may have.

    Args:
        path: The configuration's file.
        overrides: Hydra's.
        problems: Takes what is wrong with single overrides and keys; None: it is raised.

    Raises:
        ConfigError: as ``compose``; a key of Megatron's beside ``model_engine=dp``.
    """
    with all_told(problems) as found:
        left = [text for text in overrides if not _sets_a_followers(text, found)]
        of_megatron, left = Problems(), _of_a_known_engine(left, found)
        config = compose(path.parent, path.stem, left, TRAIN, of_megatron)
        _check_critics_sections(config, found)
        if config.get("model_engine") != FSDP:  # a configuration of `medserl sft` has none, which load_config tells
            found.take(of_megatron)
            return config, TRAIN
        left = [text for text in left if not _is_megatrons(text, found)]
        config = compose(path.parent, path.stem, [_PART, *left], TRAIN_FSDP, found)
        with open_dict(config):
            for section in (OmegaConf.select(config, name) for name in _SECTIONS):
                for part, names in ((section, ("megatron",)), (section.get("optim"), (_OPTIMIZER,))):
                    _drop(part, names)
            _drop(config.critic, ("megatron",))
            _drop(config.critic.optim, (_OPTIMIZER, *_MEGATRONS_ADAM))
            _check_optimizer(path, config.actor_rollout_ref.actor.optim, found)
    return config, TRAIN_FSDP


def _of_a_known_engine(overrides: list[str], found: Problems) -> list[str]:
    """The overrides without those that choose an engine which there is none of here; with its keys, nothing of a
    configuration could be checked."""
    for text in overrides:
        value = text.partition("=")[2].strip("\"'")
        if key_of(text) == ENGINE and value != "null" and text not in _CHOICES:  # else Hydra looks for such a file
            check_supported(OmegaConf.create({ENGINE: value}), ENGINES, found)
    return [text for text in overrides if key_of(text) != ENGINE or not found.doubts(ENGINE)]


def _is_megatrons(text: str, found: Problems) -> bool:
    """Whether an override sets a key of Megatron's, which ``found`` takes."""
    key = key_of(text)
    megatrons = any(key.startswith(f"{section}.megatron") for section in _SECTIONS)
    if megatrons:
        found.add(ConfigError(f"{key}: Megatron's, which model_engine=dp does not use; leave it out"))
    return megatrons


def _drop(section: DictConfig | None, names: Sequence[str]) -> None:
    for name in names:
        if section is not None and name in section.keys():  # noqa: SIM118 - `in` says no for what cannot be resolved
            del section[name]


def _sets_a_followers(text: str, found: Problems) -> bool:
    """Whether an override stands below a section that is another one's, and would change that one; ``found`` takes
    it."""
    key = key_of(text)
    for own, section in CRITIC_FOLLOWS.items():
        if key == own or key.startswith(f"{own}."):
            instead = f"{section}{key[len(own) :]}"
            found.add(ConfigError(f"{key}: the critic's follows from the policy's; set {instead} instead", (instead,)))
            return True
    return False


def _check_critics_sections(config: DictConfig, found: Problems) -> None:
    """A file that sets a key there has all others of the section, as they were, merged with it."""
    for own, section in CRITIC_FOLLOWS.items():
        name = own.partition(".")[2]
        node = config.critic._get_node(name) if "critic" in config else None
        if isinstance(node, DictConfig) and not node._is_interpolation():
            found.add(
                ConfigError(f"{own}: the critic's follows from the policy's; leave it out of the file, set {section}")
            )
            config.critic[name] = f"${{{section}}}"


def _check_optimizer(path: Path, optimizer: DictConfig, found: Problems) -> None:
    """A file that keeps Adam on the host by Megatron's means would not fit where FSDP leaves them out."""
    for key in _MEGATRONS_ADAM:
        if key in optimizer:
            found.add(
                ConfigError(
                    f"model_engine=dp: {path.stem} is for Megatron (actor_rollout_ref.actor.optim.{key} has no "
                    "counterpart in FSDP); leave it out, or choose another configuration"
                )
            )
            return _drop(optimizer, (*_MEGATRONS_ADAM, "override_optimizer_config"))  # one of them says it


def megatrons(key: str) -> bool:
    """Whether what is known of a key, its values or that it has no effect, holds for Megatron only."""
    of_megatron = (".optim.betas", ".optim.optimizer", "_gradient_checkpointing", "_activation_offload")
    return ".megatron." in key or key.endswith(of_megatron)
