"""The plots of a results file, as SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medserl.report.plots import FILL, INK, MARK, drawn, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart; ``value`` in [0, 1], None where there is none."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None
    baseline: float | None = None
    """What the better of the two constant answers gets."""


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from 0 to 1 with their 95 % intervals; a dashed mark shows what a constant answer gets."""

    def draw(figure: Figure) -> None:
        draw_bars(figure, title, bars)

    said = "; ".join(f"{bar.name}: {_value(bar)}" for bar in bars)
    return drawn(title, f"Bars from 0 to 1, with 95 % intervals. {said}.", (700, 110 + 28 * len(bars)), draw)


def draw_bars(figure: Figure, title: str, bars: Sequence[Bar]) -> None:
    """What `bar_chart` draws."""
    axes = figure.subplots()
    axes.set(title=plain(title), xlabel="share", xlim=(0, 1), ylabel="metric")
    axes.grid(False, axis="y")
    axes.grid(True, axis="x", clip_on=False)
    axes.set_yticks(range(len(bars)), [plain(bar.name) for bar in bars])
    axes.set_ylim(len(bars) - 0.5, -0.5)
    keys: dict[str, Any] = {}
    for row, bar in enumerate(bars):
        axes.barh(row, bar.value or 0.0, height=0.6, color=FILL, clip_on=False)
        end = bar.value or 0.0
        if bar.interval is not None:
            low, high = bar.interval
            keys["95 % bootstrap interval"] = axes.plot(
                [low, low, low, high, high, high],
                [row - 0.15, row + 0.15, row, row, row - 0.15, row + 0.15],
                color=INK,
                linewidth=1.5,
                clip_on=False,
            )[0]
            end = max(end, high)
        if bar.baseline is not None:
            at, reach = [bar.baseline] * 2, [row - 0.42, row + 0.42]
            keys["chance: the better of the constant answers"] = axes.plot(
                at, reach, color=MARK, linewidth=2.5, linestyle="--", clip_on=False
            )[0]
        axes.annotate(_value(bar), (end, row), (6, 0), textcoords="offset points", va="center", annotation_clip=False)
    if keys:
        figure.legend(list(keys.values()), list(keys), loc="outside lower left", ncols=len(keys))


def _value(bar: Bar) -> str:
    return "n/a" if bar.value is None else f"{bar.value:.3f}"


def reliability_plot(title: str, bins: Sequence[Mapping[str, Any]]) -> str:
    """Share of texts with an error against p(INCORRECT), a circle per bin, its area the number of texts."""
    filled = [row for row in bins if row["n"]]

    def draw(figure: Figure) -> None:
        draw_reliability(figure, title, filled)

    said = "; ".join(
        f"{row['n']} texts said {row['mean_probability']:.2f}, {row['share_incorrect']:.2f} hold an error"
        for row in filled
    )
    return drawn(title, f"Circles near the dashed diagonal are calibrated. {said}.", (480, 480), draw)


def draw_reliability(figure: Figure, title: str, filled: Sequence[Mapping[str, Any]]) -> None:
    """What `reliability_plot` draws, of the bins that hold a text."""
    axes = figure.subplots()
    axes.set(title=plain(title), xlabel="p(INCORRECT) said", ylabel="share of texts with an error")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.grid(True, clip_on=False)
    (diagonal,) = axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle="--", clip_on=False)
    total = sum(row["n"] for row in filled)
    for row in filled:
        axes.plot(
            [row["mean_probability"]],
            [row["share_incorrect"]],
            marker="o",
            markersize=2 * (3 + 22 * (row["n"] / total) ** 0.5),
            markeredgewidth=0,
            color=FILL,
            alpha=0.6,
            clip_on=False,
        )
    figure.legend([diagonal], ["calibrated"], loc="outside lower left")
