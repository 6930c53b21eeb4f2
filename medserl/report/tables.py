"""Markdown tables, and names from data in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape as escape_html

_RULES = {"l": "---", "r": "---:", "c": ":---:"}


def escape(words: object) -> str:
    """``words`` on one line, so that nothing in them is markup: neither HTML nor Markdown, nor a cell's end.

    An underscore is left alone inside a word, where it is none.
    """
    text = re.sub(r"([\\`*\[\]|]|(?<!\w)_|_(?!\w))", r"\\\1", " ".join(str(words).split()))
    return escape_html(text, quote=False)


def code(words: str) -> str:
    """``words`` verbatim, as code on one line."""
    line = " ".join(words.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], places: str) -> list[str]:
    """Lines of a table; ``places`` has a letter per column: l, r or c. Cells from data are `escape`'s."""
    lines = [head, [_RULES[place] for place in places], *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
