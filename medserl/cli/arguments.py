"""Options that several commands share, and how a command line becomes options and overrides."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medserl.cli.words import meant, options_of
from medserl.config.quoting import literal
from medserl.errors import ConfigError

_MINUS = re.compile(r"-(inf|nan|\d[\d.]*[,eE]|\.\d+[,eE])")
"""Begins a value that argparse does not know as a negative number."""
OVERRIDES_HELP = "Hydra overrides, e.g. actor_rollout_ref.actor.optim.lr=1e-6 medserl.referee.name=rules"
Option = tuple[str, str, type, str]
"""Option, key that it sets, type, help."""
TRAIN_OPTIONS: tuple[Option, ...] = (
    (
        "--prompt-data",
        "medserl.notes.path",
        str,
        "a file of notes: .jsonl, .csv or .parquet (default: synthetic notes)",
    ),
    (
        "--model",
        "actor_rollout_ref.model.path",
        str,
        "the model directory to start from (default: the ward's tiny model)",
    ),
    ("--rollout-batch-size", "medserl.rollout_batch_size", int, "notes per round"),
    ("--vcf-min-jaccard", "medserl.vcf.min_jaccard", float, "minimum shingle similarity of an accepted edit"),
    (
        "--vcf-max-jaccard",
        "medserl.vcf.max_jaccard",
        float,
        "maximum shingle similarity of an accepted edit",
    ),
    (
        "--vcf-max-word-edits",
        "medserl.vcf.max_word_edits",
        int,
        "maximum number of words that an accepted edit changes",
    ),
    ("--max-epochs", "trainer.total_epochs", int, "passes over the notes"),
    ("--max-rounds", "medserl.max_rounds", int, "stop after this many rounds in total"),
    ("--run-dir", "medserl.run_dir", str, "where the run writes; with the same directory it resumes"),
)
SFT_OPTIONS: tuple[Option, ...] = (
    ("--data", "medserl.notes.path", str, "notes with gold errors: .jsonl, .csv or .parquet (default: the ward)"),
    ("--model", "model.path", str, "the model directory to start from"),
    ("--steps", "medserl.steps", int, "optimizer steps"),
    ("--run-dir", "medserl.run_dir", str, "where the run writes; the finished model is RUN_DIR/model"),
)


def add_train(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl train``."""
    train = commands.add_parser(
        "train",
        help="train by self-play",
        description="Train by self-play; the same command on the same run directory resumes.",
        epilog=OVERRIDES_HELP,
    )
    add_configuration(train)
    train.set_defaults(run=later("medserl.cli.train", "train"))
    train.add_argument("--dry-run", action="store_true", help="check everything and print the plan, but start nothing")
    train.add_argument("--verbose", action="store_true", help="show everything that verl, vLLM and Ray print")


def add_sft(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl sft``."""
    sft = commands.add_parser(
        "sft",
        help="warm start by supervised fine-tuning on demonstrations of the game",
        description="Fine-tune on demonstrations of both roles, through the Megatron engine that `train` uses.",
        epilog=OVERRIDES_HELP,
    )
    add_configuration(sft, SFT_OPTIONS, "sft_embedded, or sft_real_cpu for a model other than the ward's")
    sft.set_defaults(run=later("medserl.cli.sft", "sft"))
    sft.add_argument("--dry-run", action="store_true", help="check everything, but start nothing")


def add_bringup(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl bringup``."""
    parser = commands.add_parser(
        "bringup",
        help="check within minutes whether this machine's GPU, libraries and speed are what a training needs",
        description="Run a list of checks, from one kernel of each library to whole rounds. Each runs in a process of "
        "its own and writes one line of JSON with what was expected and found. Without a GPU, only checks "
        "that need none are run.",
    )
    parser.set_defaults(run=later("medserl.cli.bringup", "bringup", takes_overrides=False))
    parser.add_argument("--only", metavar="CHECKS", help="letters or keys of checks, e.g. a,b or c4 (default: all)")
    parser.add_argument(
        "--until", type=float, metavar="MINUTES", help="leave out checks that are not expected to end by then"
    )
    parser.add_argument("--out", metavar="FILE", help="append the lines to this file (default: standard output)")
    parser.add_argument("--list", action="store_true", help="list the checks without running them")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="where to run (default: on the GPU, if there is one)",
    )


