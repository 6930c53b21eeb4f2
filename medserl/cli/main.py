"""Parses the command line and runs a command; tells users' errors in one sentence."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence

from medserl import __version__
from medserl.cli import data
from medserl.cli.compare import add_compare
from medserl.cli.evaluate import add_evaluate
from medserl.cli.health import add_health
from medserl.cli.image import add_image
from medserl.cli.pipeline import add_pipeline
from medserl.cli.report import add_report
from medserl.cli.selftest import add_selftest
from medserl.cli.slurm import add_slurm
from medserl.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, ConfigError, UserError

EXIT_INTERRUPTED = 130

DESCRIPTION = """Self-play reinforcement learning on clinical notes: one model plants errors and finds them."""
OVERRIDES_HELP = "Hydra overrides, e.g. actor_rollout_ref.actor.optim.lr=1e-6 medserl.referee.name=rules"
Option = tuple[str, str, type, str]
"""Option, key that it sets, type, help."""
TRAIN_OPTIONS: tuple[Option, ...] = (
    (
        "--prompt-data",
        "medserl.notes.path",
        str,
        "file of notes: .jsonl, .csv or .parquet (default: synthetic notes)",
    ),
    ("--rollout-batch-size", "medserl.rollout_batch_size", int, "notes per round"),
    ("--vcf-min-jaccard", "medserl.vcf.min_jaccard", float, "least shingle similarity of an accepted edit"),
    (
        "--vcf-max-jaccard",
        "medserl.vcf.max_jaccard",
        float,
        "greatest shingle similarity of an accepted edit",
    ),
    ("--vcf-max-word-edits", "medserl.vcf.max_word_edits", int, "most word edits of an accepted edit"),
    ("--max-epochs", "trainer.total_epochs", int, "passes over the notes"),
    ("--max-rounds", "medserl.max_rounds", int, "stop after this many rounds in total"),
    ("--run-dir", "medserl.run_dir", str, "where the run writes; the same directory resumes"),
)
SFT_OPTIONS: tuple[Option, ...] = (
    ("--data", "medserl.notes.path", str, "notes with gold errors: .jsonl, .csv or .parquet (default: the ward)"),
    ("--model", "model.path", str, "model directory to start from"),
    ("--steps", "medserl.steps", int, "optimizer steps"),
    ("--run-dir", "medserl.run_dir", str, "where the run writes; the finished model is RUN_DIR/model"),
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(prog="medserl", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"medserl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    train = commands.add_parser(
        "train",
        help="train by self-play",
        description="Train by self-play; the same command on the same run directory resumes.",
        epilog=OVERRIDES_HELP,
    )
    _add_configuration(train)
    train.set_defaults(run=_later("medserl.cli.train", "train"))
    train.add_argument("--dry-run", action="store_true", help="check everything, print the plan, start nothing")
    train.add_argument("--verbose", action="store_true", help="show all that verl, vLLM and Ray print")
    sft = commands.add_parser(
        "sft",
        help="warm start by supervised fine-tuning on demonstrations of the game",
        description="Fine-tune on demonstrations of both roles, through the Megatron engine that `train` uses.",
        epilog=OVERRIDES_HELP,
    )
    _add_configuration(sft, SFT_OPTIONS, "sft_embedded")
    sft.set_defaults(run=_later("medserl.cli.sft", "sft"))
    sft.add_argument("--dry-run", action="store_true", help="check everything, start nothing")
    export = commands.add_parser(
        "export",
        help="turn a checkpoint into a Hugging Face model directory",
        description="Copy a checkpoint's weights, tokenizer and configuration into a model directory.",
    )
    export.add_argument("checkpoint", help="a checkpoint (global_step_N), or a run directory: its best or newest one")
    export.add_argument("--out", required=True, help="the directory to make")
    export.set_defaults(run=_later("medserl.cli.export", "export", takes_overrides=False))
    ablate = commands.add_parser(
        "ablate",
        help="run a grid of settings on the ward and compare them",
        description="Run every arm of a grid with every seed; one table and one plot of them all.",
    )
    ablate.add_argument("grid", help="a YAML file, or the name of one in configs/ablations")
    ablate.add_argument("--out", required=True, help="directory of the bench; the same directory goes on")
    ablate.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    ablate.add_argument("--seeds", type=int, nargs="+", help="seeds, instead of the grid's")
    ablate.add_argument("--only", nargs="+", default=[], metavar="ARM", help="these arms only")
    ablate.add_argument("--notes", type=int, default=300, help="test patients of each split (default: 300)")
    ablate.add_argument("--report", action="store_true", help="run nothing, write the table and plot of what is there")
    ablate.set_defaults(run=_later("medserl.cli.ablate", "ablate", takes_overrides=False))
    config = commands.add_parser("config", help="print the resolved configuration", epilog=OVERRIDES_HELP)
    _add_configuration(config)
    config.set_defaults(run=_later("medserl.cli.config", "show_config"))
    config.add_argument(
        "--section", metavar="KEY", help="print this part only, e.g. medserl or actor_rollout_ref.actor"
    )
    config.add_argument("--list", action="store_true", help="list the shipped configurations")
    doctor = commands.add_parser(
        "doctor",
        help="look at this machine, or at the nodes of this allocation, before any job",
        description="Look at GPUs, memory, disks, limits, packages, network, and at what a configuration needs; says "
        "what is bad and what to do. Without --config: for embedded, or embedded_gpu where a GPU is. Inside salloc: "
        "all nodes (slurm/preflight.sh), with --config or overrides what that job would need too.",
        epilog=OVERRIDES_HELP,
    )
    _add_configuration(doctor)
    doctor.set_defaults(run=_later("medserl.cli.doctor", "doctor"), config=None)
    doctor.add_argument("--interface", metavar="NAME", help="network interface of the all-reduce, e.g. ib0")
    doctor.add_argument("--quick", action="store_true", help="leave out what imports torch")
    doctor.add_argument("--here", action="store_true", help="this machine only, in an allocation of several nodes too")
    data.add_commands(commands)
    add_evaluate(commands)
    add_compare(commands)
    add_report(commands)
    add_pipeline(commands)
    add_slurm(commands)
    add_selftest(commands)
    add_health(commands)
    add_image(commands)
    return parser


def _add_configuration(
    parser: argparse.ArgumentParser, options: Sequence[Option] = TRAIN_OPTIONS, default: str = "embedded"
) -> None:
    parser.add_argument(
        "--config",
        default=default,
        metavar="NAME",
        help=f"a shipped configuration or a YAML file (default: {default})",
    )
    for option, key, kind, text in options:
        parser.add_argument(option, dest=key, type=kind, help=text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``medserl``.

    Returns:
        0 on success, 1 on failure, 2 on an error that the user can mend, 75 when training stopped before its
        deadline and 128 + N when a signal N stopped it (both with a checkpoint and rounds to go), 130 when interrupted.
    """
    options, overrides = parse_arguments(arguments)
    try:
        return _run(options, overrides)
    except UserError as error:
        print(f"medserl: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("medserl: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def parse_arguments(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, list[str]]:
    """The options of a command line, and all Hydra overrides that it asks for, those that options stand for first.

    Ends the process with code 2 where an option is unknown.
    """
    parser = build_parser()
    options, rest = parser.parse_known_args(arguments)
    unknown = next((item for item in rest if item.startswith("-") or "=" not in item.lstrip("~")), None)
    if unknown is not None and not unknown.startswith("~"):
        parser.error(f"{unknown!r} is no option; overrides look like key=value")
    return options, [*_option_overrides(options), *rest]


def _option_overrides(options: argparse.Namespace) -> list[str]:
    """Options as Hydra overrides, quoted so that any path survives Hydra's grammar."""
    overrides = []
    for _, key, kind, _ in SFT_OPTIONS if options.command == "sft" else TRAIN_OPTIONS:
        value = getattr(options, key, None)
        if value is None:
            continue
        quoted = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'" if kind is str else value
        overrides.append(f"{key}={quoted}")
    return overrides


def _run(options: argparse.Namespace, overrides: list[str]) -> int:
    code: int = options.run(options, overrides)  # each command's parser names its function
    return code


def _later(module: str, function: str, *, takes_overrides: bool = True) -> Callable[..., int]:
    """A command's function, whose module is imported when the command runs: ``--help`` answers at once."""

    def run(options: argparse.Namespace, overrides: list[str]) -> int:
        if overrides and not takes_overrides:
            raise ConfigError(f"medserl {options.command}: {overrides[0]!r} is no option; it takes no overrides")
        command = getattr(importlib.import_module(module), function)
        code: int = command(options, overrides) if takes_overrides else command(options)
        return code

    return run


__all__ = ["EXIT_FAILURE", "EXIT_OK", "build_parser", "main"]
