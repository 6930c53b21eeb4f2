"""The two families of configurations, the folders that they lie in, and how Hydra composes one of them.

Imports Hydra and OmegaConf only, never torch or verl: verl's YAML files are found on disk.
"""

from __future__ import annotations

import copy
import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from medserl.config.settings import GameSettings
from medserl.config.sft_settings import SftSettings
from medserl.errors import ConfigError, Problems, all_told
from medserl.files import regular
from medserl.game.registry import AUTO

BASES = ("base", "base_gpu", "sft_base")
NOTES = "medserl.notes.path"


@dataclass(frozen=True)
class Family:
    """Configurations that stand on the same defaults of verl's."""

    base: str
    """verl's configuration, in verl/trainer/config."""
    chosen: tuple[str, ...]
    """Overrides on it that choose Megatron, or FSDP, for the list of known keys."""
    settings: type
    """Our ``medserl`` section."""
    group: str
    """Name under which files name that section's defaults."""


TRAIN = Family("ppo_trainer", ("model_engine=megatron",), GameSettings, "defaults")
TRAIN_FSDP = Family("ppo_trainer", ("model_engine=dp",), GameSettings, "defaults")
SFT = Family("sft_trainer_engine", ("engine=megatron", "optim=megatron"), SftSettings, "sft")


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


def config_path(name_or_path: str) -> Path:
    """The file that ``--config`` names, read once, so that a file that is none is told from here.

    Raises:
        ConfigError: no such configuration; a file that cannot be read, is no YAML, or stands on no configuration.
    """
    path = Path(name_or_path)
    if path.suffix == ".yml" and path.is_file():
        raise ConfigError(f"--config {name_or_path}: Hydra finds files that end in .yaml only; rename it")
    if path.suffix == ".yaml" and path.is_file():
        _check_file(path)
        return path.resolve()
    known = configs_dir() / f"{name_or_path}.yaml"
    if known.is_file() and name_or_path not in BASES:
        return known
    raise ConfigError(f"--config {name_or_path}: no such configuration; known: {', '.join(available_configs())}")


def _check_file(path: Path) -> None:
    try:
        content = content_of(path)
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"--config {path}: is not UTF-8 text; give a YAML file") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--config {path}: is not YAML{_where(error)}; correct it") from None
    defaults = content.get("defaults") if isinstance(content, dict) else None
    if not isinstance(defaults, list) or not any(isinstance(item, str) and item != "_self_" for item in defaults):
        raise ConfigError(
            f"--config {path}: names no configuration that it is based on; begin with `defaults: [embedded, _self_]`"
        )


def content_of(path: Path) -> Any:
    """What a YAML file holds; raises OSError, UnicodeDecodeError, yaml.YAMLError or RecursionError."""
    from omegaconf._utils import get_yaml_loader  # OmegaConf's own, which refuses a key that is there twice

    return yaml.load(regular(path).read_text(encoding="utf-8"), Loader=get_yaml_loader())  # a safe loader


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None)
    line = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{line} ({what})" if what else line


def compose(
    directory: Path, name: str, overrides: Sequence[str], family: Family, problems: Problems | None = None
) -> DictConfig:
    """What Hydra makes of a file and overrides.

    Args:
        directory: The file's folder.
        name: The file, without ``.yaml``.
        overrides: Hydra's.
        family: Whose keys it may have.
        problems: Takes what is wrong with single overrides and keys, which are left out then; None: it is raised.

    Raises:
        ConfigError: an override that is none, or that names what is not there; a value of the wrong type; a file that
            cannot be composed.
    """
    from medserl.config.mistakes import sound

    with all_told(problems) as found:
        good = sound(overrides, family.settings, found)
        if directory != verl_config_dir():
            good = [text for text in good if not _ends_a_section(text, family, found)]
        config = _files(directory, name, [text for text in good if not _sets_a_value(text)], family, found)
        for text in filter(_sets_a_value, good):
            with found.noted():
                _set(config, text, family)
    return config


def _ends_a_section(text: str, family: Family, found: Problems) -> bool:
    """Whether an override puts a plain value in the place of a section of verl's, so that nothing could be set there;
    ``found`` takes it."""
    from medserl.config.mistakes import is_open, key_of, verl_defaults

    key, value = key_of(text), _parsed(text).value()
    node: Any = verl_defaults(family)
    for name in key.split("."):
        node = node._get_node(name, validate_access=False) if isinstance(node, DictConfig) else None
    is_section = isinstance(node, DictConfig) and not node._is_interpolation() and not is_open(key)
    ends = is_section and not isinstance(value, dict) and (_sets_a_value(text) or not _is_a_choice(key))
    if ends:
        given = repr(getattr(value, "text", value))
        shown = given if len(given) <= 80 else f"{given[:77]}..."
        said = f"{key}: is a section with keys of its own, not {shown}; set one of them"
        found.add(ConfigError(said, (key,)))
    return ends


