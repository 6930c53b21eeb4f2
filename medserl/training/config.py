"""Composes a run's configuration: verl's defaults, one file of ``configs/``, overrides; unknown keys are
errors.

Imports Hydra and OmegaConf only, never torch or verl: verl's YAML files are found on disk.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from medserl.errors import ConfigError
from medserl.training.settings import (
    BUILTIN_MODEL,
    DEVICES,
    INJECTOR_FORMATS,
    JUDGE,
    NORMALISATIONS,
    ORACLE,
    TRAIN_ROLES,
    GameSettings,
    labelled_per_round,
)

DEFAULT_CONFIG = "embedded"
# Dictionaries that verl hands on to another library as they are: it does not list their keys.
OPEN_NODES = (
    "medserl",
    "ray_kwargs.ray_init",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.actor.megatron.override_transformer_config",
    "actor_rollout_ref.actor.megatron.override_ddp_config",
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "actor_rollout_ref.ref.megatron.override_transformer_config",
    "actor_rollout_ref.model.override_config",
    "data.apply_chat_template_kwargs",
)
# Keys of verl's configuration dataclasses that its YAML files do not list.
DATACLASS_ONLY_KEYS = (
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
)


def configs_dir() -> Path:
    """The folder of shipped configurations: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "configs", package.parent / "configs"):
        if (candidate / "base.yaml").is_file():
            return candidate
    raise ConfigError(f"no configs folder beside {package}; reinstall medserl")


def verl_config_dir() -> Path:
    """The folder of verl's own configuration files, found without importing verl."""
    spec = importlib.util.find_spec("verl")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("verl is not installed; run `python3 bootstrap.py train` or install requirements/cpu.txt")
    return Path(next(iter(spec.submodule_search_locations))) / "trainer" / "config"


def available_configs() -> list[str]:
    """Names that ``--config`` takes."""
    return sorted(p.stem for p in configs_dir().glob("*.yaml") if p.stem != "base")


def load_config(name_or_path: str = DEFAULT_CONFIG, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose, check and complete a configuration.

    Args:
        name_or_path: A name in ``configs/`` or the path of a YAML file of the same form.
        overrides: Hydra overrides, ``key=value`` or ``+key=value``.

    Returns:
        The resolved configuration, with verl's keys at the top and the game's under ``medserl``.

    Raises:
        ConfigError: an unknown configuration, an unknown or misspelt key, a value of the wrong type.
    """
    path = _config_path(name_or_path)
    config = _compose(path.parent, path.stem, overrides)
    _reject_unknown_keys(config)
    config = _complete(config, game_settings(config))
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration {name_or_path}: {_first_line(error)}") from None
    return config


def game_settings(config: DictConfig) -> GameSettings:
    """The typed ``medserl`` section of a configuration that ``load_config`` made."""
    return cast(GameSettings, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(GameSettings), config.medserl)))


def _config_path(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path.resolve()
    known = configs_dir() / f"{name_or_path}.yaml"
    if known.is_file() and name_or_path != "base":
        return known
    raise ConfigError(f"--config {name_or_path}: no such configuration; known: {', '.join(available_configs())}")


def _compose(directory: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    search_path = f"hydra.searchpath=[file://{configs_dir()},file://{verl_config_dir()}]"
    ConfigStore.instance().store(group="medserl", name="defaults", node=GameSettings)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(directory), version_base=None):
            return compose(config_name=name, overrides=[search_path, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides)) from None


def _explain(error: Exception, overrides: Sequence[str]) -> str:
    """One sentence from Hydra's several lines, naming the override that caused it where that can be told."""
    text = _first_line(error)
    cause = _first_line(error.__cause__) if error.__cause__ else ""
    culprit = next((o for o in overrides if o.lstrip("+~").split("=")[0] in text), None)
    if culprit is not None and "Could not override" in text:
        key = culprit.lstrip("+~").split("=")[0]
        near = _nearest(key, _all_keys())
        hint = f"; did you mean {near}?" if near else ""
        return f"override {culprit!r}: neither verl nor MedSeRL has a key {key}{hint}"
    where = f"override {culprit!r}: " if culprit else ""
    return f"{where}{text}{' (' + cause + ')' if cause and cause not in text else ''}"


def _all_keys() -> list[str]:
    settings = [f"medserl.{key}" for key in _keys(OmegaConf.structured(GameSettings))]
    return [*settings, *_verl_keys()]


@functools.cache
def _verl_keys() -> tuple[str, ...]:
    return tuple(_keys(_compose(verl_config_dir(), "ppo_trainer", ["model_engine=megatron"])))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].strip()


def _nearest(key: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(key, list(known), n=1)), None)


