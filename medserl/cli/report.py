"""``medserl report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from medserl.errors import EXIT_OK, ConfigError


def add_report(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl report``."""
    parser = commands.add_parser(
        "report",
        help="say how a training run went, with its curves",
        description="Write RUN_DIR/report.html and report.json from what the run recorded; it may still be running. "
        "Several runs are compared instead, on one page; runs that differ only in their seed count as one.",
    )
    parser.set_defaults(run=run_report)
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="the directory of a run of `medserl train`"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the page of a comparison (default: comparison.html beside the first run)",
    )


def run_report(options: argparse.Namespace, overrides: list[str]) -> int:
    """Write the report, print its sentences."""
    from medserl.report import comparison
    from medserl.report.run_report import PAGE, summary_table, write_report
    from medserl.report.terminal import show

    if overrides:
        raise ConfigError(f"{overrides[0]}: report takes a run directory and no overrides")
    if len(options.run_dirs) > 1:
        out = options.out or options.run_dirs[0].absolute().parent / comparison.PAGE
        show(comparison.compare_runs(options.run_dirs, out))
        print(f"comparison in {out}")
        return EXIT_OK
    if options.out is not None:
        raise ConfigError("--out: names the page of a comparison; one run's report lies in its own directory")
    (run_dir,) = options.run_dirs
    show(summary_table(write_report(run_dir)))
    print(f"report in {run_dir / PAGE}")
    return EXIT_OK
