"""``medserl data``: prepare, stats, ward."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from medserl.cli.arguments import add_splitting
from medserl.errors import EXIT_OK, ConfigError

PREPARE_HELP = """Turn MEDEC's CSVs, pairs in JSON Lines or Parquet into one Parquet file per split (verl's schema)
and a manifest. A source's split is decided by --split, or else by its column `split`, or else by its name
(MEDEC-MS-TestSet.csv), or else by --ratios and a hash of the note's id."""
STATS_HELP = """Show token lengths, classes and error types of prepared data or of any file of notes, and how many notes
would exceed data.max_prompt_length. Only a tokenizer is read, no model. Prompts and the injector's format are those
that a run with the model takes, unless a configuration is named. Overrides (key=value) may follow."""
WARD_HELP = """Write the synthetic ward's splits as CSV files in MEDEC's columns; every other note holds its error."""


def add_commands(commands: Any) -> None:
    """Add ``data`` to the subcommands of the command line's parser."""
    data = commands.add_parser("data", help="prepare and inspect data", description="Prepare and inspect data.")
    data.set_defaults(run=run)
    actions = data.add_subparsers(dest="data_command", required=True, metavar="ACTION")
    _add_prepare(
        actions.add_parser("prepare", help="turn sources into Parquet, split and checked", description=PREPARE_HELP)
    )
    stats = actions.add_parser("stats", help="show token lengths, classes and error types", description=STATS_HELP)
    stats.add_argument(
        "path", type=Path, metavar="DIR_OR_FILE", help="a folder written by `data prepare`, or a file of notes"
    )
    stats.add_argument("--config", metavar="NAME", help="the configuration with the tokenizer, prompts and limit")
    stats.add_argument("--model", type=Path, metavar="PATH", help="a folder with the tokenizer to count with")
    stats.add_argument("--prompt-set", metavar="NAME", help="prompt set (default: the configuration's)")
    stats.add_argument("--json", action="store_true", help="print JSON instead of a table")
    ward = actions.add_parser("ward", help="write the synthetic ward as MEDEC files", description=WARD_HELP)
    ward.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    ward.add_argument("--count", type=int, default=384, metavar="N", help="notes in each split (default: 384)")
    ward.add_argument("--seed", type=int, default=7, metavar="S", help="seed of the notes (default: 7)")
    ward.add_argument(
        "--table", type=Path, metavar="FILE", help="a knowledge table of your own, in YAML (docs/ward-data.md)"
    )
    ward.add_argument(
        "--long", action="store_true", help="make notes of 150 to 300 words, for models that can read them"
    )
    ward.add_argument("--overwrite", action="store_true", help="replace the files of an earlier call")


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sources", type=Path, nargs="*", metavar="SOURCE", help="a .csv, .jsonl or .parquet file")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    add_splitting(parser)
    parser.add_argument("--prompt-set", default="clinical", metavar="NAME", help="prompt set (default: clinical)")
    parser.add_argument(
        "--near-threshold",
        type=float,
        default=0.85,
        metavar="S",
        help="least similarity of near-duplicates (default: 0.85)",
    )
    parser.add_argument("--no-near-duplicates", action="store_true", help="look only for equal ids and texts")
    leaks = parser.add_mutually_exclusive_group()
    leaks.add_argument("--allow-leaks", action="store_true", help="keep notes that are in two splits")
    leaks.add_argument(
        "--drop-leaks", action="store_true", help="drop them from train (from validation, if they are in test)"
    )
    parser.add_argument("--data-source", metavar="NAME", help="verl's data_source (default: the file's name)")
    parser.add_argument("--licence", metavar="TEXT", help="the licence line of the manifest")
    parser.add_argument(
        "--repair-text",
        action="store_true",
        help="repair UTF-8 text that was read as Windows-1252 and saved again; the manifest lists the rows",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output of an earlier call")


def run(options: argparse.Namespace, overrides: list[str]) -> int:
    """Run one of the actions; 0, or an error for the user."""
    if overrides and options.data_command != "stats":
        raise ConfigError(f"medserl data {options.data_command}: {overrides[0]!r} is not an option")
    actions = {"prepare": _prepare, "stats": _stats, "ward": _ward}
    try:
        code = actions[options.data_command](options, overrides)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # whoever read has gone: nothing to tell
    except OSError as error:
        if error.filename is not None:  # files are told where they are read and written; this is standard output
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter would try again
        raise ConfigError(f"standard output: cannot be written ({error.strerror or error})") from error
    return code


def _prepare(options: argparse.Namespace, _: list[str]) -> int:
    from medserl.data.prepare import PrepareOptions, prepare
    from medserl.data.splits import parse_named_files, parse_ratios

    manifest = prepare(
        PrepareOptions(
            sources=options.sources,
            out=options.out,
            given_splits=parse_named_files(options.split),
            ratios=parse_ratios(options.ratios),
            prompt_set=options.prompt_set,
            near_threshold=None if options.no_near_duplicates else options.near_threshold,
            leaks="allow" if options.allow_leaks else "drop" if options.drop_leaks else "error",
            data_source=options.data_source,
            licence=options.licence,
            repair_text=options.repair_text,
            overwrite=options.overwrite,
        )
    )
    print(prepared_summary(options.out, manifest))
    return EXIT_OK


def prepared_summary(out: Path, manifest: dict[str, Any]) -> str:
    """What was written and what was not, in a few lines."""
    from medserl.data.labelled import one_class

    lines = []
    for split, counts in manifest["splits"].items():
        labels = ", ".join(f"{count} {label}" for label, count in counts["labels"].items())
        lines.append(f"{split:<11}{counts['rows']:>8} rows: {labels}")
    if warning := one_class(label for counts in manifest["splits"].values() for label in counts["labels"]):
        lines.append(f"{'attention':<11}{warning}")
    for source in manifest["sources"]:
        if source["ignored_columns"]:
            lines.append(f"{'ignored':<11}columns of {source['name']}: {', '.join(source['ignored_columns'])}")
    for what, name in (("dropped", "dropped"), ("remarks", "kept")):
        for reason, count in manifest[what]["counts"].items():
            first = ", ".join(manifest[what]["first"][reason])
            lines.append(f"{name:<11}{count:>8} rows: {reason} (first: {first})")
    leaks = manifest["leaks"]
    found = ", ".join(f"{count} {kind}" for kind, count in leaks["counts"].items()) or "none"
    searched = "" if leaks["near_threshold"] is not None else " (near-duplicates were not looked for)"
    lines.append(f"{'leaks':<11}{found}{searched}")
    lines.append(f"{'written':<11}{out} ({', '.join(manifest['outputs'])}, manifest.json)")
    return "\n".join(lines)


def _stats(options: argparse.Namespace, overrides: list[str]) -> int:
    from medserl.data.stats import data_stats, stats_table
    from medserl.preflight.prompt_lengths import prompt_counter

    counter = prompt_counter(options.config, options.model, overrides, options.path, options.prompt_set)
    stats = data_stats(options.path, counter)
    print(json.dumps(stats, indent=1) if options.json else stats_table(stats))
    return EXIT_OK


def _ward(options: argparse.Namespace, _: list[str]) -> int:
    from medserl.data.ward import write_ward

    settings = {"table": options.table, "long": options.long, "overwrite": options.overwrite}
    for path in write_ward(options.out, options.count, options.seed, **settings):
        print(path)
    print("medserl data: the ward teaches a game, not medicine", file=sys.stderr)
    return EXIT_OK
