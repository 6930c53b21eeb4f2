"""Mistakes in names: overrides that are none, and keys that neither verl nor MedSeRL knows, each in one sentence."""

from __future__ import annotations

import difflib
import functools
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from medserl.config.family import TRAIN_FSDP, Family, compose, verl_config_dir
from medserl.config.own_types import check_own_value
from medserl.config.upstream import names_at
from medserl.errors import ConfigError, Problems, all_told

# Dictionaries that verl hands on to another library as they are: it does not list their keys.
OPEN_NODES = (
    "ray_kwargs.ray_init",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.actor.megatron.override_transformer_config",
    "actor_rollout_ref.actor.megatron.override_ddp_config",
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "actor_rollout_ref.ref.megatron.override_transformer_config",
    "actor_rollout_ref.model.override_config",
    "critic.optim.override_optimizer_config",
    "data.apply_chat_template_kwargs",
    "engine.override_transformer_config",
    "engine.override_ddp_config",
    "engine.override_mcore_model_config",
    "optim.override_optimizer_config",
    "model.override_config",
    # A referee's own options, which the referee checks.
    "medserl.referee.options",
    "medserl.rewards.options",
    "medserl.notes.options",
    "medserl.second_referee.options",
)
# Keys of verl's configuration dataclasses that its YAML files do not list.
DATACLASS_ONLY_KEYS = (
    "actor_rollout_ref.rollout.enable_sleep_mode",
    "actor_rollout_ref.rollout.agent.agent_loop_manager_class",
)
OWN = "medserl"
MENDED = "_without_mistakes"
"""Ends the name of a user's file as it is composed where some keys of it are wrong."""
_RAY = "ray_kwargs.ray_init"
# Of ray.init (ray 2.60.0); those that begin with _ are Ray's own affair.
RAY_OPTIONS = (
    "address",
    "num_cpus",
    "num_gpus",
    "resources",
    "labels",
    "object_store_memory",
    "local_mode",
    "ignore_reinit_error",
    "include_dashboard",
    "dashboard_host",
    "dashboard_port",
    "job_config",
    "configure_logging",
    "logging_level",
    "logging_format",
    "logging_config",
    "log_to_driver",
    "namespace",
    "runtime_env",
    "enable_resource_isolation",
    "cgroup_path",
    "system_reserved_cpu",
    "system_reserved_memory",
    "proxy_server_url",
)


def first_line(error: BaseException) -> str:
    """What a library's error says, without the lines that only its developers need."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def keys_of(overrides: Sequence[str]) -> frozenset[str]:
    """The keys that overrides set."""
    return frozenset(map(key_of, overrides))


def key_of(override: str) -> str:
    """The key that an override sets."""
    return override.partition("=")[0].lstrip("+~")


def sound(overrides: Sequence[str], settings: type, found: Problems) -> list[str]:
    """The overrides that can be applied; of each of the others ``found`` takes why not.

    Args:
        overrides: As a user wrote them.
        settings: The dataclass of the ``medserl`` section, whose keys must get values of their types.
        found: Takes what is wrong.
    """
    good = []
    for text in overrides:
        with found.noted():
            check_own_value(settings, check_override(text))
            good.append(text)
    return good


def check_override(text: str) -> Any:
    """An override must be one by Hydra's grammar, and give a value to one key; returns it parsed.

    Raises:
        ConfigError: says what it is instead, and how to write it where quotes are what is missing.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = text.partition("=")
    name = key.lstrip("+~")
    keys = (name,)
    if not all(name.split(".")):
        raise ConfigError(f"override {text!r}: names no key; write key=value")
    if key.startswith("~"):
        _check_removal(text, name)
    try:
        parsed = OverridesParser.create().parse_override(text)
        sweep = parsed.is_sweep_override()
    except (HydraException, ValueError):
        if not equals:
            raise ConfigError(f"override {text!r}: is not key=value", keys) from None
        raise ConfigError(
            f"override {text!r}: the value holds a character of Hydra's grammar; quote it: {quoted(key, value)}", keys
        ) from None
    if sweep:
        raise ConfigError(
            f"override {text!r}: gives several values; give one, or a list in brackets, or quote it: "
            f"{quoted(key, value)}",
            keys,
        )
    return parsed


def _check_removal(text: str, name: str) -> None:
    """What verl or MedSeRL read cannot be taken away: they would fail in the middle of a run, or take a default."""
    if not any(name.startswith(f"{node}.") for node in OPEN_NODES):
        raise ConfigError(
            f"override {text!r}: a key of verl's or MedSeRL's cannot be removed; give it a value", (name,)
        )


def quoted(key: str, value: str) -> str:
    """An override as a shell takes it, its value in quotes of Hydra's."""
    inner = value.strip("\"'").replace('"', '\\"')
    word = f'"{inner}"'
    return f"{key}='{word}'" if "'" not in word else f"{key}={shlex.quote(word)}"


