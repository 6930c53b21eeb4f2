"""Mistakes in names: overrides that are none, and keys that neither verl nor MedSeRL knows, each in one sentence."""

from __future__ import annotations

import difflib
import functools
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from omegaconf import DictConfig, ListConfig

from medserl.config.family import Family, compose, verl_config_dir
from medserl.errors import ConfigError

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
    return frozenset(text.partition("=")[0].lstrip("+~") for text in overrides)


def check_overrides(overrides: Sequence[str]) -> None:
    """Each override must be one by Hydra's grammar, and give a value to one key.

    Raises:
        ConfigError: names the first that is not, and how to write it where quotes are what is missing.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    for text in overrides:
        key, equals, value = text.partition("=")
        name = key.lstrip("+~")
        if not all(name.split(".")):
            raise ConfigError(f"override {text!r}: names no key; write key=value")
        if key.startswith("~"):
            _check_removal(text, name)
        try:
            parsed = parser.parse_override(text)
            sweep = parsed.is_sweep_override()
        except (HydraException, ValueError):
            if not equals:
                raise ConfigError(f"override {text!r}: is not key=value") from None
            raise ConfigError(
                f"override {text!r}: the value holds a character of Hydra's grammar; quote it: {quoted(key, value)}"
            ) from None
        if sweep:
            raise ConfigError(
                f"override {text!r}: gives several values; give one, or a list in brackets, or quote it: "
                f"{quoted(key, value)}"
            )


def _check_removal(text: str, name: str) -> None:
    """What verl or MedSeRL read cannot be taken away: they would fail in the middle of a run, or take a default."""
    if not any(name.startswith(f"{node}.") for node in OPEN_NODES):
        raise ConfigError(f"override {text!r}: a key of verl's or MedSeRL's cannot be removed; give it a value")


def quoted(key: str, value: str) -> str:
    """An override as a shell takes it, its value in quotes of Hydra's."""
    inner = value.strip("\"'").replace('"', '\\"')
    word = f'"{inner}"'
    return f"{key}='{word}'" if "'" not in word else f"{key}={shlex.quote(word)}"


def explain(error: Exception, overrides: Sequence[str], family: Family) -> str:
    """One sentence from Hydra's several lines, naming the override or the file's key that caused it."""
    text = first_line(error)
    cause = first_line(error.__cause__) if error.__cause__ else ""
    culprit = next((o for o in overrides if o.lstrip("+~").split("=")[0] in text), None)
    if culprit is not None and "Could not override" in text:
        key = culprit.lstrip("+~").split("=")[0]
        return f"override {culprit!r}: neither verl nor MedSeRL has a key {key}{_hint(key, _all_keys(family))}"
    if culprit is None and "raised while composing config" in text:
        return _explain_file(error, text, family)
    where = f"override {culprit!r}: " if culprit else ""
    return f"{where}{text}{' (' + cause + ')' if cause and cause not in text else ''}"


def _explain_file(error: Exception, text: str, family: Family) -> str:
    """Hydra's "In 'mine': ConfigKeyError raised while composing config:", whose next lines have key and reason."""
    lines = [line.strip() for line in str(error).splitlines()]
    file = text.removeprefix("In ").split(":")[0].strip("'\"")
    key = next((line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")), "")
    reason = lines[1] if len(lines) > 1 else text
    if "not in" in reason and key:
        return f"configuration {file}: neither verl nor MedSeRL has a key {key}{_hint(key, _all_keys(family))}"
    return f"configuration {file}: {key + ': ' if key else ''}{reason}"


def reject_unknown_keys(config: DictConfig, family: Family) -> None:
    """Hydra accepts any key that a configuration file or a ``+`` override names; verl would ignore it in
    silence."""
    known = {*_all_keys(family), *DATACLASS_ONLY_KEYS, OWN}
    for key in _keys(config):
        option = key.removeprefix(f"{_RAY}.").split(".")[0]
        if key.startswith(f"{_RAY}.") and option not in RAY_OPTIONS and not option.startswith("_"):
            raise ConfigError(f"{key}: ray.init has no option {option}{_hint(option, RAY_OPTIONS)}")
        if key in known or any(key == node or key.startswith(f"{node}.") for node in OPEN_NODES):
            continue
        raise ConfigError(f"configuration key {key}: neither verl nor MedSeRL knows it{_hint(key, known)}")


def verl_defaults(family: Family) -> DictConfig:
    """verl's own configuration, with Megatron chosen and nothing else; shared, so not to be changed."""
    return _verl_defaults(family)


@functools.cache
def _verl_defaults(family: Family) -> DictConfig:
    return compose(verl_config_dir(), family.base, list(family.chosen), family)


@functools.cache
def _all_keys(family: Family) -> tuple[str, ...]:
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


def _hint(key: str, known: Iterable[str]) -> str:
    near = next(iter(difflib.get_close_matches(key, list(known), n=1)), None)
    return f"; did you mean {near}?" if near and near != key else ""


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
