"""Sections that verl hands on to vLLM and Megatron: their names are looked up before a start."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config.mistakes import unknown
from medserl.config.upstream import SECTIONS, Section, problem, taken
from medserl.errors import ConfigError, Problems, all_told

ENGINES = "actor_rollout_ref.rollout.engine_kwargs"


def check_handed_on(config: DictConfig, problems: Problems | None = None, *, megatron: bool = True) -> None:
    """Refuse names and values that vLLM or Megatron would refuse minutes into a start, and those that have no effect.

    Args:
        config: A composed configuration, out of which wrong keys are taken.
        problems: Takes what is wrong; None: it is raised.
        megatron: Whether Megatron is the engine; FSDP's optimizer takes other names.

    Raises:
        ConfigError: names the key, and the nearest that there is.
    """
    with all_told(problems) as found:
        _check_engines(config, found)
        for node, section in SECTIONS.items():
            if section.package == "megatron" and not megatron:
                continue
            given = _own(config, node)
            if given is not None and len(given):
                _check(given, node, section, found)


def _check_engines(config: DictConfig, found: Problems) -> None:
    """Below ``engine_kwargs``, only what is for vLLM is read."""
    given = OmegaConf.select(config, ENGINES)
    for name in list(given) if isinstance(given, DictConfig) else ():
        if name != "vllm" and given[name]:
            found.add(unknown(f"{ENGINES}.{name}: has no effect, games are played with vLLM", str(name), ["vllm"]))


def _own(config: DictConfig, node: str) -> DictConfig | None:
    """A section, unless it follows another one, where it is looked at."""
    found = config
    for name in node.split("."):
        own = found._get_node(name, validate_access=False) if isinstance(found, DictConfig) else None
        if not isinstance(own, DictConfig) or own._is_interpolation() or own._is_none():
            return None
        found = own
    return found


def _check(given: DictConfig, node: str, section: Section, found: Problems) -> None:
    names = taken(section)
    if names is None:
        return
    parent = node.rpartition(".")[0]
    for key, value in list(OmegaConf.to_container(given, resolve=True).items()):
        told, name = f"{node}.{key}", str(key).replace("-", "_") if section.flags else str(key)
        if name in section.instead:
            found.add(ConfigError(f"{told}: {section.instead[name].format(parent, name)}", (told,)))
        elif name not in names:
            found.add(unknown(f"{told}: {section.what} {key}", name, names, f"{node}."))
        elif wrong := problem(section, name, names[name], value):
            found.add(ConfigError(f"{told}: {wrong}", (told,)))
        else:
            continue
        with open_dict(given):
            del given[key]
