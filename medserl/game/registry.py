"""Registers: classes that a configuration chooses by name and builds with options that are checked first."""

import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from medserl.errors import ConfigError

AUTO = "auto"
"""What settings call "choose for me"; nothing can be registered under it."""


class Registry[T]:
    """The known classes of one kind, by their ``name``.

    Args:
        kind: What they are, for messages: ``referee``.
        base: What each of them derives from, an abstract class.
    """

    def __init__(self, kind: str, base: type) -> None:
        self.kind, self._base = kind, base
        self._classes: dict[str, type[T]] = {}

    def add[C](self, cls: type[C]) -> type[C]:
        """Make ``cls`` known under its ``name``; the same class defined again (a notebook's cell) replaces the first.

        Raises TypeError for a class that is none of this kind or lacks a method, ValueError for a name that is no
        text, reserved or taken.
        """
        if not (isinstance(cls, type) and issubclass(cls, self._base)):
            raise TypeError(f"{cls!r} is not a {self.kind}: derive it from {self._base.__name__}")
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise TypeError(f"the {self.kind} {cls.__name__} lacks: {missing}")
        name = getattr(cls, "name", None)
        if not isinstance(name, str) or not name or name == AUTO:
            raise ValueError(f"the {self.kind} {cls.__name__} needs a name of its own, not {name!r}")
        known = self._classes.get(name)
        if known is not None and _place(known) != _place(cls):
            raise ValueError(f"a {self.kind} named {name!r} is registered already: {known!r}")
        self._classes[name] = cast(type[T], cls)
        return cls

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._classes)

    def get(self, name: str, key: str = "") -> type[T]:
        """The class; ConfigError, naming ``key`` and the known ones, where there is none."""
        if name not in self._classes:
            known = ", ".join(self.names())
            raise ConfigError(f"{key or self.kind}={name!r} is not known; choose one of: {known}")
        return self._classes[name]

    def make(self, name: str, options: Mapping[str, Any], key: str = "", given: Mapping[str, Any] | None = None) -> T:
        """Build ``name`` with a user's ``options``, and with what the program itself has ``given``.

        Args:
            name: A registered name.
            options: Keyword arguments of the class, as a user wrote them.
            key: The setting that they stand under, for messages: ``medserl.referee``.
            given: Further keyword arguments.

        Raises ConfigError for an unknown name, and for options that the class does not take or that are not of the
        type that its signature says. What the class itself raises goes through as it is.
        """
        factory = self.get(name, f"{key}.name" if key else "")
        own = dict(given or {})
        where = f"{key}.options: " if key else ""
        twice = sorted(own.keys() & options.keys())
        if twice:
            raise ConfigError(f"{where}the {self.kind} {name!r} has {', '.join(twice)} already, from another setting")
        return build(factory, f"{where}{self.kind} {name!r}", options, own)


def build[C](factory: Callable[..., C], what: str, options: Mapping[str, Any], given: Mapping[str, Any]) -> C:
    """``factory(**given, **options)``, after the options were compared with its signature.

    Raises ConfigError, which begins with ``what``, where they do not fit; whatever the factory raises goes through.
    """
    signature = inspect.signature(factory)
    hints = type_hints(factory)
    try:
        signature.bind(**given, **options)
    except TypeError as error:
        taken = [_shown(name, hints) for name in parameters(factory) if name not in given]
        raise ConfigError(
            f"{what} does not take these options: {error}; it takes {', '.join(taken) or 'none'}"
        ) from None
    for name, value in options.items():
        if name in hints and not fits(value, hints[name]):
            raise ConfigError(f"{what}: the option {name} is {value!r}, not {_type_name(hints[name])}")
    return factory(**given, **options)


def parameters(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What can be given by name, in order."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(factory).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind in by_name}


def type_hints(factory: Callable[..., Any]) -> dict[str, Any]:
    """Types of the parameters; empty where they name something that is not there at run time."""
    call = factory.__init__ if isinstance(factory, type) else factory  # type: ignore[misc]
    try:
        return typing.get_type_hints(call)
    except (NameError, TypeError, AttributeError):
        return {}


def fits(value: object, hint: Any) -> bool:
    """Whether a value from a configuration is of a type; True for every type that a configuration cannot write."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is typing.Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    plain = origin or hint
    if plain is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if plain is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if plain in (bool, str):
        return isinstance(value, plain)
    if plain in (None, types.NoneType):
        return value is None
    if plain is dict:
        return isinstance(value, Mapping)
    if plain in (list, tuple, Sequence):
        element = inner[0] if inner else Any
        return isinstance(value, list | tuple) and all(fits(one, element) for one in value)
    return True


def _shown(name: str, hints: Mapping[str, Any]) -> str:
    return f"{name} ({_type_name(hints[name])})" if name in hints else name


def _type_name(hint: Any) -> str:
    if hint in (None, types.NoneType):
        return "null"
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_type_name(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(repr(one) for one in typing.get_args(hint))
    plain: dict[Any, str] = {float: "a finite number", int: "a whole number", bool: "true or false", str: "text"}
    return plain.get(hint) or str(getattr(hint, "__name__", hint))


def _place(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
