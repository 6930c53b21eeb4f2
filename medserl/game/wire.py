"""A game as text, to cross from the process that plays it to the one that trains on it.

JSON, so that reading a record can run nothing. What ``Reply.payload`` holds belongs to whoever generated and stays
there; everything else comes back as it was.
"""

import json
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from medserl.game.play import Game, Reply


class WireError(ValueError):
    """A record that is no game. The sentence names the place in the record and never what stands there."""


def encode_game(game: Game) -> str:
    """A game as one line of ASCII JSON, payloads left out; `decode_game` reads it."""
    return json.dumps(_plain(game))


def decode_game(record: str) -> Game:
    """The game that `encode_game` wrote, with payloads of None.

    Raises:
        WireError: not JSON, a field that is missing or unknown, or a value of another type than the field's.
    """
    if not isinstance(record, str):
        raise WireError(f"a game's record is text, not {type(record).__name__}")
    try:
        value = json.loads(record)
    except (ValueError, RecursionError):
        raise WireError(f"a game's record of {len(record)} characters is not JSON") from None
    game = _read(value, Game, "game")
    assert isinstance(game, Game)
    return game


@cache
def _fields(cls: type) -> Mapping[str, Any]:
    """What travels of a class: types by field."""
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in fields(cls) if not (cls is Reply and f.name == "payload")}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in _fields(type(value))}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a game holds a {type(value).__name__}, which cannot be encoded")


def _read(value: Any, kind: Any, where: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _read_one_of(value, get_args(kind), where)
    if origin in (tuple, list):
        _expect(isinstance(value, list), where, "a list", value)
        parts = (_read(part, get_args(kind)[0], f"{where}[{i}]") for i, part in enumerate(value))
        return tuple(parts) if origin is tuple else list(parts)
    if origin is dict:
        _expect(isinstance(value, dict), where, "an object", value)
        return {key: _read(part, get_args(kind)[1], f"an entry of {where}") for key, part in value.items()}
    if is_dataclass(kind):
        return _read_record(value, kind, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        _expect(isinstance(value, str) and value in set(kind), where, f"a {kind.__name__}", value)
        return kind(value)
    # JSON writes 1.0 as 1.0, yet who made a game by hand may have put an integer where a float is declared.
    fits = type(value) in ((int, float) if kind is float else (kind,))
    _expect(fits, where, f"a {kind.__name__}", value)
    return value


def _read_record(value: Any, kind: Any, where: str) -> Any:
    _expect(isinstance(value, dict), where, "an object", value)
    known = _fields(kind)
    if missing := known.keys() - value.keys():
        raise WireError(f"{where} has no {min(missing)}")
    if len(value) > len(known):
        raise WireError(f"{where} has {len(value) - len(known)} fields that {kind.__name__} does not know")
    return kind(**{name: _read(value[name], hint, f"{where}.{name}") for name, hint in known.items()})


def _read_one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    for kind in kinds[:-1]:
        try:
            return _read(value, kind, where)
        except WireError:
            continue
    return _read(value, kinds[-1], where)


def _expect(fits: bool, where: str, what: str, value: Any) -> None:
    if not fits:
        raise WireError(f"{where} should be {what}, not a {type(value).__name__}")
