"""YAML values that know their file, line and key, so that a bad table can be reported in one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from medserl.errors import ConfigError
from medserl.files import regular

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Located:
    """One YAML value with the place where it stands. Reading it as the wrong type raises `ConfigError`."""

    node: yaml.Node
    file: str
    key: str

    def fail(self, problem: str) -> NoReturn:
        line = self.node.start_mark.line + 1
        raise ConfigError(f"{self.file}, line {line}, key {self.key or '(top level)'}: {problem}.")

    def fields(self, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Located]:
        """The entries of a mapping that must have the ``required`` keys and may have the ``optional`` ones."""
        found = self.entries()
        for name in required:
            if name not in found:
                self.fail(f"the field '{name}' is missing; add it")
        for name, value in found.items():
            if name not in required and name not in optional:
                known = ", ".join(required + optional)
                value.fail(f"unknown field '{name}'; the fields here are {known}")
        return found

    def entries(self) -> dict[str, Located]:
        """The entries of a mapping, in order."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("expected a mapping (name: value)")
        found: dict[str, Located] = {}
        for key_node, value_node in self.node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                Located(key_node, self.file, self.key).fail("expected a plain name before the colon")
            name = key_node.value
            child = Located(value_node, self.file, f"{self.key}.{name}" if self.key else name)
            if name in found:
                Located(key_node, self.file, child.key).fail("this name occurs here twice; keep one")
            found[name] = child
        return found

    def items(self) -> list[Located]:
        """The elements of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail("expected a list [a, b, …]")
        return [Located(node, self.file, f"{self.key}[{i}]") for i, node in enumerate(self.node.value)]

    def text(self) -> str:
        """A non-empty string without white space at its ends."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag == _TAG + "null":
            self.fail("expected text")
        value = str(self.node.value)
        if not value or value != value.strip():
            self.fail("expected text that is not empty, without white space at either end")
        if len(value.splitlines()) > 1:
            self.fail("expected text of one line")
        return value

    def texts(self) -> tuple[str, ...]:
        """A list of at least one text."""
        values = tuple(item.text() for item in self.items())
        if not values:
            self.fail("the list is empty; give at least one entry")
        return values

    def number(self) -> float:
        """A positive number."""
        tagged = isinstance(self.node, yaml.ScalarNode) and self.node.tag in (_TAG + "int", _TAG + "float")
        try:
            value = float(self.node.value) if tagged else 0.0
        except ValueError:
            value = 0.0
        if not 0 < value < math.inf:
            self.fail("expected a number above 0")
        return value

    def whole(self) -> int:
        """A positive whole number."""
        value = self.number()
        if not value.is_integer():
            self.fail("expected a whole number")
        return int(value)

    def flag(self) -> bool:
        """``true`` or ``false``."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.value not in ("true", "false"):
            self.fail("expected true or false")
        return bool(self.node.value == "true")


_DEPTH = 50


def _too_deep(text: str, loader: type) -> int | None:
    """The line where values lie in each other deeper than any table's: composing thousands ends the interpreter."""
    if not any(text.count(mark) > _DEPTH for mark in ("[[", "{{", "- - ", " " * _DEPTH)):
        return None
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            return int(event.start_mark.line) + 1
    return None


def read_yaml(path: Path) -> tuple[Located, bytes]:
    """The root value of a YAML file, and the bytes it was read from.

    Raises `ConfigError` where the file is missing, not UTF-8 or not YAML.
    """
    try:
        content = regular(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a ward table.") from None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    try:
        text = content.decode("utf-8")
        if (line := _too_deep(text, loader)) is not None:
            raise ConfigError(f"{path}, line {line}: lists and mappings lie in each other more than {_DEPTH} deep.")
        node = yaml.compose(text, Loader=loader)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8; save the table as UTF-8.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or "it cannot be read"
        raise ConfigError(f"{path}, line {line}: not valid YAML ({problem}); correct the line.") from None
    if node is None:
        raise ConfigError(f"{path}, line 1: the table is empty.")
    return Located(node, str(path), ""), content
