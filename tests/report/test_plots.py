"""Plots are well-formed SVG with titles, labels and a description, and the same each time."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.report.plots import dot_plot, draw_lines, line_plot

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
RUN = st.dictionaries(st.integers(0, 500), st.floats(-1e6, 1e6), max_size=20).map(lambda d: sorted(d.items()))
NAMES = st.text("ab<&'\" é_$\\{^|\0\n漢", min_size=1, max_size=12)


def texts(svg: str) -> list[str]:
    return [" ".join("".join(e.itertext()).split()) for e in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def axes_of(curves: dict[str, Any], **more: Any) -> Any:
    from matplotlib.figure import Figure

    figure = Figure()
    draw_lines(figure, "t", curves, **{"unit": "u", "limits": None, "chance": None, "mark": None, **more})
    return figure.axes[0]


@settings(max_examples=6, deadline=None)  # a drawing takes a quarter of a second
@given(st.dictionaries(NAMES, st.lists(RUN, min_size=1, max_size=3), max_size=4))
def test_any_curves_make_a_drawing(curves: dict[str, list[list[tuple[int, float]]]]) -> None:
    svg = line_plot("a & b <c>", curves, unit="$u$", mark=(0, "here"))
    drawing = ElementTree.fromstring(svg)
    shown = texts(svg)
    assert {"a & b <c>", "here", "round", "$u$"} <= set(shown)
    for name in curves:
        assert " ".join(name.replace("\0", "\ufffd").split()) in shown
    assert drawing[0].tag == f"{SVG}title" and drawing[0].text == "a & b <c>"
    assert drawing[1].tag == f"{SVG}desc" and str(drawing[1].text).startswith("Curves of $u$ by round.")
    assert drawing.get("role") == "img"
    assert str(drawing.get("aria-labelledby")).split() == [drawing[0].get("id"), drawing[1].get("id")]


CURVES = {"arm": [[(0, 0.5), (1, 0.7), (2, 0.9)], [(0, 0.7), (1, 0.9)]], "one": [[(1, 0.25)]]}


def test_the_same_plot_is_the_same_file_and_refers_to_nothing_outside() -> None:
    svg = line_plot("t", CURVES, chance=0.5)
    assert svg == line_plot("t", CURVES, chance=0.5)
    script = f"from medserl.report.plots import line_plot; print(line_plot('t', {CURVES!r}, chance=0.5), end='')"
    script += "; import sys; assert 'matplotlib.pyplot' not in sys.modules"
    again = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert again == svg
    assert not re.findall(r'(?:href="|url\()(?!#)|<metadata|<\?xml|<!DOCTYPE|20\d\d-', svg)
    own = str(ElementTree.fromstring(svg).get("id"))
    assert all(name.startswith(own) for name in re.findall(r'\bid="([^"]*)"', svg))
    assert own not in line_plot("t", CURVES, chance=0.4), "two plots of one page share an id"


def test_nothing_global_is_left_behind_and_the_users_settings_do_not_count() -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 40, "svg.fonttype": "path"}):
        changed = line_plot("t", CURVES)
        assert (matplotlib.rcParams["font.size"], matplotlib.rcParams["svg.fonttype"]) == (40, "path")
    assert changed == line_plot("t", CURVES)


def test_seeds_are_thin_and_their_mean_thick_at_the_rounds_that_all_have() -> None:
    lines = axes_of(CURVES, limits=(0.4, 1.0)).get_lines()
    assert [line.get_linewidth() for line in lines[:3]] == [1.0, 1.0, 2.5]
    assert lines[2].get_xydata().ravel().tolist() == pytest.approx([0, 0.6, 1, 0.8])


def test_what_lies_beyond_the_limits_is_drawn_at_the_edge() -> None:
    axes = axes_of({"a": [[(0, -5.0), (1, 0.5), (2, 7.0)]]}, limits=(0.4, 1.0))
    assert axes.get_lines()[0].get_ydata().tolist() == [0.4, 0.5, 1.0]
    assert axes.get_ylim() == (0.4, 1.0)


def test_chance_is_a_dashed_line_where_there_is_one() -> None:
    assert "chance" not in texts(line_plot("t", CURVES))
    assert "chance" in texts(line_plot("t", CURVES, chance=0.5))
    line = axes_of(CURVES, chance=0.5).get_lines()[-1]
    assert line.get_linestyle() == "--" and set(line.get_ydata()) == {0.5}


def test_drawing_is_imported_by_who_draws_only() -> None:
    script = (
        "import sys, medserl.report.run_report, medserl.evaluation.markdown, medserl.report.terminal\n"
        "print(sorted({'matplotlib', 'scipy', 'sklearn', 'jinja2', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_dots_show_every_run_and_say_their_mean_and_deviation() -> None:
    rows = {"play & gold": {"AUC": [0.9, 0.92, 0.94]}, "alone": {"AUC": [0.87], "greedy": [0.7]}, "none": {}}
    svg = dot_plot("t", rows, ["AUC", "greedy"], {"AUC": 0.87})
    drawing = ElementTree.fromstring(svg)
    assert {"play & gold", "alone", "none", "AUC", "greedy", "t"} <= set(texts(svg))
    (said,) = (element.text or "" for element in drawing.iter(f"{SVG}desc"))
    assert "play & gold: AUC 0.920 ± 0.020 (3 runs)." in said and "alone: AUC 0.870, greedy 0.700." in said
    assert "none: no value." in said and "marks the start, AUC 0.87" in said
    assert svg.count("<use") >= 5 and svg == dot_plot("t", rows, ["AUC", "greedy"], {"AUC": 0.87})


@pytest.mark.parametrize("name", ["ward_learning", "ward_evidence"])
def test_a_picture_of_the_documents_is_that_of_its_figures(name: str) -> None:
    """Else: python tools/figures.py docs/figures/NAME.json docs/figures/NAME.svg."""
    spec = importlib.util.spec_from_file_location("figures", ROOT / "tools" / "figures.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    file = ROOT / "docs" / "figures" / f"{name}.json"
    assert tool.drawn(json.loads(file.read_text())) == file.with_suffix(".svg").read_text()


def test_every_picture_of_the_documents_can_be_read_on_a_dark_page() -> None:
    pictures = sorted((ROOT / "docs" / "figures").glob("*.svg"))
    assert len(pictures) >= 5
    for picture in pictures:
        svg = picture.read_text()
        assert "(prefers-color-scheme: dark)" in svg and svg.count("<svg") == 1, picture.name
        assert picture.stem in ("embedded_run", "warm_start_short") or picture.with_suffix(".json").is_file()
