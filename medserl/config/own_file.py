"""A configuration file of a user's own: what is wrong with its keys, one by one.

Hydra ends with the first key that it cannot merge: one of our typed section, or a list in the place of a section. So
such keys are found beforehand, and the file is composed without them, that the rest of a start can be looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medserl.config.family import Family, content_of
from medserl.config.mistakes import MENDED, OWN, known_keys, unknown, verl_defaults
from medserl.config.own_types import mistakes_in_file
from medserl.errors import ConfigError, Problems


def mended(path: Path, family: Family, found: Problems) -> str:
    """The name under which Hydra finds a file without the keys of ours that are wrong; ``found`` takes those.

    Args:
        path: The file, which `config_path` has read once.
        family: Whose settings its section has.
        found: Takes what is wrong.
    """
    content = content_of(path)
    wrong = list(mistakes_in_file(family.settings, content.get(OWN)))
    lists = list(_lists(content, verl_defaults(family)))
    if not wrong and not lists:
        return path.stem
    sound = copy.deepcopy(content)
    for names in lists:  # Hydra cannot merge one with a section; another value gives way to it and is told later
        key = ".".join(names)
        said = f"configuration {path.stem}: {key} is a section with keys of its own, not a list; set one of them"
        found.add(ConfigError(said, (key,)))
        _take_out(sound, names)
    for names, told in wrong:
        key = ".".join((OWN, *names))
        where = f"configuration {path.stem}: "
        if told:
            found.add(ConfigError(f"{where}{told}", (key,)))
        else:
            found.add(unknown(f"{where}neither verl nor MedSeRL has a key {key}", key, known_keys(family)))
        _take_out(sound, (OWN, *names))
    return _stored(f"{path.stem}{MENDED}", sound)


def _lists(content: Any, node: DictConfig, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where a file has a list in the place of a section of verl's."""
    for name, given in content.items() if isinstance(content, dict) else ():
        own = node._get_node(name, validate_access=False)
        if isinstance(own, DictConfig) and not own._is_interpolation() and not own._is_none():
            if isinstance(given, list):
                yield (*prefix, name)
            else:
                yield from _lists(given, own, (*prefix, name))


def _take_out(content: dict[str, Any], names: Sequence[str]) -> None:
    *above, last = names
    for name in above:
        content = content[name]
    del content[next(key for key in content if str(key) == last)]


def _stored(name: str, content: dict[str, Any]) -> str:
    """Put a file's content where Hydra looks for what is in no folder."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name=name, node=content)
    return name
