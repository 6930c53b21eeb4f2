"""Plots as SVG, drawn by matplotlib in one style (medserl.mplstyle). Imports it only when something is drawn."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean, stdev
from textwrap import fill
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Points = Sequence[Sequence[float]]
"""(x, y) pairs, x ascending."""
INK, FILL, MARK = "#222222", "#4477aa", "#cc6677"
CHANCE = "chance"
DARK = {
    "#ffffff": "#16181c",
    INK: "#e4e6ea",
    "#dddddd": "#3a3d44",
    FILL: "#77aadd",
    MARK: "#ee99aa",
    "#228833": "#66bb77",
    "#aa3377": "#dd77aa",
    "#666666": "#aaaaaa",
    "#000000": "#ffffff",
}
"""Colours of the style, and what takes their place on a dark page; others can be read on both."""
_STYLE = Path(__file__).with_name("medserl.mplstyle")
_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LEGEND = 36  # letters of a line: a longer name must not push the axes away
_COLUMNS = 2  # of the legend, which stands below the axes: beside them a phone would not show it
_LEGEND_LINE = 17  # pixels
_PIXELS = 72  # figure.dpi of the style


def drawn(title: str, description: str, size: tuple[float, float], draw: Callable[[Figure], None]) -> str:
    """An SVG element, to stand alone or in a page: no reference to anything, the same for the same input.

    Args:
        title: Its accessible name; ``draw`` writes the visible one.
        description: What it shows, for who cannot see it.
        size: Width and height in pixels.
        draw: Draws on an empty figure.
    """
    import matplotlib
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    file = io.StringIO()
    # No pyplot: nothing of this is left behind in the process. The user's own matplotlibrc does not count.
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # the reader's own font has it
        matplotlib.rcdefaults()
        style.use(_STYLE)
        figure = Figure(figsize=(size[0] / _PIXELS, size[1] / _PIXELS))
        draw(figure)
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Creator": None})
    return _labelled(file.getvalue(), plain(title), plain(description))


def plain(words: str) -> str:
    """``words`` on one line, without what XML cannot hold."""
    return " ".join(_NOT_XML.sub("\ufffd", words).split()) or " "


def _labelled(svg: str, title: str, description: str) -> str:
    """matplotlib's file without its head and metadata, with a name and a description for screen readers."""
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # In one page with other plots its ids are its own, and its style is no one else's.
    own = "plot-" + hashlib.sha256(f"{title}\0{body}".encode()).hexdigest()[:8]
    body = re.sub(r'(width|height)="([0-9.]+)pt"', r'\1="\2"', body, count=2)
    body = re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[1]}{own}-", body)
    body = body.replace('<style type="text/css">*{', f'<style type="text/css">{_dark(own)}\n#{own} *{{')
    names = f'id="{own}" role="img" aria-labelledby="{own}-title {own}-desc"'
    head, rest = body.split(">", 1)
    return (
        f'{head.replace("<svg", f"<svg {names}", 1)}>\n <title id="{own}-title">{escape(title)}</title>'
        f'\n <desc id="{own}-desc">{escape(description)}</desc>{rest.rstrip()}\n'
    )


def _dark(own: str) -> str:
    """CSS for a dark page. matplotlib writes a colour into each element's style, where a rule has to ask for it;
    the background changes with it, because the page around a picture of its own may be of the other kind."""
    rules = " ".join(
        f'#{own} [style*="{what}: {light}"]{{{what}: {dark} !important}}'
        for light, dark in DARK.items()
        for what in ("fill", "stroke")
    )
    return f"@media screen and (prefers-color-scheme: dark){{ {rules} }}"


