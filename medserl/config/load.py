"""Composes a run's configuration: verl's defaults, one file of ``configs/``, overrides; unknown keys, values of the
wrong type or size, and what was never tested here are errors.

Imports Hydra and OmegaConf only, never torch or verl.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from medserl.config.complete import check_mixture, complete, complete_sft, expand_home
from medserl.config.engines import compose_training, megatrons
from medserl.config.family import (
    BASES,
    SFT,
    TRAIN_FSDP,
    available_configs,
    check_notes_named,
    compose,
    config_path,
    configs_dir,
    verl_config_dir,
)
from medserl.config.handed_on import check_handed_on
from medserl.config.mistakes import first_line, reject_unknown_keys, verl_defaults
from medserl.config.refused import (
    SFT_ONLY,
    SFT_WITHOUT_EFFECT,
    TRAIN_ONLY,
    TRAIN_WITHOUT_EFFECT,
    check_effects,
    check_supported,
)
from medserl.config.settings import GameSettings
from medserl.config.sft_settings import SftSettings
from medserl.config.values import SFT_RULES, TRAIN_RULES, check_values
from medserl.errors import ConfigError

__all__ = [
    "BASES",
    "DEFAULT_CONFIG",
    "DEFAULT_SFT_CONFIG",
    "REAL_CONFIG",
    "REAL_SFT_CONFIG",
    "available_configs",
    "configs_dir",
    "game_settings",
    "is_sft_config",
    "load_config",
    "load_sft_config",
    "sft_settings",
    "verl_config_dir",
]

DEFAULT_CONFIG = "embedded"
DEFAULT_SFT_CONFIG = "sft_embedded"
REAL_CONFIG, REAL_SFT_CONFIG = "real_cpu", "sft_real_cpu"
"""For models that are not the ward's, on CPUs."""


def load_config(
    name_or_path: str = DEFAULT_CONFIG, overrides: Sequence[str] = (), *, starts: bool = True
) -> DictConfig:
    """Compose, check and complete a configuration.

    Args:
        name_or_path: A name in ``configs/`` or the path of a YAML file of the same form.
        overrides: Hydra overrides, ``key=value`` or ``+key=value``.
        starts: It is for a start, which needs notes; where it is only looked at, those that the configuration leaves
            to the user need not be named.

    Returns:
        The resolved configuration, with verl's keys at the top and the game's under ``medserl``.

    Raises:
        ConfigError: an unknown configuration, an unknown or misspelt key, a value of the wrong type or size, a part
        of verl's that was never tested here, a key that has no effect, or notes that nobody named.
    """
    path = config_path(name_or_path)
    of_sft = ConfigError(f"--config {name_or_path}: is for `medserl sft`")
    if _is_shipped(name_or_path) and is_sft_config(name_or_path):  # before any override is said to be unknown
        raise of_sft
    config, family = compose_training(path, overrides)
    if "engine" in config:
        raise of_sft
    check_supported(config, TRAIN_ONLY[family is TRAIN_FSDP])
    reject_unknown_keys(config, family)
    fsdp = family is TRAIN_FSDP
    rules = {key: rule for key, rule in TRAIN_RULES.items() if not (fsdp and megatrons(key))}
    check_values(config, rules, verl_defaults(family))
    check_handed_on(config)
    without_effect = tuple((key, why) for key, why in TRAIN_WITHOUT_EFFECT if not (fsdp and megatrons(key)))
    check_effects(config, _shared("base"), verl_defaults(family), without_effect)
    expand_home(config)
    if starts:
        check_notes_named(config, name_or_path, overrides)
    return _resolved(complete(config, game_settings(config)), name_or_path)


def load_sft_config(
    name_or_path: str = DEFAULT_SFT_CONFIG, overrides: Sequence[str] = (), *, starts: bool = True
) -> DictConfig:
    """``load_config`` for ``medserl sft``: verl's keys of its supervised trainer, ours under ``medserl``.

    Raises:
        ConfigError: as ``load_config``.
    """
    path = config_path(name_or_path)
    of_training = ConfigError(
        f"--config {name_or_path}: is for `medserl train`, `medserl sft` needs one such as sft_embedded"
    )
    if _is_shipped(name_or_path) and not is_sft_config(name_or_path):
        raise of_training
    config = compose(path.parent, path.stem, overrides, SFT)
    if "engine" not in config:
        raise of_training
    check_supported(config, SFT_ONLY)
    reject_unknown_keys(config, SFT)
    check_values(config, SFT_RULES, verl_defaults(SFT))
    check_handed_on(config)
    check_effects(config, _shared("sft_base"), verl_defaults(SFT), SFT_WITHOUT_EFFECT)
    expand_home(config)
    if starts:
        check_notes_named(config, name_or_path, overrides)
    settings = sft_settings(config)
    completed = complete_sft(config, settings)
    check_mixture(settings, overrides)
    return _resolved(completed, name_or_path)


@functools.cache
def _shared(name: str) -> DictConfig:
    """The file that every configuration of a family stands on, as it is written."""
    return cast(DictConfig, OmegaConf.load(configs_dir() / f"{name}.yaml"))


def is_sft_config(name_or_path: str) -> bool:
    """Whether a configuration is one of ``medserl sft``: it stands on ``sft_base``, or on one that does."""
    path = config_path(name_or_path)
    defaults = [item for item in OmegaConf.load(path).get("defaults", []) if isinstance(item, str)]
    parents = [item for item in defaults if item != "_self_" and item not in BASES]
    return "sft_base" in defaults or any(
        (configs_dir() / f"{item}.yaml").is_file() and is_sft_config(item) for item in parents
    )


def _is_shipped(name: str) -> bool:
    return name in available_configs()


def _resolved(config: DictConfig, name: str) -> DictConfig:
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration {name}: {first_line(error)}") from None
    return config


def sft_settings(config: DictConfig) -> SftSettings:
    """The typed ``medserl`` section of a configuration that ``load_sft_config`` made."""
    return cast(SftSettings, _typed(config, SftSettings))


def game_settings(config: DictConfig) -> GameSettings:
    """The typed ``medserl`` section of a configuration that ``load_config`` made."""
    return cast(GameSettings, _typed(config, GameSettings))


def _typed(config: DictConfig, settings: type) -> Any:
    try:
        section = OmegaConf.to_container(config.medserl, resolve=True)
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(settings), section))
    except MissingMandatoryValue as error:
        raise ConfigError(f"{_key(error)}: this configuration leaves it to you; give it a value") from None
    except OmegaConfBaseException as error:
        raise ConfigError(f"{_key(error)}: {first_line(error)}") from None


def _key(error: OmegaConfBaseException) -> str:
    key = str(getattr(error, "full_key", None) or "")
    return key if key.startswith("medserl") else f"medserl.{key}".rstrip(".")