def _keys(node: Any, prefix: str = "") -> list[str]:
    """All dotted keys of a configuration, inner nodes included, interpolations left alone."""
    if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation():
        return []
    found: list[str] = []
    for key in node:
        name = f"{prefix}{key}"
        found.append(name)
        child = node._get_node(key)
        if isinstance(child, DictConfig | ListConfig):
            found += _keys(child, f"{name}.")
    return found


def _reject_unknown_keys(config: DictConfig) -> None:
    """Hydra accepts any key that a configuration file or a ``+`` override names; verl would ignore it in
    silence."""
    known = {*_verl_keys(), *DATACLASS_ONLY_KEYS}
    for key in _keys(config):
        if key in known or any(key == node or key.startswith(f"{node}.") for node in OPEN_NODES):
            continue
        near = _nearest(key, known)
        hint = f"; did you mean {near}?" if near else ""
        raise ConfigError(f"configuration key {key}: neither verl nor MedSeRL knows it{hint}")


def _complete(config: DictConfig, settings: GameSettings) -> DictConfig:
    """Set what follows from other keys, so that it is written in one place only."""
    from omegaconf import open_dict

    _check_choices(settings)
    if settings.referee.name == "auto":
        settings.referee.name = ORACLE if settings.notes.path is None else "instruction"
    if config.data.train_batch_size is not None:
        raise ConfigError("data.train_batch_size: follows from medserl.rollout_batch_size; set that one instead")
    with open_dict(config):
        config.medserl = OmegaConf.structured(settings)
        config.data.train_batch_size = settings.rollout_batch_size + labelled_per_round(settings)
        config.data.apply_chat_template_kwargs.enable_thinking = settings.thinking
        config.data.seed = settings.seed
        config.actor_rollout_ref.actor.data_loader_seed = settings.seed
        config.actor_rollout_ref.rollout.seed = settings.seed
        config.actor_rollout_ref.rollout.agent.num_workers = max(1, settings.rollout_workers)
        config.trainer.default_local_dir = str(Path(settings.run_dir).absolute() / "checkpoints")
        config.trainer.experiment_name = Path(settings.run_dir).name
        if settings.max_rounds is not None:
            config.trainer.total_training_steps = settings.max_rounds
        if config.actor_rollout_ref.model.path == BUILTIN_MODEL:
            from medserl.ward import model_dir

            config.actor_rollout_ref.model.path = str(model_dir())
        _complete_judge(config, settings)
    return config


def _complete_judge(config: DictConfig, settings: GameSettings) -> None:
    if JUDGE not in (settings.referee.name, settings.second_referee.name):
        return
    from medserl.training.judge import JudgeOptions, judge_of, serve_with_verl

    try:
        judge = judge_of(settings)
        options = JudgeOptions(**judge.options) if judge else None
    except TypeError as error:
        raise ConfigError(f"referee 'judge' does not take these options: {error}") from None
    if options is not None and options.url is None:
        serve_with_verl(config, options)


def _check_choices(settings: GameSettings) -> None:
    for key, value, choices in (
        ("device", settings.device, DEVICES),
        ("injector_format", settings.injector_format, INJECTOR_FORMATS),
        ("train_roles", settings.train_roles, TRAIN_ROLES),
        ("advantage.normalisation", settings.advantage.normalisation, NORMALISATIONS),
    ):
        if value not in choices:
            raise ConfigError(f"medserl.{key}: {value!r} is none of {', '.join(choices)}")
    for key, number, least in (
        ("rollout_batch_size", settings.rollout_batch_size, 2),
        ("max_attempts", settings.max_attempts, 1),
        ("rollout_workers", settings.rollout_workers, 0),
    ):
        if number < least:
            raise ConfigError(f"medserl.{key}: {number} is less than {least}")
    if settings.max_rounds is not None and settings.max_rounds < 1:
        raise ConfigError(f"medserl.max_rounds: {settings.max_rounds} is less than 1")
    for key, share in (
        ("labelled_share", settings.labelled_share),
        ("max_failed_share", settings.max_failed_share),
    ):
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"medserl.{key}: {share} is not between 0 and 1")
    vcf = settings.vcf
    if not 0.0 <= vcf.min_jaccard <= vcf.max_jaccard <= 1.0:
        raise ConfigError(
            f"medserl.vcf: min_jaccard {vcf.min_jaccard} and max_jaccard {vcf.max_jaccard} must satisfy "
            "0 <= min <= max <= 1"
        )
    if vcf.max_word_edits < 1:
        raise ConfigError(f"medserl.vcf.max_word_edits: {vcf.max_word_edits} is less than 1")
