"""``medserl slurm``: jobs, their arithmetic, and the steps that the launchers run on nodes."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.errors import EXIT_FAILURE, EXIT_OK, ConfigError
from medserl.words import counted

if TYPE_CHECKING:
    from medserl.slurm.plan import Plan, Shape
    from medserl.slurm.request import JobRequest

SCRIPTS = ("train_multinode", "train_singlenode", "evaluate", "preflight")
SBATCH_OPTIONS = (
    ("--nodes", "nodes of the job"),
    ("--gpus-per-node", "GPUs of each node"),
    ("--cpus-per-task", "CPUs of each node"),
    ("--mem", "memory of each node"),
    ("--time", "time limit, in sbatch's format"),
    ("--account", "account (default: the site's file)"),
    ("--partition", "partition (default: the site's file)"),
    ("--qos", "quality of service (default: the site's file)"),
    ("--job-name", "name of the job"),
)


def add_slurm(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl slurm``."""
    parser = commands.add_parser(
        "slurm",
        help="submit jobs to Slurm, with their arithmetic checked first",
        description="Run the jobs of slurm/ with the settings of the site's file (slurm/site.sh.example).",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, text in (
        ("render", "print the arithmetic and the resolved script"),
        ("submit", "check the arithmetic and submit the job"),
    ):
        action = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        action.set_defaults(run=run_job)
        for option, explanation in SBATCH_OPTIONS:
            action.add_argument(option, dest=f"sbatch_{option[2:]}", metavar="X", help=explanation)
        action.add_argument(
            "--sbatch",
            action="append",
            default=[],
            metavar="OPTION",
            help="any other option of sbatch: --sbatch=--name=value",
        )
        if name == "submit":
            action.add_argument("--dry-run", action="store_true", help="print what render prints, but submit nothing")
        action.add_argument("script", choices=SCRIPTS, metavar="JOB", help=", ".join(SCRIPTS))
        action.add_argument(
            "arguments", nargs=argparse.REMAINDER, help="arguments of medserl train, or of medserl evaluate"
        )
    attach = actions.add_parser("attach", help="open a shell, or run a command, inside a running job")
    attach.set_defaults(run=run_attach)
    attach.add_argument("job", help="the job's number")
    attach.add_argument("arguments", nargs=argparse.REMAINDER, metavar="NODE [COMMAND …]")
    _add_steps(actions.add_parser("step", help="what the launchers run on the nodes"))


def _add_steps(parser: argparse.ArgumentParser) -> None:
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    port = steps.add_parser("free-port", help="three free ports of a job on this node")
    port.add_argument("address")
    port.add_argument("job", type=int)
    port.set_defaults(run=run_free_port)
    gate = steps.add_parser("wait-for-nodes", help="wait until Ray counts all nodes and GPUs")
    gate.add_argument("--nodes", type=int, required=True)
    gate.add_argument("--gpus", type=int, required=True)
    gate.add_argument("--seconds", type=float, required=True)
    gate.set_defaults(run=run_wait_for_nodes)
    plan = steps.add_parser("plan", help="the arithmetic of a running job")
    plan.add_argument("--out", type=Path, required=True)
    for name in ("nodes", "gpus-per-node", "cpus-per-node"):
        plan.add_argument(f"--{name}", type=int, required=True)
    plan.add_argument("arguments", nargs=argparse.REMAINDER)
    plan.set_defaults(run=run_plan)
    node = steps.add_parser("check-node", help="check this node, and the network together with the others")
    node.add_argument("--node", required=True)
    node.add_argument("--plan", type=Path, required=True)
    node.add_argument("--out", type=Path, required=True)
    node.add_argument("--run-dir", type=Path, required=True)
    node.add_argument("--tmp", type=Path, required=True)
    node.add_argument("--level", choices=("full", "quick"), default="full")
    node.add_argument("--gpus", type=int, default=0)
    node.add_argument("--interface", default="")
    node.add_argument("--all-reduce", metavar="ADDRESS:PORT")
    node.add_argument("--nodes", required=True, help="names of all nodes, with commas")
    node.set_defaults(run=run_check_node)
    report = steps.add_parser("preflight-report", help="one table of all nodes; exit code 1 if one is bad")
    report.add_argument("--folder", type=Path, required=True)
    report.add_argument("nodes", nargs="+")
    report.set_defaults(run=run_report)


# -------------------------------------------------------------------------------------------------- jobs


def run_job(options: argparse.Namespace, overrides: list[str]) -> int:
    """``render`` and ``submit``."""
    from medserl.report.terminal import show
    from medserl.slurm.request import command_line, make_request, resolved_script, submit

    chosen = {
        name.removeprefix("sbatch_"): value for name, value in vars(options).items() if name.startswith("sbatch_")
    }
    request = make_request(options.script, chosen, options.sbatch, options.arguments)
    plan = plan_of_request(request)
    plan.add("request", request.asked)
    if options.action == "submit" and not options.dry_run:
        show(plan.table())
        job = submit(request)
        print(f"submitted job {job}; its output: slurm-{request.options.get('job-name') or request.name}-{job}.out")
        return EXIT_OK
    notes = [*plan.lines, "", shlex.join(command_line(request))]
    print(resolved_script(request, notes), end="")
    return EXIT_OK


def plan_of_request(request: JobRequest) -> Plan:
    """The arithmetic of a job that is not submitted yet; refuses what cannot work."""
    from medserl.slurm.plan import Plan, Shape, binds_of
    from medserl.slurm.request import DEFAULT_CONFIGS

    shape = Shape(
        nodes=request.nodes,
        gpus_per_node=request.gpus_per_node,
        cpus_per_node=request.cpus_per_node,
        time_limit=request.time_limit,
        lead=request.lead,
        gpu_memory_gb=gpu_memory(request.settings),
        host_memory=request.memory_per_node,
        binds=binds_of(request.settings),
        in_container=request.settings.get("MEDSERL_RUNTIME", "none") != "none",
    )
    if request.gpus_per_node < 1:
        raise ConfigError("--gpus-per-node: 0; on nodes without GPUs set MEDSERL_GPUS_PER_NODE, the workers of a node")
    if request.name == "train_singlenode" and shape.nodes != 1:
        raise ConfigError(f"--nodes: {shape.nodes}, but train_singlenode takes one; submit train_multinode")
    if request.name == "preflight" and not request.arguments:
        plan = Plan()
        plan.add("preflight", f"{counted(shape.nodes, 'node')} with {counted(shape.gpus_per_node, 'GPU')} each")
        return plan
    if request.name == "evaluate":
        return plan_of_words(["evaluate", *request.arguments], shape)
    config = os.environ.get("MEDSERL_CONFIG") or DEFAULT_CONFIGS.get(request.name, "qwen3_4b_multinode")
    size = [f"trainer.nnodes={shape.nodes}", f"trainer.n_gpus_per_node={shape.gpus_per_node}"]
    return plan_of_words(["train", "--config", config, *size, *request.arguments], shape)


def plan_of_words(words: Sequence[str], shape: Shape) -> Plan:
    """The plan of a ``medserl train`` or ``medserl evaluate``, whose own parser and configuration count."""
    from medserl.cli.arguments import add_train, parse_arguments
    from medserl.cli.evaluate import add_evaluate
    from medserl.cli.words import Parser
    from medserl.config.load import load_config
    from medserl.evaluation.run import Request, engine_config
    from medserl.slurm.plan import plan_evaluation, plan_training

    if not words:
        raise ConfigError("no command; give train or evaluate with its arguments, after --")
    if words[0] not in ("train", "evaluate"):
        raise ConfigError(f"medserl {words[0]}: the launchers run train and evaluate")
    parser = Parser(prog="medserl")
    commands = parser.add_subparsers(dest="command", required=True)
    add_train(commands)
    add_evaluate(commands)
    options, overrides = parse_arguments(parser, words)
    if options.command == "train":
        return plan_training(load_config(options.config, overrides), shape)
    # The job takes another configuration where its node has GPUs and this machine none; both say TP 1.
    request = Request(model=options.model, config=options.config, overrides=tuple(overrides))
    return plan_evaluation(options.model, options.data, engine_config(request), shape)


def gpu_memory(settings: Mapping[str, str]) -> float | None:
    """MEDSERL_GPU_MEMORY_GB; None where it is not set.

    Raises:
        ConfigError: it is no size.
    """
    given = settings.get("MEDSERL_GPU_MEMORY_GB")
    if not given:
        return None
    with contextlib.suppress(ValueError):
        if 0 < float(given) < math.inf:
            return float(given)
    raise ConfigError(f"MEDSERL_GPU_MEMORY_GB={given}: is not a size; give a GPU's memory in GiB, e.g. 80")


def run_attach(options: argparse.Namespace, overrides: list[str]) -> int:
    """Become ``slurm/attach.sh``."""
    from medserl.slurm.request import launchers_dir

    script, bash = launchers_dir() / "attach.sh", shutil.which("bash")
    if bash is None:
        raise ConfigError("bash is not on PATH; the launchers are written in it")
    os.execv(bash, [bash, str(script), options.job, *options.arguments, *overrides])


# ------------------------------------------------------------------------------------------ steps on nodes


def run_free_port(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the first port."""
    from medserl.slurm.ray_steps import free_port

    # A line of its own, whatever the node has printed before without an end of line.
    print(f"\n{free_port(options.address, options.job)}")
    return EXIT_OK


def run_wait_for_nodes(options: argparse.Namespace, overrides: list[str]) -> int:
    """Wait for the nodes of the Ray at RAY_ADDRESS."""
    from medserl.slurm.ray_steps import wait_for_nodes

    address = os.environ.get("RAY_ADDRESS")
    if not address:
        raise ConfigError("RAY_ADDRESS is not set; the launchers set it to HOST:PORT of the job's Ray")
    wait_for_nodes(address, options.nodes, options.gpus, options.seconds)
    return EXIT_OK


def run_plan(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the plan of this job, and leave what the preflight looks for."""
    from medserl.files import write_atomically
    from medserl.planning.memory import GIB
    from medserl.preflight import fit
    from medserl.slurm.plan import GIVEN, Shape

    words = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    given, said = gpu_memory(os.environ), GIVEN
    if given is None:  # this node's own then: all of them are of one kind, or the preflight says so
        seen, name = fit.gpu_memory()
        given, said = seen and seen / GIB, f"{name} has"
    shape = Shape(
        options.nodes, options.gpus_per_node, options.cpus_per_node, gpu_memory_gb=given, gpu_memory_from=said
    )
    plan = plan_of_words([*words, *overrides], shape)
    write_atomically(options.out, plan.to_json(), 0o644)
    print("\n".join(line for line in plan.lines if not line.startswith("time ")))
    return EXIT_OK


def run_check_node(options: argparse.Namespace, overrides: list[str]) -> int:
    """Leave this node's record; whether it is good is the report's business."""
    from medserl.files import write_atomically
    from medserl.preflight import node_checks as checks

    plan = read_plan(options.plan) if options.plan.is_file() else {}
    nodes = options.nodes.split(",")
    found = checks.gpu_checks(options.gpus, least=plan.get("gpu_bytes", 0.0))
    found += checks.host_checks(options.tmp, plan.get("cpus", 0), plan.get("host_bytes", 0.0))
    on_disk, skew = checks.run_dir_checks(options.run_dir, plan.get("checkpoint_bytes", 0.0))
    found += on_disk + checks.content_checks(plan.get("model"), plan.get("files", []))
    found += checks.software_checks(options.interface)
    if options.level == "full" and plan.get("device", "cuda" if options.gpus else "cpu") == "cpu":
        found.append(checks.instruction_check())
    if options.level == "full" and options.all_reduce:
        from medserl.preflight.all_reduce import all_reduce_checks

        address, _, port = options.all_reduce.rpartition(":")
        found += all_reduce_checks(address, int(port), nodes.index(options.node), nodes, options.gpus > 0)
    record = checks.as_record(options.node, skew, found)
    write_atomically(options.out / f"{options.node}.json", json.dumps(record, indent=1))
    return EXIT_OK


def read_plan(path: Path) -> dict[str, Any]:
    """What ``step plan`` left.

    Raises:
        ConfigError: it did not leave that.
    """
    from medserl.files import read_json

    try:
        plan = read_json(path)
    except (OSError, ValueError):
        plan = None
    if not isinstance(plan, dict):
        raise ConfigError(f"--plan {path}: is not a plan; medserl slurm step plan writes one")
    return plan


def run_report(options: argparse.Namespace, overrides: list[str]) -> int:
    """Print the table and the bad nodes."""
    from medserl.preflight.preflight_report import make_report, read_records
    from medserl.report.terminal import show

    report = make_report(read_records(options.folder, options.nodes), options.folder)
    show(report.table)
    for node, problems in report.problems.items():
        print(f"bad node {node}: {'; '.join(problems)}", file=sys.stderr)
    if report.problems:
        print(f"leave them out: --exclude={','.join(report.problems)}", file=sys.stderr)
    return EXIT_FAILURE if report.problems else EXIT_OK