def add_configuration(
    parser: argparse.ArgumentParser,
    options: Sequence[Option] = TRAIN_OPTIONS,
    default: str = "embedded, or real_cpu for a model other than the ward's",
) -> None:
    """``--config``, None where it is not given, and the options that stand for overrides."""
    parser.add_argument("--config", metavar="NAME", help=f"a shipped configuration or a YAML file (default: {default})")
    for option, key, _, text in options:  # what is no number is told with everything else that is wrong
        parser.add_argument(option, dest=key, help=text)


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How many replies a model gives to a note, and how they are drawn."""
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="replies per note, decided by majority")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="sampling temperature; 0 is greedy (default: 0, or 1.0 with --samples)",
    )
    parser.add_argument("--max-tokens", type=int, help="maximum tokens per reply (default: the configuration's limit)")


def add_splitting(parser: argparse.ArgumentParser) -> None:
    """Which sources go into which split."""
    parser.add_argument(
        "--split", action="append", default=[], metavar="SPLIT=FILE", help="a source and its split; may be repeated"
    )
    parser.add_argument(
        "--ratios",
        default="0.8,0.1,0.1",
        metavar="T,V,T",
        help="shares of train, validation and test, if nothing else decides",
    )


def parse_arguments(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """The options of a command line, and all Hydra overrides that it asks for, those that options stand for first.

    Ends the process with code 2 where an option is unknown.
    """
    words = _joined(sys.argv[1:] if arguments is None else arguments)
    options, rest = parser.parse_known_args(words)
    for name, value in vars(options).items():
        setattr(options, name, at_home(value))
    unknown = next((item for item in rest if item.startswith("-") or "=" not in item.lstrip("~")), None)
    if unknown is not None and not unknown.startswith("~"):
        known = options_of(parser, words)
        hint = meant(unknown.partition("=")[0], known) if unknown.startswith("--") else None
        parser.error(f"{unknown!r} is not an option; {hint or 'overrides look like key=value'}")
    return options, [*_option_overrides(options), *rest]


def _joined(arguments: Sequence[str]) -> list[str]:
    """Values that begin with a minus, such as ``--ratios -1,1,1``, joined to their option: argparse takes them for an
    option of their own and says that the value is missing. What is another program's to read stays as it is."""
    words: list[str] = []
    for word in arguments:
        before = words[-1] if words else ""
        if _MINUS.match(word) and before.startswith("--") and "=" not in before and words[0] not in ("image", "slurm"):
            words[-1] = f"{before}={word}"
        else:
            words.append(word)
    return words


def at_home(value: Any) -> Any:
    """An option's value with ``~`` followed where a shell leaves it: behind ``=``, in quotes, in ``SPLIT=~/file``."""
    if isinstance(value, list):
        return [at_home(item) for item in value]
    if isinstance(value, Path):
        return value.expanduser() if str(value).startswith("~") else value
    if not isinstance(value, str):
        return value
    name, equals, path = value.rpartition("=")
    is_path = path == "~" or path.startswith("~/")
    return f"{name}{equals}{os.path.expanduser(path)}" if is_path else value


def chosen_config(options: argparse.Namespace, overrides: Sequence[str]) -> str:
    """The configuration that ``--config`` names, or the one that suits the model that is named.

    Raises:
        ConfigError: that depends on the GPU of this machine.
    """
    from medserl.config.load import DEFAULT_CONFIG, DEFAULT_SFT_CONFIG, REAL_CONFIG, REAL_SFT_CONFIG
    from medserl.config.model_at_hand import default_config, named_model

    if options.config is not None:
        return str(options.config)
    sft = options.command == "sft"
    ward, real = (DEFAULT_SFT_CONFIG, REAL_SFT_CONFIG) if sft else (DEFAULT_CONFIG, REAL_CONFIG)
    return default_config(named_model(overrides), ward, real)


def _option_overrides(options: argparse.Namespace) -> list[str]:
    """Options as Hydra overrides, quoted so that any path survives Hydra's grammar."""
    overrides = []
    for option, key, kind, _ in SFT_OPTIONS if options.command == "sft" else TRAIN_OPTIONS:
        value = getattr(options, key, None)
        if value is None:
            continue
        overrides.append(literal(key, value, option) if kind is str else f"{key}={value}")
    return overrides


def later(module: str, function: str, *, takes_overrides: bool = True) -> Callable[..., int]:
    """A command's function, whose module is imported when the command runs: ``--help`` answers at once."""

    def run(options: argparse.Namespace, overrides: list[str]) -> int:
        if overrides and not takes_overrides:
            raise ConfigError(f"medserl {options.command}: {overrides[0]!r} is not an option; it takes no overrides")
        command = getattr(importlib.import_module(module), function)
        code: int = command(options, overrides) if takes_overrides else command(options)
        return code

    return run
