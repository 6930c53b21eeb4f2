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

from medserl.config.complete import complete, complete_sft, expand_home
from medserl.config.contradictions import check_mixture
from medserl.config.engines import compose_training, megatrons
from medserl.config.family import (
    BASES,
    SFT,
    TRAIN_FSDP,
    Family,
    available_configs,
    check_notes_named,
    compose,
    config_path,
    configs_dir,
    verl_config_dir,
)
from medserl.config.handed_on import check_handed_on
from medserl.config.mistakes import OWN, first_line, reject_unknown_keys, verl_defaults
from medserl.config.own_types import mistakes_in_file
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
from medserl.config.values import SFT_RULES, TRAIN_RULES, Usual, check_values
from medserl.errors import ConfigError, Problems, all_told

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
    name_or_path: str = DEFAULT_CONFIG,
    overrides: Sequence[str] = (),
    *,
    starts: bool = True,
    problems: Problems | None = None,
) -> DictConfig:
    """Compose, check and complete a configuration.

    Args:
        name_or_path: A name in ``configs/`` or the path of a YAML file of the same form.
        overrides: Hydra overrides, ``key=value`` or ``+key=value``.
        starts: It is for a start, which needs notes; where it is only looked at, those that the configuration leaves
            to the user need not be named.
        problems: Takes what is wrong with single keys, for a caller who looks at more and then tells all of it; the
            configuration has usual values in their place. None: it is raised.

    Returns:
        The resolved configuration, with verl's keys at the top and the game's under ``medserl``.

    Raises:
        UserError: all of: an unknown configuration, unknown or misspelt keys, values of the wrong type or size, parts
            of verl's that were never tested here, keys that have no effect, or notes that nobody named.
    """
    with all_told(problems) as found:
        return _load(name_or_path, overrides, starts, found)


def _load(name_or_path: str, overrides: Sequence[str], starts: bool, found: Problems) -> DictConfig:
    path = config_path(name_or_path)
    of_sft = ConfigError(f"--config {name_or_path}: is for `medserl sft`")
    if _is_shipped(name_or_path) and is_sft_config(name_or_path):  # before any override is said to be unknown
        raise of_sft
    config, family = compose_training(path, overrides, found)
    if "engine" in config:
        raise of_sft
    fsdp, defaults = family is TRAIN_FSDP, verl_defaults(family)
    rules = {key: rule for key, rule in TRAIN_RULES.items() if not (fsdp and megatrons(key))}
    without_effect = tuple((key, why) for key, why in TRAIN_WITHOUT_EFFECT if not (fsdp and megatrons(key)))
    check_supported(config, TRAIN_ONLY[fsdp], found)
    reject_unknown_keys(config, family, found)
    usual = _usual(name_or_path, DEFAULT_CONFIG, family)
    check_values(config, rules, defaults, found, usual)
    check_handed_on(config, found, megatron=not fsdp)
    check_effects(config, _shared("base"), defaults, without_effect, found)
    expand_home(config)
    if starts:
        with found.noted():
            check_notes_named(config, name_or_path, overrides)
    return _resolved(complete(config, _settings(config, GameSettings, found), found), name_or_path)


def _usual(name_or_path: str, default: str, family: Family) -> Usual:
    """Makes the configuration whose values stand in for wrong ones: the shipped one that is meant, else the default."""
    name = name_or_path if _is_shipped(name_or_path) else default
    return functools.cache(lambda: compose(configs_dir(), name, (), family))


def load_sft_config(
    name_or_path: str = DEFAULT_SFT_CONFIG,
    overrides: Sequence[str] = (),
    *,
    starts: bool = True,
    problems: Problems | None = None,
) -> DictConfig:
    """``load_config`` for ``medserl sft``: verl's keys of its supervised trainer, ours under ``medserl``.

    Raises:
        UserError: as ``load_config``.
    """
    with all_told(problems) as found:
        return _load_sft(name_or_path, overrides, starts, found)


def _load_sft(name_or_path: str, overrides: Sequence[str], starts: bool, found: Problems) -> DictConfig:
    path = config_path(name_or_path)
    of_training = ConfigError(
        f"--config {name_or_path}: is for `medserl train`, `medserl sft` needs one such as sft_embedded"
    )
    if _is_shipped(name_or_path) and not is_sft_config(name_or_path):
        raise of_training
    config = compose(path.parent, path.stem, overrides, SFT, found)
    if "engine" not in config:
        raise of_training
    defaults = verl_defaults(SFT)
    check_supported(config, SFT_ONLY, found)
    reject_unknown_keys(config, SFT, found)
    check_values(config, SFT_RULES, defaults, found, _usual(name_or_path, DEFAULT_SFT_CONFIG, SFT))
    check_handed_on(config, found)
    check_effects(config, _shared("sft_base"), defaults, SFT_WITHOUT_EFFECT, found)
    expand_home(config)
    if starts:
        with found.noted():
            check_notes_named(config, name_or_path, overrides)
    settings = _settings(config, SftSettings, found)
    completed = complete_sft(config, settings, found)
    check_mixture(settings, overrides, found)
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


def _settings(config: DictConfig, settings: type, found: Problems) -> Any:
    """The typed section of a configuration that is being loaded; what is wrong in it is told, and gives way to the
    default of the settings."""
    usual = OmegaConf.create({OWN: OmegaConf.structured(settings)})
    while True:
        try:
            return _typed(config, settings)
        except ConfigError as error:
            (key,) = error.keys
            if found.doubts(key):
                raise
            found.add(error)
            OmegaConf.update(config, key, OmegaConf.select(usual, key), merge=False)


def _typed(config: DictConfig, settings: type) -> Any:
    try:
        section = OmegaConf.to_container(config.medserl, resolve=True)
        for names, told in mistakes_in_file(settings, section):
            key = ".".join((OWN, *names))
            raise ConfigError(f"{key}: {told or 'MedSeRL has no such key'}", (key,))
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(settings), section))
    except MissingMandatoryValue as error:
        key = _key(error)
        raise ConfigError(f"{key}: this configuration leaves it to you; give it a value", (key,)) from None
    except OmegaConfBaseException as error:
        key = _key(error)
        raise ConfigError(f"{key}: {first_line(error)}", (key,)) from None


def _key(error: OmegaConfBaseException) -> str:
    key = str(getattr(error, "full_key", None) or "")
    return key if key.startswith("medserl") else f"medserl.{key}".rstrip(".")
