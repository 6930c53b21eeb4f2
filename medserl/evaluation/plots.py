"""The plots of a results file, as SVG. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medserl.report.plots import FILL, GRID, INK, MARK, document, line, text


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart; ``value`` in [0, 1], None where there is none."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    baseline: float | None = None


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from 0 to 1 with their 95 % intervals; a red mark shows the best trivial baseline."""
    left, width, step, top = 210, 400, 26, 44
    height = top + step * len(bars) + 48
    parts = [text(10, 22, title, bold=True), *_grid(left, width, top, top + step * len(bars))]
    for number, bar in enumerate(bars):
        y = top + step * number + 5
        parts.append(text(left - 8, y + 12, bar.name, anchor="end"))
        if bar.value is None:
            parts.append(text(left + 6, y + 12, "n/a"))
            continue
        parts.append(f'<rect x="{left}" y="{y}" width="{bar.value * width:.1f}" height="16" fill="{FILL}"/>')
        if bar.baseline is not None:
            x = left + bar.baseline * width
            parts.append(line(x, y - 3, x, y + 19, MARK, 3))
        end = bar.value
        if bar.interval is not None:
            low, high = (left + share * width for share in bar.interval)
            parts.append(line(low, y + 8, high, y + 8, INK, 1.5))
            parts += [line(x, y + 4, x, y + 12, INK, 1.5) for x in (low, high)]
            end = max(end, bar.interval[1])
        parts.append(text(left + end * width + 6, y + 12, f"{bar.value:.3f}"))
    parts.append(text(left, height - 10, "black: 95 % bootstrap interval; red: the better of the constant answers"))
    return document(left + width + 70, height, parts)


def reliability_plot(title: str, bins: Sequence[dict[str, Any]]) -> str:
    """Share of texts with an error against p(INCORRECT), a circle per bin, its area the number of texts."""
    left, top, size = 60, 40, 360
    total = max(sum(row["n"] for row in bins), 1)
    parts = [text(10, 22, title, bold=True), *_grid(left, size, top, top + size)]
    for tick in range(6):
        y = top + size - size * tick / 5
        parts += [line(left, y, left + size, y, GRID, 1), text(left - 6, y + 4, f"{tick / 5:.1f}", anchor="end")]
    parts.append(line(left, top + size, left + size, top, INK, 1, dashed=True))
    for row in bins:
        if row["n"]:
            x = left + size * row["mean_probability"]
            y = top + size - size * row["share_incorrect"]
            radius = 3 + 22 * (row["n"] / total) ** 0.5
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{FILL}" fill-opacity="0.6">'
                f"<title>{row['n']} texts</title></circle>"
            )
    parts.append(text(left, top + size + 36, "p(INCORRECT) said → share with an error; dashed: calibrated"))
    return document(left + size + 30, top + size + 52, parts)


def _grid(left: float, width: float, top: float, bottom: float) -> list[str]:
    parts = []
    for tick in range(6):
        x = left + width * tick / 5
        parts += [line(x, top, x, bottom, GRID, 1), text(x, bottom + 16, f"{tick / 5:.1f}", anchor="middle")]
    return parts