def line_plot(
    title: str,
    curves: Mapping[str, Sequence[Points]],
    *,
    unit: str = "value",
    limits: tuple[float, float] | None = None,
    chance: float | None = None,
    size: tuple[int, int] = (900, 420),
    mark: tuple[float, str] | None = None,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> str:
    """Curves over rounds, each with its name in a legend, as SVG.

    Args:
        title: The heading.
        curves: Name -> runs. The mean over the rounds that every run has is drawn thick, single runs thin below it.
        unit: Name of the vertical axis.
        limits: Lowest and highest y; values beyond are drawn at the edge. None: from the values.
        chance: What answers at random get: a dashed line.
        size: Width and height in pixels, the legend's lines below aside.
        mark: An x to mark with a dotted line, and its name in the legend.
        bands: (x, low, high) of a curve by its name: drawn as an area behind it.
    """

    def draw(figure: Figure) -> None:
        draw_lines(figure, title, curves, unit=unit, limits=limits, chance=chance, mark=mark, bands=bands)

    lines = sum(_named(name).count("\n") + 1 for name in curves) + (chance is not None) + (mark is not None)
    whole = (size[0], size[1] + _LEGEND_LINE * -(-lines // _COLUMNS))
    return drawn(title, _said(curves, unit, chance, mark), whole, draw)


def _named(name: str) -> str:
    return fill(plain(name), _LEGEND, drop_whitespace=False)


def draw_lines(
    figure: Figure,
    title: str,
    curves: Mapping[str, Sequence[Points]],
    *,
    unit: str,
    limits: tuple[float, float] | None,
    chance: float | None,
    mark: tuple[float, str] | None,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> None:
    """What `line_plot` draws."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots()
    axes.set(title=plain(title), xlabel="round", ylabel=plain(unit))
    axes.grid(True, clip_on=False)  # clipping would be a reference inside the SVG, one a line
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    low, high = limits or (-float("inf"), float("inf"))
    handles, names = list[Any](), list[str]()
    for name, runs in curves.items():
        thick: dict[str, Any] = {"linewidth": 2.5}
        thin: dict[str, Any] = {"linewidth": 1.0, "alpha": 0.35}
        colour = f"C{len(names) % 10}"
        if band := (bands or {}).get(name):
            xs, lows, highs = zip(*band, strict=True)
            axes.fill_between(xs, lows, highs, color=colour, alpha=0.15, linewidth=0, clip_on=False)
        parts = [(run, thin) for run in runs] if len(runs) > 1 else []
        for points, look in [*parts, (_mean_curve(runs), thick if len(runs) > 1 else {})]:
            ys = [min(max(y, low), high) for _, y in points]
            dot: dict[str, Any] = {"marker": "o", "markersize": 5} if len(points) == 1 else {}
            (line,) = axes.plot([x for x, _ in points], ys, color=colour, clip_on=False, **look, **dot)
        handles.append(line)
        names.append(_named(name))
    if chance is not None:
        handles.append(axes.axhline(chance, color=INK, linewidth=1, linestyle="--", clip_on=False))
        names.append(CHANCE)
    if mark is not None:
        handles.append(axes.axvline(mark[0], color=INK, linewidth=1, linestyle=":", clip_on=False))
        names.append(plain(mark[1]))
    axes.set_xlim(left=0)
    if limits is not None:
        axes.set_ylim(*limits)
    if handles:
        figure.legend(handles, names, loc="outside lower left", ncols=min(_COLUMNS, len(handles)))


def bar_plot(title: str, bars: Sequence[tuple[str, float]], unit: str, size: tuple[int, int]) -> str:
    """Horizontal bars from the top, each with its name and its share of all, as SVG.

    Args:
        title: The heading.
        bars: Name and size of each; the sizes add up to something.
        unit: Name of the horizontal axis.
        size: Width and height of the whole, in pixels.
    """
    whole = sum(value for _, value in bars) or 1.0

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        axes.set(title=plain(title), xlabel=plain(unit))
        axes.grid(axis="y", visible=False)
        names = [plain(name) for name, _ in bars]
        drawn_bars = axes.barh(names, [value for _, value in bars], color=FILL, clip_on=False)
        axes.bar_label(drawn_bars, [f"{value / whole:.0%}" for _, value in bars], padding=4)
        axes.invert_yaxis()

    said = ", ".join(f"{name}: {value:.3g} ({value / whole:.0%})" for name, value in bars)
    return drawn(title, f"Bars of {unit}. {said}.", size, draw)


def dot_plot(
    title: str,
    rows: Mapping[str, Mapping[str, Sequence[float]]],
    panels: Sequence[str],
    start: Mapping[str, float] | None = None,
    size: tuple[int, int] | None = None,
) -> str:
    """A dot for each run, with mean and standard deviation of each arm, as SVG; panels side by side.

    Args:
        title: The heading.
        rows: Arms from the top; of each, the runs' values by panel.
        panels: Names of the values.
        start: A value of each panel to compare with: a dashed line.
        size: Width and height of the whole, in pixels.
    """
    from matplotlib.ticker import MaxNLocator

    start = start or {}

    def draw(figure: Figure) -> None:
        figure.suptitle(plain(title))
        for axes, panel in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
            axes.set(xlabel=plain(panel))
            axes.grid(True, clip_on=False)
            axes.xaxis.set_major_locator(MaxNLocator(5))
            for place, values in enumerate(row.get(panel, ()) for row in rows.values()):
                if not values:
                    continue
                axes.plot(values, [place] * len(values), "o", color=FILL, alpha=0.6, clip_on=False)
                if len(values) > 1:
                    middle, spread = fmean(values), stdev(values)
                    axes.plot([middle - spread, middle + spread], [place] * 2, color=MARK, linewidth=2, clip_on=False)
                    axes.plot([middle], [place], "|", color=MARK, markersize=12, markeredgewidth=2, clip_on=False)
            if panel in start:
                axes.axvline(start[panel], color=INK, linewidth=1, linestyle="--", clip_on=False)
            axes.set_yticks(range(len(rows)), [plain(name) for name in rows])
            axes.set_ylim(len(rows) - 0.5, -0.5)

    said = [f"Dots of {', '.join(panels)}, one a run; a bar is the mean with the standard deviation to both sides."]
    for name, row in rows.items():
        parts = [f"{panel} {_mean_and_spread(row[panel])}" for panel in panels if row.get(panel)]
        said.append(f"{name}: {', '.join(parts) or 'no value'}.")
    said += [f"A dashed line marks the start, {panel} {value:.3g}." for panel, value in start.items()]
    return drawn(title, " ".join(said), size or (900, 190 + 34 * len(rows)), draw)


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f} ({len(values)} runs)" if len(values) > 1 else "")


def _mean_curve(runs: Sequence[Points]) -> list[tuple[float, float]]:
    """Means at the rounds that every run has."""
    values: dict[float, list[float]] = {}
    for run in runs:
        for number, value in run:
            values.setdefault(float(number), []).append(float(value))
    return [(number, fmean(found)) for number, found in sorted(values.items()) if len(found) == len(runs)]


def _said(
    curves: Mapping[str, Sequence[Points]], unit: str, chance: float | None, mark: tuple[float, str] | None
) -> str:
    """The plot in words: where each curve begins and ends."""
    words = [f"Curves of {unit} by round."]
    for name, runs in curves.items():
        points = _mean_curve(runs)
        if points:
            of = f", mean of {len(runs)} runs" if len(runs) > 1 else ""
            (x0, y0), (x1, y1) = points[0], points[-1]
            words.append(f"{name}{of}: {y0:.3g} in round {x0:g}, {y1:.3g} in round {x1:g}.")
        else:
            words.append(f"{name}: no value.")
    if chance is not None:
        words.append(f"A dashed line marks chance, {chance:g}.")
    if mark is not None:
        words.append(f"A dotted line marks {mark[1]}.")
    return " ".join(words)
