"""Composes a run's configuration: verl's defaults, one file of ``configs/``, overrides; unknown keys are
errors.

Imports Hydra and OmegaConf only, never torch or verl: verl's YAML files are found on disk.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from medserl.config.plugins import resolved_source
from medserl.config.settings import (
    BUILTIN_MODEL,
    DEVICES,
    FILES,
    INJECTOR_FORMATS,
    JUDGE,
    NORMALISATIONS,
    ORACLE,
    TRAIN_ROLES,
    WARD,
    GameSettings,
    labelled_per_round,
)
from medserl.config.sft_settings import SftSettings
from medserl.errors import ConfigError
from medserl.game.registry import AUTO

DEFAULT_CONFIG = "embedded"
DEFAULT_SFT_CONFIG = "sft_embedded"
BASES = ("base", "sft_base")
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
    "engine.override_transformer_config",
    "engine.override_ddp_config",
    "engine.override_mcore_model_config",
    "optim.override_optimizer_config",
    "model.override_config",
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
    return sorted(p.stem for p in configs_dir().glob("*.yaml") if p.stem not in BASES)


@dataclass(frozen=True)
class Family:
    """Configurations that stand on the same defaults of verl's."""

    base: str
    """verl's configuration, in verl/trainer/config."""
    chosen: tuple[str, ...]
    """Overrides on it that choose Megatron, for the list of known keys."""
    settings: type
    """Our ``medserl`` section."""
    group: str
    """Name under which files name that section's defaults."""


TRAIN = Family("ppo_trainer", ("model_engine=megatron",), GameSettings, "defaults")
SFT = Family("sft_trainer_engine", ("engine=megatron", "optim=megatron"), SftSettings, "sft")


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
    config = _compose(path.parent, path.stem, overrides, TRAIN)
    if "engine" in config:
        raise ConfigError(f"--config {name_or_path}: is for `medserl sft`")
    _reject_unknown_keys(config, TRAIN)
    return _resolved(_complete(config, game_settings(config)), name_or_path)


def load_sft_config(name_or_path: str = DEFAULT_SFT_CONFIG, overrides: Sequence[str] = ()) -> DictConfig:
    """``load_config`` for ``medserl sft``: verl's keys of its supervised trainer, ours under ``medserl``.

    Raises:
        ConfigError: as ``load_config``.
    """
    path = _config_path(name_or_path)
    config = _compose(path.parent, path.stem, overrides, SFT)
    if "engine" not in config:
        raise ConfigError(
            f"--config {name_or_path}: is for `medserl train`, `medserl sft` needs one such as sft_embedded"
        )
    _reject_unknown_keys(config, SFT)
    return _resolved(_complete_sft(config, sft_settings(config)), name_or_path)


def is_sft_config(name_or_path: str) -> bool:
    """Whether a configuration is one of ``medserl sft``: it stands on ``sft_base``, or on one that does."""
    path = _config_path(name_or_path)
    defaults = [item for item in OmegaConf.load(path).get("defaults", []) if isinstance(item, str)]
    parents = [item for item in defaults if item != "_self_" and item not in BASES]
    return "sft_base" in defaults or any(
        (configs_dir() / f"{item}.yaml").is_file() and is_sft_config(item) for item in parents
    )


def _resolved(config: DictConfig, name: str) -> DictConfig:
    try:
        OmegaConf.resolve(config)
    except OmegaConfBaseException as error:
        raise ConfigError(f"configuration {name}: {_first_line(error)}") from None
    return config


def sft_settings(config: DictConfig) -> SftSettings:
    """The typed ``medserl`` section of a configuration that ``load_sft_config`` made."""
    return cast(SftSettings, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SftSettings), config.medserl)))


def game_settings(config: DictConfig) -> GameSettings:
    """The typed ``medserl`` section of a configuration that ``load_config`` made."""
    return cast(GameSettings, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(GameSettings), config.medserl)))


