"""``medserl check``."""

from __future__ import annotations

import argparse
from pathlib import Path

from medserl.cli.arguments import add_decoding
from medserl.errors import EXIT_FAILURE, EXIT_OK


def add_check(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl check``."""
    parser = commands.add_parser(
        "check",
        help="give a model's opinion of notes that nobody has labelled",
        description="Judge notes without labels: write a private CSV with the probability of an error, the suspected "
        "sentence and a suggested correction for each, most suspected first. For research, not for patient care.",
        epilog="Hydra overrides of the engine's configuration may follow the options.",
    )
    parser.set_defaults(run=run_check)
    parser.add_argument("notes", type=Path, help="a file of notes: .jsonl, .csv or .parquet; labels in it are ignored")
    parser.add_argument("--model", metavar="PATH", help="a model directory, a cached hub name, or builtin:ward")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the CSV to write (default: NOTES_checked.csv, in the current directory)",
    )
    add_decoding(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling (default: 0)")
    parser.add_argument(
        "--prompt-set", metavar="NAME", help="a shipped prompt set or a folder (default: depends on the model)"
    )
    parser.add_argument("--thinking", action=argparse.BooleanOptionalAction, help="Qwen3's thinking mode")
    parser.add_argument("--config", metavar="NAME", help="the configuration with the engine's settings")


def run_check(options: argparse.Namespace, overrides: list[str]) -> int:
    """Judge, write the CSV, say how many are suspected; 1 where no reply could be read."""
    from medserl.cli.evaluate import asked_of, progress_on_stderr
    from medserl.evaluation.check import check_notes
    from medserl.game.labels import Label

    out = options.out or Path(f"{options.notes.stem}_checked.csv")
    request = asked_of(options, overrides)
    with progress_on_stderr():
        findings, heading = check_notes(options.notes, out, request)
    unread = sum(item.verdict is None for item in findings)
    suspected = sum(item.verdict is Label.INCORRECT for item in findings)
    print("\n".join(heading))
    print(f"{suspected} of {len(findings)} texts suspected, {unread} without a verdict; {out} (only you can read it)")
    if unread == len(findings):
        print("medserl: no reply could be read; the model misses the format: warm-start it first (medserl sft)")
        return EXIT_FAILURE
    return EXIT_OK
