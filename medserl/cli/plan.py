"""``medserl plan``: what a training would need and take, on GPUs that are not there yet."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medserl.cli.arguments import OVERRIDES_HELP, TRAIN_OPTIONS, add_configuration
from medserl.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from medserl.planning.job import Job
    from medserl.planning.page import Plan
    from medserl.planning.shapes import Shape

MODEL = "actor_rollout_ref.model.path"
DEFAULT_CONFIG, DEFAULT_GPU = "qwen3_4b_1node", "h100-80gb"
NOTES, NO_NOTES = "medserl.notes.path", "notes-that-are-not-named"
"""Stands for notes that the user has not named: only their number would matter."""


def add_plan(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl plan``."""
    parser = commands.add_parser(
        "plan",
        help="say what GPUs and memory a training would need and how long it would take, without its weights",
        description="Add up the memory and time of a configuration on a kind of GPU, rank the ways to split it, and "
        "say what more nodes would bring. Every number says how it is known. The exit code is 2 if it cannot run.",
        epilog=OVERRIDES_HELP,
    )
    add_configuration(parser, [option for option in TRAIN_OPTIONS if option[0] != "--model"], DEFAULT_CONFIG)
    parser.set_defaults(run=run_plan, config=DEFAULT_CONFIG)
    parser.add_argument(
        "--model", metavar="NAME", help="a known model such as qwen3-4b, or a config.json or its folder"
    )
    parser.add_argument("--gpu", default=DEFAULT_GPU, metavar="NAME", help=f"the kind of GPU (default: {DEFAULT_GPU})")
    parser.add_argument("--nodes", type=int, metavar="N", help="number of nodes (default: the configuration's)")
    parser.add_argument("--gpus-per-node", type=int, metavar="N", help="GPUs per node (default: the configuration's)")
    parser.add_argument(
        "--host-memory", type=float, metavar="GIB", help="memory of a node, to refuse whatever needs more"
    )
    parser.add_argument(
        "--assume",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="use another number instead of an assumed one",
    )
    parser.add_argument("--all", action="store_true", help="show every way to split it, not only the best ones")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def run_plan(options: argparse.Namespace, overrides: list[str]) -> int:
    """Plan and print.

    Raises:
        ConfigError: a plan that cannot run, after it was printed; bad input, before.
    """
    from medserl.planning.page import SHOWN, as_json

    plan = make_plan(options, overrides)
    if options.json:
        print(json.dumps(as_json(plan), indent=1))
    else:
        _show(plan, len(plan.choices) if options.all else SHOWN)
    if plan.refused is not None:
        sys.stdout.flush()
        raise ConfigError(plan.refused)
    return EXIT_OK


def _show(plan: Plan, choices: int) -> None:
    from medserl.planning.page import tables
    from medserl.report.terminal import show

    for title, table in tables(plan, choices):
        if title:
            print(f"\n{title}", flush=True)
        show(table)


def make_plan(options: argparse.Namespace, overrides: list[str]) -> Plan:
    """Everything that is printed.

    Raises:
        ConfigError: unknown names, sizes that do not divide, GPUs that a frozen model would need and no one has.
    """
    from medserl.planning.assumptions import assume
    from medserl.planning.choices import choices
    from medserl.planning.fits import check_served, gpu_misfit, host_misfit
    from medserl.planning.gpus import find_gpu
    from medserl.planning.job import job_of
    from medserl.planning.memory import need_of
    from medserl.planning.page import Plan
    from medserl.planning.scaling import scaling
    from medserl.planning.speed import seconds_of

    gpu, assumed, host = find_gpu(options.gpu), assume(options.assume), _host_memory(options.host_memory)
    config = _load(options, overrides)
    shape = _shape(options.model, config)
    job = job_of(config)
    check_served(job, options.gpus_per_node)
    _check(config, job, shape)
    rounds = _rounds(config)
    need = need_of(job, shape, gpu.memory)
    refused = gpu_misfit(job, need, gpu.memory, f"{gpu.name} has")
    if refused is None and host is not None:
        refused = host_misfit(job, need, host, "--host-memory says")
    return Plan(
        config=options.config,
        job=job,
        shape=shape,
        gpu=gpu,
        need=need,
        seconds=seconds_of(job, shape, gpu, need, assumed),
        rounds=int(assumed.rounds) if rounds is None else rounds,
        counted=rounds is not None,
        choices=choices(job, shape, gpu, host, assumed),
        strong=scaling(job, shape, gpu, host, assumed, weak=False),
        weak=scaling(job, shape, gpu, host, assumed, weak=True),
        assumed=assumed,
        given=[word.partition("=")[0] for word in options.assume],
        refused=refused,
    )


