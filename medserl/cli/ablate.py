"""``medserl ablate``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from medserl.errors import EXIT_FAILURE, EXIT_OK, ConfigError


def ablate(options: argparse.Namespace) -> int:
    """Run a grid and write its table and plot; the same command goes on with what is not finished."""
    from medserl.ablation.cell import LABELLED, judge_splits
    from medserl.ablation.grid import Grid, check_seeds, read_grid
    from medserl.ablation.report import write_report
    from medserl.ablation.runner import Bench
    from medserl.config.load import configs_dir
    from medserl.report.terminal import show_markdown
    from medserl.ward import MODEL_DIR

    given = Path(options.grid)
    shipped = configs_dir() / "ablations" / f"{options.grid}.yaml"
    grid = read_grid(shipped if not given.exists() and shipped.is_file() else given)
    if options.seeds:
        grid = Grid(grid.title, grid.arms, check_seeds(options.seeds, "--seeds"))
    unknown = next((name for name in options.only if name not in {arm.name for arm in grid.arms}), None)
    if unknown is not None:
        raise ConfigError(f"--only {unknown}: no such arm; known: {', '.join(arm.name for arm in grid.arms)}")
    for name, value in (("--jobs", options.jobs), ("--notes", options.notes)):
        if value < 1:
            raise ConfigError(f"{name}: {value} is less than 1")
    out = Path(options.out).expanduser()
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out {out}: is not a folder; give another")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    bench = Bench(grid, out, options.jobs, options.notes)
    failed = [] if options.report else bench.run(options.only)
    finished = [result for cell in grid.cells() if (result := bench.finished(cell))]
    labelled = {result[LABELLED] for result in finished if result.get(LABELLED)}
    start = judge_splits(MODEL_DIR, options.notes, labelled.pop() if len(labelled) == 1 else None)
    show_markdown(write_report(bench, start))
    return EXIT_FAILURE if failed else EXIT_OK