def _config_path(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path.resolve()
    known = configs_dir() / f"{name_or_path}.yaml"
    if known.is_file() and name_or_path not in BASES:
        return known
    raise ConfigError(f"--config {name_or_path}: no such configuration; known: {', '.join(available_configs())}")


def _compose(directory: Path, name: str, overrides: Sequence[str], family: Family) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    search_path = f"hydra.searchpath=[file://{configs_dir()},file://{verl_config_dir()}]"
    for known in (TRAIN, SFT):
        ConfigStore.instance().store(group="medserl", name=known.group, node=known.settings)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(directory), version_base=None):
            return compose(config_name=name, overrides=[search_path, *overrides])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, overrides, family)) from None


def _explain(error: Exception, overrides: Sequence[str], family: Family) -> str:
    """One sentence from Hydra's several lines, naming the override that caused it where that can be told."""
    text = _first_line(error)
    cause = _first_line(error.__cause__) if error.__cause__ else ""
    culprit = next((o for o in overrides if o.lstrip("+~").split("=")[0] in text), None)
    if culprit is not None and "Could not override" in text:
        key = culprit.lstrip("+~").split("=")[0]
        near = _nearest(key, _all_keys(family))
        hint = f"; did you mean {near}?" if near else ""
        return f"override {culprit!r}: neither verl nor MedSeRL has a key {key}{hint}"
    where = f"override {culprit!r}: " if culprit else ""
    return f"{where}{text}{' (' + cause + ')' if cause and cause not in text else ''}"


def _all_keys(family: Family) -> list[str]:
    settings = [f"medserl.{key}" for key in _keys(OmegaConf.structured(family.settings))]
    return [*settings, *_verl_keys(family)]


@functools.cache
def _verl_keys(family: Family) -> tuple[str, ...]:
    return tuple(_keys(_compose(verl_config_dir(), family.base, list(family.chosen), family)))


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


def _reject_unknown_keys(config: DictConfig, family: Family) -> None:
    """Hydra accepts any key that a configuration file or a ``+`` override names; verl would ignore it in
    silence."""
    known = {*_verl_keys(family), *DATACLASS_ONLY_KEYS}
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
    settings.notes.source = resolved_source(settings.notes)
    if settings.referee.name == AUTO:
        settings.referee.name = ORACLE if settings.notes.source == WARD else "instruction"
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
    if JUDGE not in (settings.referee.name, settings.second_referee.name) and not settings.frozen_injector:
        return
    from medserl.config.judge import judge_of, judge_options, serve_with_verl

    judge = judge_of(settings)
    options = judge_options(judge.options) if judge else None
    served = options if options is not None and options.url is None else None
    if served is not None or settings.frozen_injector:
        serve_with_verl(config, served, injector=settings.frozen_injector)


def _complete_sft(config: DictConfig, settings: SftSettings) -> DictConfig:
    """Set what follows from other keys, so that it is written in one place only."""
    from omegaconf import open_dict

    from medserl.config import sft_settings

    if settings.injector_format not in INJECTOR_FORMATS:
        raise ConfigError(
            f"medserl.injector_format: {settings.injector_format!r} is none of {', '.join(INJECTOR_FORMATS)}"
        )
    settings.notes.source = resolved_source(settings.notes)
    if settings.notes.source not in (FILES, WARD):
        raise ConfigError(f"medserl.notes.source: fine-tuning reads {FILES} or the {WARD}, not a source of your own")
    for key in ("labelled_path", "labelled_conditions", "options"):
        if getattr(settings.notes, key):
            raise ConfigError(f"medserl.notes.{key}: fine-tuning learns from medserl.notes alone; leave it out")
    late = settings.late_mixture
    if late is not None and 2 * late.assessor_pairs + late.injector_turns != sft_settings.batch_size(settings):
        raise ConfigError("medserl.late_mixture: must make as many demonstrations a batch as medserl.mixture")
    if config.optim.min_lr > config.optim.lr:
        raise ConfigError(f"optim.min_lr: {config.optim.min_lr} is more than optim.lr {config.optim.lr}")
    if config.optim.lr_warmup_steps >= settings.steps:
        raise ConfigError(
            f"optim.lr_warmup_steps: {config.optim.lr_warmup_steps} steps of warm-up leave none of medserl.steps "
            f"{settings.steps}"
        )
    if settings.steps < 1:
        raise ConfigError(f"medserl.steps: {settings.steps} is less than 1")
    with open_dict(config):
        config.medserl = OmegaConf.structured(settings)
        config.data.train_batch_size = sft_settings.batch_size(settings)
        config.data.custom_cls.path = "pkg://medserl.sft.data"
        config.data.custom_cls.name = "DemonstrationDataset"
        config.trainer.total_training_steps = settings.steps
        config.trainer.total_epochs = sft_settings.epochs(settings)
        config.trainer.seed = settings.seed
        config.trainer.default_local_dir = str(Path(settings.run_dir).absolute() / "checkpoints")
        config.trainer.experiment_name = Path(settings.run_dir).name
        config.engine.seed = settings.seed
        if config.model.path == BUILTIN_MODEL:
            from medserl.ward import model_dir

            config.model.path = str(model_dir())
    return config


