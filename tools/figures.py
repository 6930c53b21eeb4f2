#!/usr/bin/env python3
"""Writes the picture of a run for the documents: `tools/figures.py RUN docs/figures/NAME.svg` takes the first plot of
the RUN's report.html, which `medserl report RUN` makes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

PLOT = re.compile(r"<svg.*?</svg>", re.DOTALL)


def first_plot(page: str) -> str:
    """The report's leading plot as an SVG file of its own."""
    found = PLOT.search(page)
    if found is None:
        raise SystemExit("the report has no plot: the run judged no held-out notes")
    svg = found[0]
    if "xmlns=" not in svg.split(">", 1)[0]:
        svg = svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1)
    # Read on a dark page too.
    return re.sub(r"(<svg[^>]*)>", r'\1 style="background: #fff">', svg, count=1) + "\n"


if __name__ == "__main__":
    run, figure = Path(sys.argv[1]), Path(sys.argv[2])
    figure.write_text(first_plot((run / "report.html").read_text(encoding="utf-8")), encoding="utf-8")
