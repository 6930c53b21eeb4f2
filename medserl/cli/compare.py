"""``medserl compare``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from medserl.errors import EXIT_OK, ConfigError


def add_compare(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl compare``."""
    parser = commands.add_parser(
        "compare",
        help="say whether one evaluation is better than another",
        description="Compare two results of `medserl evaluate` on the same texts, with paired tests.",
    )
    parser.set_defaults(run=run_compare)
    parser.add_argument("first", type=Path, metavar="A", help="a results directory or its results.json")
    parser.add_argument(
        "second", type=Path, metavar="B", help="another results directory or results.json; differences are B minus A"
    )
    parser.add_argument("--shared-ids", action="store_true", help="compare the ids that both have, if they differ")
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")


def run_compare(options: argparse.Namespace, overrides: list[str]) -> int:
    """Compare and print."""
    from medserl.evaluation.comparison import compare, comparison_markdown
    from medserl.evaluation.results import read_results
    from medserl.report.terminal import show_markdown

    if overrides:
        raise ConfigError(f"{overrides[0]}: compare takes two results and no overrides")
    if options.seed < 0:
        raise ConfigError(f"--seed: {options.seed} is less than 0")
    first, second = read_results(options.first), read_results(options.second)
    found = compare(first, second, shared=options.shared_ids, seed=options.seed)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        show_markdown(comparison_markdown(found).rstrip())
    return EXIT_OK
