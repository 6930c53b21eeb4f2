"""One table and one plot of a bench: Markdown, JSON and SVG, from the cells that are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

from medserl.ablation.cell import ACCEPTANCE, UNLABELLED
from medserl.ablation.fingerprint import made_with
from medserl.ablation.grid import Grid
from medserl.ablation.runner import Bench, read_result
from medserl.files import made_folder, write_all_atomically
from medserl.report.plots import dot_plot, line_plot
from medserl.report.tables import escape
from medserl.report.tables import table as markdown_table

TABLE, DATA, PLOT, DOTS = "table.md", "results.json", "plot.svg", "dots.svg"
DOT_PANELS = {"test greedy": ("test", "greedy"), "test sampled": ("test", "sampled"), "test AUC": ("test", "auc")}
CURVE = "val/greedy/balanced_accuracy"
LIMITS = (0.4, 1.0)
CHANCE = 0.5


Column = Callable[[dict[str, Any]], float | None]


def _at(*keys: str) -> Column:
    def value(result: dict[str, Any]) -> float | None:
        node: Any = result
        for key in keys:
            node = node.get(key) if isinstance(node, dict) else None
        return node if isinstance(node, (int, float)) else None

    return value


def _first(*columns: Column) -> Column:
    """The first of some columns that has a value."""

    def value(result: dict[str, Any]) -> float | None:
        return next((found for column in columns if (found := column(result)) is not None), None)

    return value


STEPS = _at("whole", "optimizer_steps")
ALIKE = 1.1  # times as many steps as another arm had are still the same for a comparison
INVERSION, NOT_MEASURED = "label inversion", "not measured"
COLUMNS: tuple[tuple[str, Column], ...] = (
    ("test greedy", _at("test", "greedy")),
    ("test sampled", _at("test", "sampled")),
    ("test AUC", _at("test", "auc")),
    ("held-out greedy", _at("test_heldout", "greedy")),
    ("held-out sampled", _at("test_heldout", "sampled")),
    ("unlabelled greedy", _at(UNLABELLED, "greedy")),
    ("unlabelled sampled", _at(UNLABELLED, "sampled")),
    ("unlabelled AUC", _at(UNLABELLED, "auc")),
    ("acceptance", _at("last", ACCEPTANCE)),
    ("least", _at("whole", "least_acceptance")),
    # Against the second referee where there is one: the first may take the mode's word for it.
    (
        INVERSION,
        _first(_at("last", "label_inversion_rate/second_referee"), _at("last", "label_inversion_rate")),
    ),
    ("undecided", _at("whole", "undecided")),
    ("new edits", _at("last", "edit/novel_rate")),
    ("coverage", _at("last", "edit/table_coverage")),
    ("injector wins", _at("last", "injector/win_rate")),
    ("rounds", _at("rounds")),
    ("optimizer steps", STEPS),
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
    if line := unequal_steps(results):
        text += f"\n{line}\n"
    if line := made_with(result for runs in results.values() for result in runs.values()):
        text += f"\n{line}\n"
    data = {"title": grid.title, "start": start, "arms": results}
    curves = {
        name: [run["curves"][CURVE] for run in runs.values() if run.get("curves", {}).get(CURVE)]
        for name, runs in results.items()
    }
    plot = line_plot(f"{grid.title}: {CURVE}", curves, unit="balanced accuracy", limits=LIMITS, chance=CHANCE)
    pages = {TABLE: text, DATA: json.dumps(data, indent=1) + "\n", PLOT: plot, DOTS: dots(grid.title, results, start)}
    with made_folder(out):
        write_all_atomically({out / name: page for name, page in pages.items()}, 0o644)
    return text


def dots(title: str, results: dict[str, dict[int, dict[str, Any]]], start: dict[str, Any] | None) -> str:
    """What the runs measure on the test patients, as a dot plot with deviations."""
    columns = {panel: _at(*keys) for panel, keys in DOT_PANELS.items()}
    rows = {
        name: {
            panel: [v for run in runs.values() if (v := column(run)) is not None] for panel, column in columns.items()
        }
        for name, runs in results.items()
    }
    before = {panel: v for panel, column in columns.items() if (v := column(start or {})) is not None}
    return dot_plot(title, rows, list(columns), before)


def table(grid: Grid, results: dict[str, dict[int, dict[str, Any]]], start: dict[str, Any] | None) -> str:
    """Markdown: an arm per row, mean ± standard deviation over its seeds; only columns of which something is known."""
    finished = [run for runs in results.values() for run in runs.values()]
    columns = [
        (name, column)
        for name, column in COLUMNS
        if any(column(run) is not None for run in finished) or (name == INVERSION and _played(finished))
    ]
    rows = [] if start is None else [_row("(start)", "", [start], columns)]
    for name, runs in results.items():
        rows.append(_row(escape(name), f"{len(runs)} of {len(grid.seeds)}", list(runs.values()), columns))
    head = ["arm", "seeds", *(name for name, _ in columns)]
    return "\n".join([f"# {escape(grid.title)}", "", *markdown_table(head, rows, "l" * len(head))]) + "\n"


def unequal_steps(results: dict[str, dict[int, dict[str, Any]]]) -> str:
    """A line for people where arms differ in how often their weights moved; else empty."""
    steps = {
        name: mean(found)
        for name, runs in results.items()
        if (found := [value for run in runs.values() if (value := STEPS(run)) is not None])
    }
    if not steps or max(steps.values()) <= ALIKE * min(steps.values()):
        return ""
    counted = ", ".join(f"{escape(name)} {count:.0f}" for name, count in steps.items())
    return (
        f"The arms differ in optimizer steps ({counted}), and not only in what they are named for: "
        "actor_rollout_ref.actor.ppo_mini_batch_size or medserl.max_rounds of an arm evens them out."
    )


def _played(runs: Sequence[dict[str, Any]]) -> bool:
    return any(_at("last", ACCEPTANCE)(run) is not None for run in runs)


def _row(arm: str, seeds: str, runs: Sequence[dict[str, Any]], columns: Sequence[tuple[str, Column]]) -> list[str]:
    cells = []
    for name, column in columns:
        values = [value for run in runs if (value := column(run)) is not None]
        if not values:
            cells.append(NOT_MEASURED if name == INVERSION and _played(runs) else "–")
        else:
            spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.3f}{spread}")
    return [arm, seeds, *cells]
