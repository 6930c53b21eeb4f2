#!/usr/bin/env python3
"""Draws the pictures of the documents: `tools/figures.py SOURCE FILE.svg`.

SOURCE is a run, whose report.html (`medserl report RUN`) gives its first plot, or a file of figures as those in
docs/figures: ``curves`` by name (runs, each a list of round and value) make a plot over rounds, ``arms`` a dot plot.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from medserl.report.plots import dot_plot, line_plot

PLOT = re.compile(r"<svg.*?</svg>", re.DOTALL)


def first_plot(page: str) -> str:
    """The report's leading plot as an SVG file of its own."""
    found = PLOT.search(page)
    if found is None:
        raise SystemExit("the report has no plot: the run judged no held-out notes")
    svg = found[0]
    if "xmlns=" not in svg.split(">", 1)[0]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    return svg + "\n"


def drawn(figures: dict[str, Any]) -> str:
    """A file of figures as SVG."""
    if "arms" in figures:
        return dot_plot(figures["title"], figures["arms"], list(figures["start"]), figures["start"])
    low, high = figures["limits"]
    title, curves, unit = figures["title"], figures["curves"], figures["unit"]
    return line_plot(title, curves, unit=unit, limits=(low, high), chance=figures["chance"])


if __name__ == "__main__":
    source, figure = Path(sys.argv[1]), Path(sys.argv[2])
    if source.is_dir():
        figure.write_text(first_plot((source / "report.html").read_text(encoding="utf-8")), encoding="utf-8")
    else:
        figure.write_text(drawn(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")