def _host_memory(given: float | None) -> float | None:
    from medserl.planning.memory import GIB

    if given is not None and not 0 < given < math.inf:
        raise ConfigError(f"--host-memory {given:g}: is not a size; give a node's memory in GiB, e.g. 512")
    return None if given is None else given * GIB


def _load(options: argparse.Namespace, overrides: list[str]) -> DictConfig:
    """The configuration on the machines that are asked for; notes that it leaves to the user need not be there."""
    from medserl.config.family import config_path, leaves_open
    from medserl.config.load import is_sft_config, load_config, load_sft_config

    supervised = is_sft_config(options.config)
    words = [*_size(options), *overrides]
    if leaves_open(config_path(options.config), NOTES) and not any(word.startswith(NOTES) for word in words):
        words.append(f"{NOTES}={NO_NOTES}")
    config = (load_sft_config if supervised else load_config)(options.config, words)
    device, asked = config.trainer.device, config.medserl.device
    if asked not in ("auto", device):
        raise ConfigError(f"medserl.device is {asked} and trainer.device {device}, which must be the same; set both")
    if device != "cuda":
        raise ConfigError(f"--config {options.config}: is for {config.trainer.device}, and GPUs are planned; give "
                          "one such as qwen3_4b_1node or embedded_gpu")  # fmt: skip
    return config


def _size(options: argparse.Namespace) -> list[str]:
    words = []
    for option, key, given in (
        ("--nodes", "trainer.nnodes", options.nodes),
        ("--gpus-per-node", "trainer.n_gpus_per_node", options.gpus_per_node),
    ):
        if given is not None and given < 1:
            raise ConfigError(f"{option} {given}: give 1 or more")
        if given is not None:
            words.append(f"{key}={given}")
    return words


def _shape(given: str | None, config: DictConfig) -> Shape:
    from medserl.planning.shapes import find_shape

    if given is not None:
        return find_shape(given, "--model")
    key, section = ("model.path", config) if "engine" in config else (MODEL, config.actor_rollout_ref)
    return find_shape(str(section.model.path), f"{key}:")


def _check(config: DictConfig, job: Job, shape: Shape) -> None:
    from medserl.planning.fits import check_context
    from medserl.planning.shapes import check_divides
    from medserl.preflight.layout import check_layout
    from medserl.sft.checks import check_layout as check_layout_of_sft

    check_context(job, shape)
    if job.rollout is not None:
        check_layout(config)
    else:
        check_layout_of_sft(config)
    split = job.training
    ends = split.first_layers, split.last_layers
    check_divides(shape, split.tp, split.pp, job.rollout.tp if job.rollout else None, ends)


def _rounds(config: DictConfig) -> int | None:
    """Rounds of a run, where they can be known: notes that are there, the ward's, or a number that was given."""
    from medserl.config.load import game_settings
    from medserl.data.rounds import planned_rounds

    path = config.medserl.notes.path
    named = path is not None and path != NO_NOTES
    if named and not Path(path).is_file():
        raise ConfigError(f"{NOTES}: {path} is not a file here; give a file of notes, or leave it out")
    if "engine" in config:
        return int(config.medserl.steps)
    settings = game_settings(config)
    if path == NO_NOTES and settings.max_rounds is None:
        return None
    return planned_rounds(config, settings)
