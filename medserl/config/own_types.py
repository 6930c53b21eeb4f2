"""What a key of ours takes, said from the types of the settings: OmegaConf's words for it are those of a programmer."""

from __future__ import annotations

import types
from collections.abc import Sequence
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
_SWITCHES = ("true", "false", "yes", "no", "y", "n", "on", "off", "0", "1")


def check_own_values(settings: type, overrides: Sequence[str]) -> None:
    """Overrides of keys of ours must be of the type that the settings give them; unknown keys are left to others.

    Args:
        settings: The dataclass of the ``medserl`` section.
        overrides: Hydra overrides, each of which parses.

    Raises:
        ConfigError: names the first override that is not, and what its key takes.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in OverridesParser.create().parse_overrides(list(overrides)):
        section, *path = override.key_or_group.split(".")
        if section == "medserl" and not override.is_delete() and (told := _mistake(settings, path, override)):
            raise ConfigError(f"override {override.input_line!r}: {told}")


def _mistake(settings: Any, path: Sequence[str], override: Any) -> str | None:
    kinds: tuple[Any, ...] = (settings,)
    known = "medserl"
    for name in path:
        own = next((kind for kind in kinds if is_dataclass(kind)), None)
        if own is None:
            return None if _is(kinds, dict) else f"{known} has no keys below it: it takes {_taken(kinds)}"
        hints = get_type_hints(own)
        if name not in hints:
            return None
        kinds, known = _alternatives(hints[name]), f"{known}.{name}"
    value = override.value()
    if any(is_dataclass(kind) for kind in kinds):
        fits = isinstance(value, dict) or (value is None and type(None) in kinds)
        return None if fits else f"{known} is a section with keys of its own; set one of them"
    return None if any(_fits(kind, value) for kind in kinds) else f"{known} takes {_taken(kinds)}"


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
