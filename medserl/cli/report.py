"""``medserl report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from medserl.errors import EXIT_OK, ConfigError


def add_report(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl report``."""
    parser = commands.add_parser(
        "report",
        help="say how a training run went, with curves",
        description="Write RUN_DIR/report.html and report.json from what the run recorded; a running one will do.",
    )
    parser.set_defaults(run=run_report)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="the directory of a run of `medserl train`")


def run_report(options: argparse.Namespace, overrides: list[str]) -> int:
    """Write the report, print its sentences."""
    from medserl.report.run_report import PAGE, summary_table, write_report
    from medserl.report.terminal import show

    if overrides:
        raise ConfigError(f"{overrides[0]}: report takes a run directory and no overrides")
    show(summary_table(write_report(options.run_dir)))
    print(f"report in {options.run_dir / PAGE}")
    return EXIT_OK
