"""What a key of ours takes, said from the types of the settings: OmegaConf's words for it are those of a programmer."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from medserl.errors import ConfigError

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list in brackets, such as [a,b]",
    dict: "keys with values, such as {a: 1}",
}
LONGEST_SHOWN = 60
"""Characters of a value that an error repeats; a longer one may be the text of a note."""
_SWITCHES = ("true", "false", "yes", "no", "y", "n", "on", "off", "0", "1")


def check_own_value(settings: type, override: Any) -> None:
    """An override of a key of ours must be of the type that the settings give it; unknown keys are left to others.

    Args:
        settings: The dataclass of the ``medserl`` section.
        override: As Hydra parses it.

    Raises:
        ConfigError: names the override, and what its key takes.
    """
    section, *path = override.key_or_group.split(".")
    if section != "medserl" or override.is_delete():
        return
    if told := _mistake(settings, path, override.value()):
        key, equals, given = override.input_line.partition("=")
        raise ConfigError(f"override {f'{key}{equals}{_short(given)}'!r}: {told}", (override.key_or_group,))


def mistakes_in_file(settings: type, section: Any, prefix: Sequence[str] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """What is wrong with the ``medserl`` section of a file, by its types.

    Args:
        settings: The dataclass of the section.
        section: What the file has there.
        prefix: Names of the sections that it stands in, below ``medserl``.

    Yields:
        The names that lead to a key below ``medserl``, and what is wrong with its value; of a key that there is not,
        an empty text.
    """
    if not isinstance(section, dict):
        if section is not None and (told := _mistake(settings, prefix, section)):
            yield tuple(prefix), told
        return
    for name, value in section.items():
        path = (*prefix, str(name))
        kinds = _kinds(settings, path)
        if kinds is None:
            yield path, ""
        elif isinstance(value, dict) and any(map(is_dataclass, kinds)):
            yield from mistakes_in_file(settings, value, path)
        elif value != "???" and (told := _mistake(settings, path, value)):
            yield path, f"{told}, not {_shown(value)}" if " takes " in told else told


@functools.cache
def _hints(settings: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; to work them out takes a millisecond, and every key asks."""
    return get_type_hints(settings)


def _kinds(settings: Any, path: Sequence[str]) -> tuple[Any, ...] | None:
    """The types that a key may have; None where there is no such key."""
    kinds: tuple[Any, ...] = (settings,)
    for name in path:
        own: Any = next((kind for kind in kinds if is_dataclass(kind)), None)
        hints = _hints(own) if own is not None else {}
        if name not in hints:
            return None
        kinds = _alternatives(hints[name])
    return kinds


def _mistake(settings: Any, path: Sequence[str], value: Any) -> str | None:
    kinds: tuple[Any, ...] = (settings,)
    known = "medserl"
    for name in path:
        own: Any = next((kind for kind in kinds if is_dataclass(kind)), None)
        if own is None:
            return None if _is(kinds, dict) else f"{known} has no keys below it: it takes {_taken(kinds)}"
        hints = _hints(own)
        if name not in hints:
            return None
        kinds, known = _alternatives(hints[name]), f"{known}.{name}"
    if any(is_dataclass(kind) for kind in kinds):
        fits = isinstance(value, dict) or (value is None and type(None) in kinds)
        return None if fits else f"{known} is a section with keys of its own; set one of them"
    return None if any(_fits(kind, value) for kind in kinds) else f"{known} takes {_taken(kinds)}"


def _short(text: str) -> str:
    """A value as it was given, unless it is so long that it may be a note that slipped in."""
    return text if len(text) <= LONGEST_SHOWN else f"<{len(text)} characters>"


def _shown(value: Any) -> str:
    """A value of a file, in a sentence."""
    return _short("null" if value is None else repr(value))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _is(kinds: Sequence[Any], kind: type) -> bool:
    return any(kind in (one, get_origin(one)) for one in kinds)


def _taken(kinds: Sequence[Any]) -> str:
    words = [word for kind, word in _WORDS.items() if _is(kinds, kind)]
    return " or ".join([*words, *(["null"] if type(None) in kinds else [])])


def _fits(kind: Any, value: Any) -> bool:
    """Whether OmegaConf makes the type of a parsed value; an interpolation is looked at when it is resolved."""
    value = getattr(value, "text", value)  # Hydra's QuotedString
    text = str(value).strip()
    if isinstance(value, str) and "${" in text:
        return True
    if kind is type(None):
        return value is None
    if get_origin(kind) is list:
        (element,) = get_args(kind)
        return isinstance(value, list) and all(_fits(element, item) for item in value)
    if kind is dict or get_origin(kind) is dict:
        return isinstance(value, dict)
    if value is None or isinstance(value, list | dict):
        return False
    if kind is bool:
        return text.lower() in _SWITCHES
    if kind in (int, float):
        try:
            return not isinstance(value, bool) and kind(text) is not None
        except ValueError:
            return False
    return True
