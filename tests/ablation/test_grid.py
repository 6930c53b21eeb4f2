"""Grids of runs, and what is reported of them. Whole benches run real trainings: docs/ward.md."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.ablation.cell import summary
from medserl.ablation.grid import Arm, Grid, read_grid
from medserl.ablation.report import table, unequal_steps
from medserl.ablation.runner import Bench, read_result
from medserl.config.load import configs_dir, game_settings, is_sft_config, load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.preflight.layout import check_layout
from medserl.report.plots import line_plot


def grid_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return path


def test_arms_share_the_overrides_for_all_and_seeds_come_first(tmp_path: Path) -> None:
    text = "overrides: [a=1]\nseeds: [4, 5]\narms:\n  x: [b=2]\n  y:\n"
    text += "  z: {config: sft_embedded, overrides: [c=3], only: true}\n"
    grid = read_grid(grid_file(tmp_path, text))
    assert [arm.overrides for arm in grid.arms] == [("a=1", "b=2"), ("a=1",), ("c=3",)]
    assert [arm.config for arm in grid.arms] == ["embedded", "embedded", "sft_embedded"]
    assert [cell.name for cell in grid.cells()][:4] == ["x-seed4", "y-seed4", "z-seed4", "x-seed5"]


def test_a_product_has_an_arm_for_every_combination(tmp_path: Path) -> None:
    grid = read_grid(grid_file(tmp_path, "grid:\n  medserl.a: [p, q]\n  medserl.b: [1, null]\n"))
    assert [arm.name for arm in grid.arms] == ["a-p_b-1", "a-p_b-null", "a-q_b-1", "a-q_b-null"]
    assert grid.arms[1].overrides == ("medserl.a=p", "medserl.b=null")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("arms: {x: [a=1]}\nsede: [1]", "unknown key 'sede'"),
        ("title: nothing", "neither arms nor grid"),
        ("arms: {x: a=1}", r"arms\.x must be a list"),
        ("arms: {x: [1]}", "list of overrides"),
        ("arms: {a/b: []}", "the name of a folder"),
        ("arms: {x: []}\nseeds: [one]", "whole numbers"),
        ("- a", "not a mapping"),
        ("arms: [a, b]", "arms must map"),
        ("arms: hello", "arms must map"),
        ("arms: {a: 3}", r"arms\.a must be a list"),
        ("arms: {x: []}\nseeds: [true]", "True is not a seed"),
        ("arms: {x: []}\nseeds: [1, 1]", "1 is given twice"),
        ("arms: {x: []}\nseeds: [-1]", "-1 is not a seed"),
        ("arms: {x: []}\nseeds: [4294967296]", "is not a seed"),
        ("arms:\n  a: []\n  a: []", "'a' is given twice"),
        ("grid: {1: [2]}", "must map keys to lists"),
        ("grid: [a]", "grid must map"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_wrong_file_is_told_in_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        read_grid(grid_file(tmp_path, text))


@pytest.mark.engine  # a second for each of many configurations
@pytest.mark.parametrize("path", sorted((configs_dir() / "ablations").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_arm_of_a_shipped_grid_is_a_configuration(path: Path) -> None:
    for arm in read_grid(path).arms:
        if is_sft_config(arm.config):
            load_sft_config(arm.config, list(arm.overrides))
        else:
            config = load_config(arm.config, list(arm.overrides))
            check_layout(config)
            settings = game_settings(config)
            assert settings.notes.path is None, "the bench plays on the ward"


def test_a_cell_without_a_result_is_not_finished(tmp_path: Path) -> None:
    grid = Grid("g", (Arm("x", (), "embedded"),), (1,))
    bench = Bench(grid, tmp_path, jobs=1, notes=1)
    assert read_result(bench.folder(next(grid.cells()))) is None


def test_summary_takes_curves_and_the_last_rounds() -> None:
    rows = [{"round": 0, "validation": True, "val/greedy/balanced_accuracy": 0.6}]
    measured = {"referee/void_rate": 0.5, "medserl/optimizer_steps": 2}
    rows += [{"round": i, "vcf_acceptance_rate": i / 20, **measured} for i in range(1, 21)]
    found = summary(rows)
    assert found["rounds"] == 20
    assert found["curves"]["val/greedy/balanced_accuracy"] == [(0, 0.6)]
    assert found["last"]["vcf_acceptance_rate"] == pytest.approx(sum(range(11, 21)) / 200)
    assert found["last"]["label_inversion_rate"] is None
    assert found["whole"] == {"undecided": 0.5, "least_acceptance": 0.05, "optimizer_steps": 40}
    assert summary(rows[:1])["whole"] == {"undecided": None, "least_acceptance": None, "optimizer_steps": 0}


def test_table_gives_means_over_seeds_and_says_how_many() -> None:
    grid = Grid("Title", (Arm("x", (), "embedded"), Arm("y", (), "embedded")), (1, 2, 3))
    results = {"x": {1: {"test": {"greedy": 0.7}}, 2: {"test": {"greedy": 0.8}}}, "y": {}}
    lines = table(grid, results, {"test": {"greedy": 0.6}}).splitlines()
    assert lines[0] == "# Title"
    assert lines[4].startswith("| (start) |  | 0.600 |")
    assert lines[5].startswith("| x | 2 of 3 | 0.750 ± 0.071 |")
    assert lines[6].startswith("| y | 0 of 3 | – |")


def test_table_leaves_out_columns_of_which_nothing_is_known() -> None:
    grid = Grid("Title", (Arm("x", (), "embedded"),), (1,))
    few = table(grid, {"x": {1: {"test": {"greedy": 0.7}}}}, None)
    more = table(grid, {"x": {1: {"test": {"greedy": 0.7}, "test_unlabelled": {"greedy": 0.6}}}}, None)
    assert few.splitlines()[2] == "| arm | seeds | test greedy |"
    assert more.splitlines()[2] == "| arm | seeds | test greedy | unlabelled greedy |"


def test_arms_that_moved_their_weights_more_often_than_others_are_told() -> None:
    def made(**steps: list[int]) -> dict[str, dict[int, dict[str, Any]]]:
        return {
            arm: {seed: {"test": {"greedy": 0.7}, "whole": {"optimizer_steps": n}} for seed, n in enumerate(counts)}
            for arm, counts in steps.items()
        }

    grid = Grid("Title", (Arm("play", (), "embedded"), Arm("gold", (), "embedded")), (0, 1))
    lines = table(grid, made(play=[60, 58], gold=[30, 30]), None).splitlines()
    assert lines[2] == "| arm | seeds | test greedy | optimizer steps |" and lines[5].startswith("| gold | 2 of 2 |")
    assert "(play 59, gold 30)" in unequal_steps(made(play=[60, 58], gold=[30, 30]))
    assert unequal_steps(made(play=[60, 58], gold=[55, 57])) == "" == unequal_steps({"play": {}})


def test_inversion_that_nobody_measured_is_no_zero_and_no_dash() -> None:
    grid = Grid("Title", (Arm("plain", (), "embedded"), Arm("gold", (), "embedded")), (1,))
    plain = {"test": {"greedy": 0.7}, "last": {"vcf_acceptance_rate": 0.6, "label_inversion_rate": None}}
    lines = table(grid, {"plain": {1: plain}, "gold": {1: {"test": {"greedy": 0.7}}}}, None).splitlines()
    assert lines[2] == "| arm | seeds | test greedy | acceptance | label inversion |"
    assert lines[4] == "| plain | 1 of 1 | 0.700 | 0.600 | not measured |"
    assert lines[5] == "| gold | 1 of 1 | 0.700 | – | – |"


@settings(max_examples=15)  # matplotlib draws each
@given(st.lists(st.lists(st.tuples(st.integers(0, 90), st.floats(0, 1)), min_size=1, max_size=5), max_size=3))
def test_plot_is_well_formed_whatever_the_curves(runs: list[list[tuple[int, float]]]) -> None:
    from xml.etree import ElementTree

    ElementTree.fromstring(line_plot("a < b", {"arm & co": runs, "none": []}))
