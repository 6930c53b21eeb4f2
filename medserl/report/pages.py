"""HTML pages from Jinja2 templates: one file each that needs nothing else and asks nobody for anything."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

BASE = Path(__file__).with_name("templates")


def render(folder: Path, name: str, **values: Any) -> str:
    """The template ``name`` of ``folder`` with ``values``, each escaped; it may extend base.html of this room.

    A value that the template names and nobody gives is an error, not a blank.
    """
    page: str = _environment(folder).get_template(name).render(values)
    return page


@cache
def _environment(folder: Path) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([folder, BASE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["figure"] = lambda value: "n/a" if value is None else f"{value:.3f}"
    return environment