def _is_a_choice(key: str) -> bool:
    """Whether verl has files to choose from for a section."""
    return (verl_config_dir() / key).is_dir()


def _files(directory: Path, name: str, choices: list[str], family: Family, found: Problems) -> DictConfig:
    """The composed files; a choice of a file that is wrong is left out, and told."""
    from hydra.errors import HydraException

    from medserl.config.mistakes import explain, key_of
    from medserl.config.own_file import mended

    shipped = directory in (configs_dir(), verl_config_dir())  # nobody edits these in the life of a process
    while True:
        try:
            if shipped:
                return copy.deepcopy(_shipped(directory, name, tuple(choices)))
            return _composed(directory, mended(directory / f"{name}.yaml", family, found), choices)
        except (HydraException, OmegaConfBaseException) as error:
            told = explain(error, choices, family)
            culprit = next((text for text in choices if key_of(text) in told.keys), None)
        except ValueError:  # hydra/_internal/defaults_list.py: "Config group override must be a string or a list"
            culprit = next((text for text in choices if not isinstance(_parsed(text).value(), str | list)), None)
            if culprit is None:
                raise
            key = culprit.partition("=")[0]
            said = f"override {culprit!r}: {key} takes a name, or is a section whose keys can be set"
            told = ConfigError(said, (key_of(culprit),))
        if culprit is None:
            raise told from None
        found.add(told)
        choices = [text for text in choices if text != culprit]


def _set(config: DictConfig, text: str, family: Family) -> None:
    """Apply one override below the top, as Hydra itself does last (tests/config/test_load.py compares).

    Raises:
        ConfigError: it cannot be.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.errors import HydraException

    from medserl.config.mistakes import explain, key_of

    try:
        ConfigLoaderImpl._apply_overrides_to_config([_parsed(text)], config)
    except (AssertionError, AttributeError):  # OmegaConf 2.4 fails so where a typed section is null
        raise ConfigError(_below_null(config, text), (key_of(text),)) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error, [text], family) from None


def _parsed(text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(text)


def _below_null(config: DictConfig, text: str) -> str:
    """The sentence for an override of a section that is null, or of a key in it."""
    name = text.partition("=")[0].lstrip("+")
    for key in (name.rpartition(".")[0], name):
        if OmegaConf.select(config, key) is None:
            return f"override {text!r}: {key} is null here; set it in a configuration file of your own"
    return f"override {text!r}: is below a key that is no section"


def _sets_a_value(override: str) -> bool:
    """Whether an override sets a key below the top, which no choice of a file can be, rather than choosing a file."""
    key = override.partition("=")[0]
    return "." in key and not set(key) & set("/@~")


def _composed(directory: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra

    search_path = f"hydra.searchpath=[file://{configs_dir()},file://{verl_config_dir()}]"
    for known in (TRAIN, SFT):
        ConfigStore.instance().store(group="medserl", name=known.group, node=known.settings)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(directory), version_base=None):
        return hydra_compose(config_name=name, overrides=[search_path, *overrides])


_shipped = functools.cache(_composed)
"""Thirty files of verl's and ours are read and merged once in a process, whatever is set on top of them."""


def leaves_open(path: Path, key: str) -> bool:
    """Whether a configuration's file, or the nearest that it stands on, has ``???`` for a key: it is left to the user.

    Hydra keeps a default of ours under such a mark, so that the composed configuration does not tell.
    """
    raw = OmegaConf.load(path)
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(raw, section)
    if isinstance(parent, DictConfig) and name in parent.keys():  # noqa: SIM118 - `in` says no for a mark
        return bool(OmegaConf.is_missing(parent, name))
    parents = [configs_dir() / f"{item}.yaml" for item in raw.get("defaults", []) if isinstance(item, str)]
    return any(leaves_open(parent, key) for parent in parents if parent.is_file())


def check_notes_named(config: DictConfig, name: str, overrides: Sequence[str]) -> None:
    """Raise where a configuration leaves its notes to the user, and the user has named none.

    Without this, a start would train on the synthetic ward, which nobody asked for.

    Args:
        config: What was composed.
        name: From which configuration.
        overrides: With which overrides; ``medserl.notes.path=null`` among them says that there is to be no file.

    Raises:
        ConfigError: what to give.
    """
    notes = config.medserl.notes
    if notes.path is not None or notes.source != AUTO or not leaves_open(config_path(name), NOTES):
        return
    if any(text.lstrip("+").partition("=")[0] == NOTES for text in overrides):
        return
    option = "--data" if "engine" in config else "--prompt-data"
    raise ConfigError(
        f"{NOTES}: configuration {name} leaves the notes to you; name a file of them, {option} FILE", (NOTES,)
    )
