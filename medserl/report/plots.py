"""Plots as SVG text: no plotting library is needed to make or to see them. Pure, and light to import."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from xml.sax.saxutils import escape

Points = Sequence[Sequence[float]]
"""(x, y) pairs, x ascending."""

INK, GRID, FILL, MARK = "#222222", "#dddddd", "#4477aa", "#cc6677"
COLOURS = (FILL, MARK, "#228833", "#ccbb44", "#66ccee", "#aa3377", "#666666", "#ee8866", "#44bb99", "#000000")
_FONT = 'font-family="sans-serif" font-size="12"'
_LEFT, _TOP, _LEGEND = 66, 44, 240


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashed: bool = False) -> str:
    """A straight line."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    points = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {points} stroke="{colour}" stroke-width="{width}"{dash}/>'


def text(x: float, y: float, words: str, anchor: str = "start", bold: bool = False) -> str:
    """Words whose baseline is at ``y``; ``anchor`` is ``start``, ``middle`` or ``end``."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}" {_FONT}{weight}>{escape(words)}</text>'


def document(width: float, height: float, parts: Sequence[str]) -> str:
    """The whole drawing, on white."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def line_plot(
    title: str,
    curves: Mapping[str, Sequence[Points]],
    *,
    limits: tuple[float, float] | None = None,
    size: tuple[int, int] = (640, 360),
    mark: tuple[float, str] | None = None,
) -> str:
    """Curves over rounds, each with its name in a legend.

    Args:
        title: The heading.
        curves: Name -> runs. The mean over the rounds that every run has is drawn thick, single runs thin below it.
        limits: Lowest and highest y; values beyond are drawn at the edge. None: from the values.
        size: Width and height of the axes, in pixels.
        mark: An x to mark with a dashed line, and its name in the legend.
    """
    values = [(float(x), float(y)) for runs in curves.values() for run in runs for x, y in run]
    lowest, highest = limits or _range([y for _, y in values])
    frame = _Frame(max((x for x, _ in values), default=1.0) or 1.0, lowest, highest, size)
    parts = [text(_LEFT, 22, title, bold=True), *frame.axes()]
    legend = _LEFT + size[0] + 14
    for number, (name, runs) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        if len(runs) > 1:
            parts += [frame.polyline(run, colour, 0.35, 1.0) for run in runs]
        parts.append(frame.polyline(_mean_curve(runs), colour, 1.0, 2.5 if len(runs) > 1 else 1.8))
        y = _TOP + 14 + 18 * number
        parts += [line(legend, y - 4, legend + 18, y - 4, colour, 2.5), text(legend + 24, y, name)]
    if mark is not None:
        x, y = frame.x(mark[0]), _TOP + 14 + 18 * len(curves)
        parts.append(line(x, _TOP, x, _TOP + size[1], INK, 1, dashed=True))
        parts += [line(legend, y - 4, legend + 18, y - 4, INK, 1, dashed=True), text(legend + 24, y, mark[1])]
    return document(_LEFT + size[0] + _LEGEND, _TOP + size[1] + 36, parts)


def _range(values: Sequence[float]) -> tuple[float, float]:
    """A little more than the values need."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    room = 0.05 * (high - low)
    if high - low < 1e-9 * max(1.0, abs(high)):
        room = 0.05 * abs(high) or 0.5
    return low - room, high + room


def _ticks(lowest: float, highest: float) -> list[float]:
    """Four to eleven round numbers between the two."""
    step = 10.0 ** math.floor(math.log10((highest - lowest) / 4))
    step = next(step * factor for factor in (5, 2, 1) if (highest - lowest) / (step * factor) >= 4)
    return [number * step for number in range(math.ceil(lowest / step - 1e-9), math.floor(highest / step + 1e-9) + 1)]


class _Frame:
    """A plot's coordinates: x from 0 to ``last``, y from ``lowest`` to ``highest``."""

    def __init__(self, last: float, lowest: float, highest: float, size: tuple[int, int]) -> None:
        self.last, self.lowest, self.highest = last, lowest, highest
        self.width, self.height = size

    def x(self, number: float) -> float:
        return _LEFT + self.width * number / self.last

    def y(self, value: float) -> float:
        inside = min(max(value, self.lowest), self.highest)
        return _TOP + self.height * (self.highest - inside) / (self.highest - self.lowest)

    def axes(self) -> list[str]:
        parts = []
        for tick in _ticks(self.lowest, self.highest):
            y = self.y(tick)
            parts += [line(_LEFT, y, _LEFT + self.width, y, GRID, 1), text(_LEFT - 8, y + 4, f"{tick:.6g}", "end")]
        for tick in range(0, int(self.last) + 1, max(1, int(self.last) // 6)):
            parts.append(text(self.x(tick), _TOP + self.height + 18, str(tick), "middle"))
        return parts

    def polyline(self, points: Points, colour: str, opacity: float, width: float) -> str:
        if len(points) == 1:
            ((x, y),) = points
            return f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3" fill="{colour}"/>'
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        style = f'fill="none" stroke="{colour}" stroke-opacity="{opacity}" stroke-width="{width}"'
        return f'<polyline points="{places}" {style}/>'


def _mean_curve(runs: Sequence[Points]) -> list[tuple[float, float]]:
    """Means at the rounds that every run has."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for number, value in run:
            values.setdefault(float(number), []).append(float(value))
    return [(number, mean(found)) for number, found in sorted(values.items()) if len(found) == len(runs)]
