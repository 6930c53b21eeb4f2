"""Line plots are well-formed SVG and keep within their axes."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from medserl.report.plots import line_plot

RUN = st.dictionaries(st.integers(0, 500), st.floats(-1e6, 1e6), max_size=20).map(lambda d: sorted(d.items()))


@given(st.dictionaries(st.text("ab<&'\" é", min_size=1), st.lists(RUN, min_size=1, max_size=3), max_size=4))
def test_any_curves_make_a_drawing_within_its_frame(curves: dict[str, list[list[tuple[int, float]]]]) -> None:
    drawing = ElementTree.fromstring(line_plot("a & b <c>", curves, size=(100, 50), mark=(0, "here")))
    names = {element.text for element in drawing.iter("{http://www.w3.org/2000/svg}text")}
    assert {"a & b <c>", "here"} <= names and set(curves) <= names
    for element in drawing.iter("{http://www.w3.org/2000/svg}polyline"):
        for place in element.get("points", "").split():
            x, y = map(float, place.split(","))
            assert 65.9 <= x <= 166.1 and 43.9 <= y <= 94.1


def test_seeds_are_thin_and_their_mean_thick_at_the_rounds_that_all_have() -> None:
    runs = [[(0, 0.5), (1, 0.7), (2, 0.9)], [(0, 0.7), (1, 0.9)]]
    drawing = ElementTree.fromstring(line_plot("t", {"arm": runs}, limits=(0.4, 1.0), size=(100, 60)))
    lines = list(drawing.iter("{http://www.w3.org/2000/svg}polyline"))
    assert [line.get("stroke-width") for line in lines] == ["1.0", "1.0", "2.5"]
    assert lines[-1].get("points") == "66.0,84.0 116.0,64.0"  # 0.6 and 0.8 of 0.4 to 1, rounds 0 and 1 of 0 to 2
