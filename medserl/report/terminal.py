"""What a terminal shows, by Rich: tables and Markdown, in colour unless NO_COLOR is set. A pipe gets plain text."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Self

_STYLES = {"ok": "green", "done": "green", "BAD": "bold red", "rising": "green", "falling": "yellow"}


class Table(str):
    """Rows as plain text, aligned; `show` makes more of them where a person looks on.

    Args:
        head: Names of the columns; none for no head.
        rows: As many cells each, nothing in them is markup.
        text: What a pipe gets instead of the aligned rows.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __new__(cls, head: Sequence[str], rows: Sequence[Sequence[str]], text: str | None = None) -> Self:
        made = super().__new__(cls, _aligned([head, *rows] if head else rows) if text is None else text)
        made.head, made.rows = head, rows
        return made


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2, 0, 0))
    for row in rows:
        grid.add_row(*(Text(cell, no_wrap=True) for cell in row))
    file = io.StringIO()
    width = sum(max(map(cell_len, column), default=0) + 2 for column in zip(*rows, strict=True))
    Console(file=file, width=width + 1, color_system=None, force_terminal=False, legacy_windows=False).print(grid)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def show(table: Table) -> None:
    """Print a table."""
    if not sys.stdout.isatty():
        print(table, flush=True)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(*table.head, box=SIMPLE_HEAD if table.head else None, show_header=bool(table.head), pad_edge=False)
    for row in table.rows:
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(grid)


def show_markdown(text: str) -> None:
    """Print Markdown: drawn on a terminal, as it stands into a pipe."""
    if not sys.stdout.isatty():
        print(text, flush=True)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text, hyperlinks=False))