def explain(error: Exception, overrides: Sequence[str], family: Family) -> ConfigError:
    """One sentence from Hydra's several lines, naming the override or the file's key that caused it."""
    text = first_line(error).replace(MENDED, "")
    cause = first_line(error.__cause__) if error.__cause__ else ""
    culprit = next((o for o in overrides if key_of(o) in text), None)
    if culprit is not None and "Could not override" in text:
        key = key_of(culprit)
        if is_open(key):
            return _to_be_added(culprit, key, family is not TRAIN_FSDP)
        return unknown(f"override {culprit!r}: neither verl nor MedSeRL has a key {key}", key, known_keys(family))
    if culprit is None and "raised while composing config" in text:
        return _explain_file(error, text, family)
    if culprit is not None and "Could not append" in text and "already at" in text:
        return ConfigError(
            f"override {culprit!r}: {key_of(culprit)} is set already; leave the + out", (key_of(culprit),)
        )
    where = f"override {culprit!r}: " if culprit else ""
    keys = (key_of(culprit),) if culprit else ()
    return ConfigError(f"{where}{text}{' (' + cause + ')' if cause and cause not in text else ''}", keys)


def _to_be_added(override: str, key: str, megatron: bool) -> ConfigError:
    """For a key of a section whose keys verl does not list, and which nobody has set yet."""
    section, _, name = key.rpartition(".")
    what, names = names_at(section, megatron)
    if names and name not in names:
        return unknown(f"override {override!r}: {what.format(name)}", name, names, f"{section}.")
    return ConfigError(f"override {override!r}: {key} is not set yet; write + before it to add it", (key,))


def _explain_file(error: Exception, text: str, family: Family) -> ConfigError:
    """Hydra's "In 'mine': ConfigKeyError raised while composing config:", whose next lines have key and reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    file = text.removeprefix("In ").split(":")[0].strip("'\"")
    key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
    reason = lines[1] if len(lines) > 1 else text
    if "not in" in reason and key:
        return unknown(f"configuration {file}: neither verl nor MedSeRL has a key {key}", key, known_keys(family))
    return ConfigError(f"configuration {file}: {key + ': ' if key else ''}{reason}", (key,) if key else ())


def unknown(sentence: str, key: str, known: Iterable[str], section: str = "") -> ConfigError:
    """The error for a name that there is not, with the nearest that there is; either may be the one that is meant.

    Args:
        sentence: What is wrong.
        key: The name.
        known: Those that there are.
        section: Dotted section in which all of them stand.
    """
    near = next(iter(difflib.get_close_matches(key, list(known), n=1)), None)
    if near is None or near == key:
        return ConfigError(sentence, (f"{section}{key}",))
    return ConfigError(f"{sentence}; did you mean {near}?", (f"{section}{key}", f"{section}{near}"))


def reject_unknown_keys(config: DictConfig, family: Family, problems: Problems | None = None) -> None:
    """Hydra accepts any key that a configuration file or a ``+`` override names; verl would ignore it in
    silence.

    Args:
        config: A composed configuration, out of which unknown keys are taken.
        family: Whose keys it may have.
        problems: Takes what is wrong; None: it is raised.

    Raises:
        ConfigError: names the key, and the nearest that there is.
    """
    known = {*known_keys(family), *DATACLASS_ONLY_KEYS, OWN}
    gone: list[str] = []
    with all_told(problems) as found:
        for key in _keys(config):
            option = key.removeprefix(f"{_RAY}.")
            if is_open(key) and (key == option or option.split(".")[0] in RAY_OPTIONS or option.startswith("_")):
                continue
            if key in known or any(key.startswith(f"{told}.") for told in gone):
                continue
            if key == option:
                found.add(unknown(f"configuration key {key}: neither verl nor MedSeRL knows it", key, known))
            else:
                found.add(unknown(f"{key}: ray.init has no option {option}", option, RAY_OPTIONS, f"{_RAY}."))
            gone.append(key)
        for key in gone:
            _take_out(config, key)


def is_open(key: str) -> bool:
    """Whether a key is, or stands in, a dictionary whose keys verl does not list."""
    return any(key == node or key.startswith(f"{node}.") for node in OPEN_NODES)


def _take_out(config: DictConfig, key: str) -> None:
    section, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, section) if section else config
    with open_dict(parent):
        del parent[name]


def verl_defaults(family: Family) -> DictConfig:
    """verl's own configuration, with Megatron chosen and nothing else; shared, so not to be changed."""
    return _verl_defaults(family)


@functools.cache
def _verl_defaults(family: Family) -> DictConfig:
    return compose(verl_config_dir(), family.base, list(family.chosen), family)


@functools.cache
def known_keys(family: Family) -> tuple[str, ...]:
    """All keys that verl or MedSeRL lists."""
    return (*_own_keys(family.settings, OWN), *_keys(_verl_defaults(family)))


def _own_keys(settings: type, prefix: str) -> list[str]:
    """Keys of our section, those of a section that is null by default (``late_mixture``) included."""
    from dataclasses import fields, is_dataclass
    from typing import get_args, get_type_hints

    found = []
    hints = get_type_hints(settings)
    for field in fields(settings):
        name = f"{prefix}.{field.name}"
        found.append(name)
        kind = next((k for k in (hints[field.name], *get_args(hints[field.name])) if is_dataclass(k)), None)
        if isinstance(kind, type):
            found += _own_keys(kind, name)
    return found


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
