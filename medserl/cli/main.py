"""Parses the command line and runs a command; tells users' errors in one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from medserl import __version__
from medserl.cli import data
from medserl.cli.arguments import (
    OVERRIDES_HELP,
    add_bringup,
    add_configuration,
    add_sft,
    add_train,
    later,
    parse_arguments,
)
from medserl.cli.check import add_check
from medserl.cli.compare import add_compare
from medserl.cli.evaluate import add_evaluate
from medserl.cli.games import add_games
from medserl.cli.guard import guarded
from medserl.cli.health import add_health
from medserl.cli.image import add_image
from medserl.cli.pipeline import add_pipeline
from medserl.cli.plan import add_plan
from medserl.cli.report import add_report
from medserl.cli.selftest import add_selftest
from medserl.cli.slurm import add_slurm
from medserl.cli.watch import add_watch
from medserl.cli.words import Parser
from medserl.errors import EXIT_FAILURE, EXIT_OK
from medserl.imports import spare_scipy

DESCRIPTION = """Self-play reinforcement learning on clinical notes: one model plants errors and finds them."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = Parser(prog="medserl", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"medserl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_train(commands)
    add_sft(commands)
    export = commands.add_parser(
        "export",
        help="turn a checkpoint into a Hugging Face model directory",
        description="Copy a checkpoint's weights, tokenizer and configuration into a model directory.",
    )
    export.add_argument(
        "checkpoint", help="a checkpoint (global_step_N), or a run directory for its best or else newest one"
    )
    export.add_argument("--out", required=True, help="the directory to write")
    export.set_defaults(run=later("medserl.cli.export", "export", takes_overrides=False))
    ablate = commands.add_parser(
        "ablate",
        help="run a grid of settings on the ward and compare them",
        description="Run every arm of a grid with every seed, and write one table and one plot of them all.",
    )
    ablate.add_argument("grid", help="a YAML file, or the name of one in configs/ablations")
    ablate.add_argument(
        "--out", required=True, help="the directory of the results; with the same directory the grid resumes"
    )
    ablate.add_argument("--jobs", type=int, default=1, help="how many runs at a time (default: 1)")
    ablate.add_argument("--seeds", type=int, nargs="+", help="seeds to use instead of the grid's")
    ablate.add_argument("--only", nargs="+", default=[], metavar="ARM", help="run only these arms")
    ablate.add_argument("--notes", type=int, default=300, help="test patients of each split (default: 300)")
    ablate.add_argument(
        "--report", action="store_true", help="run nothing, and write the table and plot of the runs that are there"
    )
    ablate.set_defaults(run=later("medserl.cli.ablate", "ablate", takes_overrides=False))
    config = commands.add_parser("config", help="print the resolved configuration", epilog=OVERRIDES_HELP)
    add_configuration(config)
    config.set_defaults(run=later("medserl.cli.config", "show_config"))
    config.add_argument(
        "--section", metavar="KEY", help="print only this part, e.g. medserl or actor_rollout_ref.actor"
    )
    config.add_argument("--list", action="store_true", help="list the shipped configurations")
    config.add_argument(
        "--explain", metavar="KEY", help="say what a key means, what its default is, and why it is set here"
    )
    config.add_argument(
        "--changed", action="store_true", help="list the keys that differ from verl's and MedSeRL's defaults"
    )
    doctor = commands.add_parser(
        "doctor",
        help="check this machine, or the nodes of this allocation, before any job",
        description="Check GPUs, memory, disks, limits, packages, network and what a configuration needs; say "
        "what is wrong and what to do. Without --config the check is for embedded, or embedded_gpu if there is a GPU. "
        "Inside salloc all nodes are checked (slurm/preflight.sh), and with --config or overrides what that job would "
        "need, too.",
        epilog=OVERRIDES_HELP,
    )
    add_configuration(doctor)
    doctor.set_defaults(run=later("medserl.cli.doctor", "doctor"), config=None)
    doctor.add_argument("--interface", metavar="NAME", help="the network interface for the all-reduce, e.g. ib0")
    doctor.add_argument("--quick", action="store_true", help="leave out the checks that import torch")
    doctor.add_argument(
        "--here", action="store_true", help="check only this machine, even in an allocation of several nodes"
    )
    add_bringup(commands)
    data.add_commands(commands)
    add_evaluate(commands)
    add_check(commands)
    add_compare(commands)
    add_report(commands)
    add_games(commands)
    add_watch(commands)
    add_pipeline(commands)
    add_plan(commands)
    add_slurm(commands)
    add_selftest(commands)
    add_health(commands)
    add_image(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``medserl``.

    Returns:
        0 on success, 1 on failure, 2 on an error that the user can mend, 75 when training stopped before its
        deadline and 128 + N when a signal N stopped it (both with a checkpoint and rounds to go), 130 when interrupted,
        141 when nobody reads the output any more.
    """
    if arguments is None:  # a process of its own
        spare_scipy()
    if not (sys.argv[1:] if arguments is None else arguments):
        return guarded(lambda: print(build_parser().format_help(), end="") or EXIT_OK)
    return guarded(lambda: _run(*parse_arguments(build_parser(), arguments)))


def _run(options: argparse.Namespace, overrides: list[str]) -> int:
    code: int = options.run(options, overrides)  # each command's parser names its function
    return code


__all__ = ["EXIT_FAILURE", "EXIT_OK", "build_parser", "main"]
