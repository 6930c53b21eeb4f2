"""A configuration file of a user's own: what is wrong with our section of it, key by key.

Hydra ends with the first key of a typed section that does not fit. So such keys are found beforehand, and the file is
composed without them, that the rest of a start can be looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medserl.config.family import Family, content_of
from medserl.config.mistakes import OWN, known_keys, unknown
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
    if not wrong:
        return path.stem
    sound = copy.deepcopy(content)
    for names, told in wrong:
        key = ".".join((OWN, *names))
        where = f"configuration {path.stem}: "
        if told:
            found.add(ConfigError(f"{where}{told}", (key,)))
        else:
            found.add(unknown(f"{where}neither verl nor MedSeRL has a key {key}", key, known_keys(family)))
        _take_out(sound, (OWN, *names))
    return _stored(f"{path.stem}_without_mistakes", sound)


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