def _check_choices(settings: GameSettings) -> None:
    for key, value, choices in (
        ("device", settings.device, DEVICES),
        ("injector_format", settings.injector_format, INJECTOR_FORMATS),
        ("train_roles", settings.train_roles, TRAIN_ROLES),
        ("advantage.normalisation", settings.advantage.normalisation, NORMALISATIONS),
    ):
        if value not in choices:
            raise ConfigError(f"medserl.{key}: {value!r} is none of {', '.join(choices)}")
    if (settings.frozen_injector or settings.injector_url) and settings.train_roles != "assessor":
        raise ConfigError(
            f"medserl.train_roles: {settings.train_roles!r}, but the injector is another model "
            "(medserl.frozen_injector, medserl.injector_url), so that only the assessor can train; say assessor"
        )
    if settings.frozen_injector and settings.injector_url:
        raise ConfigError("medserl.injector_url: medserl.frozen_injector starts a server of its own; give one of them")
    notes = settings.notes
    if notes.labelled_conditions is not None and (notes.path or notes.labelled_path):
        raise ConfigError(
            "medserl.notes.labelled_conditions: only the ward's notes name their conditions; leave it out, or "
            "medserl.notes.path and medserl.notes.labelled_path"
        )
    for key, number, least in (
        ("notes.labelled_conditions", 1 if notes.labelled_conditions is None else notes.labelled_conditions, 1),
        ("rollout_batch_size", settings.rollout_batch_size, 0),
        ("labelled_batch_size", settings.labelled_batch_size or 0, 0),
        ("validation.count", settings.validation.count, 1),
        ("validation.patience", 1 if settings.validation.patience is None else settings.validation.patience, 1),
        ("max_attempts", settings.max_attempts, 1),
        ("rollout_workers", settings.rollout_workers, 0),
    ):
        if number < least:
            raise ConfigError(f"medserl.{key}: {number} is less than {least}")
    if settings.advantage.injector_weight < 0:
        raise ConfigError(f"medserl.advantage.injector_weight: {settings.advantage.injector_weight} is negative")
    if settings.deadline_margin < 0:
        raise ConfigError(f"medserl.deadline_margin: {settings.deadline_margin} is negative")
    if settings.max_rounds is not None and settings.max_rounds < 1:
        raise ConfigError(f"medserl.max_rounds: {settings.max_rounds} is less than 1")
    for key, share in (
        ("labelled_share", settings.labelled_share),
        ("max_failed_share", settings.max_failed_share),
    ):
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"medserl.{key}: {share} is not between 0 and 1")
    if settings.rollout_batch_size == 0 and not settings.labelled_batch_size:
        raise ConfigError("medserl.rollout_batch_size: 0, and no medserl.labelled_batch_size: nothing to train on")
    if settings.rollout_batch_size == 1:
        raise ConfigError("medserl.rollout_batch_size: 1 is less than 2, one note of each mode")
    if labelled_per_round(settings) % 2:
        raise ConfigError(
            f"medserl.labelled_batch_size: {labelled_per_round(settings)} is odd; both classes come equally often"
        )
    vcf = settings.vcf
    if not 0.0 <= vcf.min_jaccard <= vcf.max_jaccard <= 1.0:
        raise ConfigError(
            f"medserl.vcf: min_jaccard {vcf.min_jaccard} and max_jaccard {vcf.max_jaccard} must satisfy "
            "0 <= min <= max <= 1"
        )
    if vcf.max_word_edits < 1:
        raise ConfigError(f"medserl.vcf.max_word_edits: {vcf.max_word_edits} is less than 1")
