"""Draws the dots of docs/ward.md from their figures.

usage: python benchmarks/ward_dots.py [FILE.json]    writes FILE.svg beside it
"""

import json
import sys
from pathlib import Path

from medserl.report.plots import dot_plot

FIGURES = Path(__file__).parents[1] / "docs/figures/ward_learning.json"


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FIGURES
    figures = json.loads(file.read_text())
    svg = dot_plot(figures["title"], figures["arms"], list(figures["start"]), figures["start"])
    file.with_suffix(".svg").write_text(svg)


if __name__ == "__main__":
    main()
