"""Values that a user gave, as overrides that survive Hydra's grammar. Imports nothing heavy."""

from __future__ import annotations

import re

from medserl.errors import ConfigError

_ESCAPING = re.compile(r"(\\+)(?='|\Z)")


def literal(key: str, value: str, given_as: str | None = None) -> str:
    """The override that gives ``key`` this text, whatever is in it.

    In Hydra's quotes a backslash means itself unless a quote, or the end, is behind it (hydra-core 1.3, Override
    grammar, "Quoted values"). An interpolation cannot be had as text: a resolved configuration would follow it.

    Args:
        key: A key of the configuration.
        value: The text.
        given_as: The option that the user gave it with; the key by default.

    Raises:
        ConfigError: the text means something else to the configuration.
    """
    if "${" in value or value == "???":
        raise ConfigError(
            f"{given_as or key}: {value} holds ${{, or is ???, which mean something of their own in a configuration; "
            "give a path without them"
        )
    inner = _ESCAPING.sub(r"\1\1", value).replace("'", "\\'")
    return f"{key}='{inner}'"
