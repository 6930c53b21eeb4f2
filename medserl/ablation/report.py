"""One table and one plot of a bench: Markdown, JSON and SVG, from the cells that are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any
from xml.sax.saxutils import escape

from medserl.ablation.grid import Grid
from medserl.ablation.runner import Bench, read_result
from medserl.training import checkpoint

TABLE, DATA, PLOT = "table.md", "results.json", "plot.svg"
CURVE = "val/greedy/balanced_accuracy"
_COLOURS = (
    "#4477aa",
    "#cc6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#666666",
    "#ee8866",
    "#44bb99",
    "#000000",
)


def _at(*keys: str) -> Callable[[dict[str, Any]], float | None]:
    def value(result: dict[str, Any]) -> float | None:
        node: Any = result
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        return node if isinstance(node, (int, float)) else None

    return value


COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], float | None]], ...] = (
    ("test greedy", _at("test", "greedy")),
    ("test sampled", _at("test", "sampled")),
    ("test AUC", _at("test", "auc")),
    ("held-out greedy", _at("test_heldout", "greedy")),
    ("held-out sampled", _at("test_heldout", "sampled")),
    ("acceptance", _at("last", "vcf_acceptance_rate")),
    ("label inversion", _at("last", "label_inversion_rate")),
    ("injector wins", _at("last", "injector/win_rate")),
    ("chosen round", _at("chosen_round")),
    ("minutes", _at("minutes")),
)


def write_report(bench: Bench, start: dict[str, Any] | None = None) -> str:
    """Write table, data and plot into the bench's directory; returns the table.

    Args:
        bench: The bench.
        start: What the start model measures on the same test patients, for a first row.
    """
    grid, out = bench.grid, bench.out
    results: dict[str, dict[int, dict[str, Any]]] = {arm.name: {} for arm in grid.arms}
    for cell in grid.cells():
        if (result := read_result(bench.folder(cell))) is not None:
            results[cell.arm.name][cell.seed] = result
    text = table(grid, results, start)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write_atomically(out / TABLE, text, 0o644)
    data = {"title": grid.title, "start": start, "arms": results}
    checkpoint.write_atomically(out / DATA, json.dumps(data, indent=1) + "\n", 0o644)
    curves = {
        name: [run["curves"][CURVE] for run in runs.values() if run.get("curves", {}).get(CURVE)]
        for name, runs in results.items()
    }
    checkpoint.write_atomically(out / PLOT, line_plot(grid.title, CURVE, curves), 0o644)
    return text


def table(grid: Grid, results: dict[str, dict[int, dict[str, Any]]], start: dict[str, Any] | None) -> str:
    """Markdown: an arm per row, mean ± standard deviation over its seeds."""
    head = ["arm", "seeds", *(name for name, _ in COLUMNS)]
    lines = [f"# {grid.title}", "", "| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    if start is not None:
        lines.append(_row("(start)", "", [start]))
    for name, runs in results.items():
        lines.append(_row(name, f"{len(runs)} of {len(grid.seeds)}", list(runs.values())))
    return "\n".join(lines) + "\n"


def _row(name: str, seeds: str, runs: Sequence[dict[str, Any]]) -> str:
    cells = []
    for _, column in COLUMNS:
        values = [value for run in runs if (value := column(run)) is not None]
        if not values:
            cells.append("–")
        else:
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}")
    return "| " + " | ".join([name, seeds, *cells]) + " |"


def line_plot(title: str, metric: str, curves: dict[str, list[list[Sequence[float]]]]) -> str:
    """SVG: the mean curve of each arm, thick, over those of its seeds, thin; y from 0.4 to 1."""
    frame = _Frame(max((float(x) for runs in curves.values() for run in runs for x, _ in run), default=1.0) or 1.0)
    parts = [_text(LEFT, 22, f"{title}: {metric}", "start"), *frame.axes()]
    for number, (name, runs) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        parts += [frame.line(run, colour, 0.35, 1.0) for run in runs]
        parts.append(frame.line(_mean_curve(runs), colour, 1.0, 2.5))
        y = TOP + 14 + 18 * number
        parts.append(f'<path d="M{LEFT + WIDTH + 14},{y - 4}h18" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(_text(LEFT + WIDTH + 38, y, name, "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 260}" height="{TOP + HEIGHT + 36}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


LEFT, TOP, WIDTH, HEIGHT = 60, 44, 640, 360
LOWEST = 0.4


class _Frame:
    """The plot's coordinates: rounds from 0 to ``last``, values from LOWEST to 1."""

    def __init__(self, last: float) -> None:
        self.last = last

    def x(self, number: float) -> float:
        return LEFT + WIDTH * number / self.last

    def y(self, value: float) -> float:
        return TOP + HEIGHT * (1.0 - (min(max(value, LOWEST), 1.0) - LOWEST) / (1.0 - LOWEST))

    def axes(self) -> list[str]:
        parts = []
        for tick in range(4, 11):
            y = self.y(tick / 10)
            parts.append(f'<path d="M{LEFT},{y:.1f}H{LEFT + WIDTH}" stroke="#ddd"/>')
            parts.append(_text(LEFT - 8, y + 4, f"{tick / 10:.1f}", "end"))
        for tick in range(0, int(self.last) + 1, max(1, int(self.last) // 6)):
            parts.append(_text(self.x(tick), TOP + HEIGHT + 18, str(tick), "middle"))
        return parts

    def line(self, points: Sequence[Sequence[float]], colour: str, opacity: float, width: float) -> str:
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        style = f'fill="none" stroke="{colour}" stroke-opacity="{opacity}" stroke-width="{width}"'
        return f'<polyline points="{places}" {style}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _mean_curve(runs: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float]]:
    """Means at the rounds that every run has."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for number, value in run:
            values.setdefault(float(number), []).append(float(value))
    return [(number, mean(found)) for number, found in sorted(values.items()) if len(found) == len(runs)]
