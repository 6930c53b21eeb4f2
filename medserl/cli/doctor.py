"""``medserl doctor``: whether a training would work on this machine, or on all nodes of an allocation."""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.errors import EXIT_FAILURE, EXIT_OK, ConfigError, UserError
from medserl.words import counted

if TYPE_CHECKING:
    from medserl.preflight.node_checks import Check

LOOPBACK = "lo"


def doctor(options: argparse.Namespace, overrides: list[str]) -> int:
    """Look, print a table, and a sentence for everything that is bad.

    Returns:
        0 where all is well, 1 where something is bad. In an allocation of several nodes the process becomes
        ``slurm/preflight.sh``, with the same codes.

    Raises:
        UserError: a configuration that does not exist, or arguments that it does not know.
    """
    if not options.here and has_other_nodes(os.environ) and shutil.which("srun") and shutil.which("scontrol"):
        look_at_all_nodes(options, overrides)
    from medserl.preflight.preflight_report import machine_table
    from medserl.preflight.stack_checks import tool_checks
    from medserl.report.terminal import show

    print("checking this machine, which takes a few seconds", file=sys.stderr, flush=True)
    found = machine_checks(options, overrides)
    show(machine_table(found, tool_checks()))
    for check in found:
        if check.remark:
            print(f"remark: {check.name}: {check.remark}", file=sys.stderr)
    bad = [check for check in found if check.problem]
    for check in bad:
        print(f"bad: {check.name}: {check.problem}", file=sys.stderr)
    print(f"{len(bad)} of {len(found)} checks failed" if bad else f"all {len(found)} checks passed", flush=True)
    return EXIT_FAILURE if bad else EXIT_OK


# -------------------------------------------------------------------------------------------------- one machine


def machine_checks(options: argparse.Namespace, overrides: list[str]) -> list[Check]:
    """Every check of this machine, the slow ones side by side."""
    from medserl.cli.selftest import CONFIGS
    from medserl.cpu.environment import choose_device, gpus_here
    from medserl.preflight import node_checks as checks
    from medserl.preflight.devices import devices_on_node
    from medserl.preflight.local_ranks import LocalRanks
    from medserl.preflight.stack_checks import environment_checks, version_checks

    name = options.config or CONFIGS[choose_device()]
    # Without verl there is no configuration to compose; that it is missing stands in the table.
    config = _load(name, overrides) if importlib.util.find_spec("verl") else None
    device = choose_device() if config is None else str(config.trainer.device)
    wanted = devices_on_node(config) if config is not None and device == "cuda" else 0
    interface = options.interface or os.environ.get("MEDSERL_INTERFACE") or ""
    if not interface and device == "cpu" and (config is None or config.trainer.nnodes == 1):
        interface = LOOPBACK  # as such a run does (medserl.cpu.environment)
    on_gpu, on_host = needed_memory(config) if config is not None else (0.0, 0.0)
    found = checks.gpu_checks(wanted, show_unasked=True, least=on_gpu)  # before our own processes are on them
    ranks = None if options.quick else LocalRanks(interface, gpus_here() if device == "cuda" else 0)
    try:
        tmp = Path(tempfile.gettempdir())
        found += checks.host_checks(tmp, least=on_host)
        found += checks.software_checks(interface) + version_checks(device) + environment_checks(tmp)
        if config is not None:
            found += [device_check(config), *configuration_checks(name, config, overrides)]
        if device == "cpu" and not options.quick:
            found.append(checks.instruction_check())
        return found if ranks is None else found + ranks.checks()
    finally:
        if ranks is not None:
            ranks.close()


def _load(name: str, overrides: list[str]) -> Any:
    from medserl.config.load import load_config

    return load_config(name, overrides, starts=False)


def device_check(config: Any) -> Check:
    """The device that a run would take, against the configuration's."""
    from medserl.cpu.environment import choose_device, gpus_here
    from medserl.preflight.devices import devices_on_node
    from medserl.preflight.node_checks import Check

    device, wanted = choose_device(config.medserl.device), str(config.trainer.device)
    gpus = devices_on_node(config)
    problem = None
    if device != wanted:
        problem = (
            f"the configuration is for {wanted}, this machine runs {device}; choose another --config, or look at the "
            "nodes of a job: medserl slurm submit preflight"
        )
    elif device == "cuda" and (visible := gpus_here()) < gpus:
        problem = (
            f"processes here see {counted(visible, 'GPU')}, the configuration wants {gpus}; look at "
            "CUDA_VISIBLE_DEVICES, or at the nodes of a job: medserl slurm submit preflight"
        )
    return Check("device", device, problem)


def configuration_checks(name: str, config: Any, overrides: Sequence[str] = ()) -> list[Check]:
    """Model, tokenizer, notes and run directory of a configuration, and all else that ``medserl train`` refuses."""
    from medserl.preflight.node_checks import Check, content_checks, run_dir_checks
    from medserl.preflight.preflight_report import SKEW_ALLOWED
    from medserl.slurm.plan import note_files

    run_dir = Path(config.medserl.run_dir)
    on_disk, skew = run_dir_checks(run_dir, checkpoint_bytes(config))
    problem = None
    if abs(skew) > SKEW_ALLOWED:
        problem = f"this machine's clock and that of the run's disk differ by {skew:+.1f} s; set both by NTP"
    content = content_checks(str(config.actor_rollout_ref.model.path), note_files(config))
    found = [*on_disk, Check("clock", f"{skew:+.1f} s", problem), *content]
    if any(check.problem for check in content):
        return [*found, Check("fit", "by shape", misfit(config))]
    return [*found, Check("configuration", name, _refused(name, config, run_dir, overrides))]


def _refused(name: str, config: Any, run_dir: Path, overrides: Sequence[str]) -> str | None:
    """The sentence with which ``medserl train`` would refuse the configuration, if it would."""
    from medserl.config.family import check_notes_named
    from medserl.config.mistakes import keys_of
    from medserl.preflight.checks import check_all
    from medserl.run.run_dir import RunDir

    try:
        check_notes_named(config, name, overrides)
        check_all(config, RunDir(run_dir), keys_of(overrides))
    except UserError as error:
        return str(error)
    except ImportError as error:  # a package of the stack, which has its own line
        return f"could not be looked at: {error}"
    return None


def checkpoint_bytes(config: Any) -> float:
    """Size of a checkpoint of the configuration's model; 0 where the model is not known."""
    from medserl.planning.job import has_critic
    from medserl.planning.memory import checkpoint_bytes as bytes_of

    shape = _shape(config)
    return bytes_of(shape, has_critic(config)) if shape is not None else 0.0


def misfit(config: Any) -> str | None:
    """Why the configuration's model, known by its shape alone, cannot run on this machine's GPUs; None where it can, or
    where one of them is not known."""
    from medserl.planning.fits import gpu_misfit
    from medserl.planning.job import job_of, unplanned
    from medserl.planning.memory import need_of
    from medserl.preflight.fit import gpu_memory

    shape, (gpu, name) = _shape(config), gpu_memory()
    if shape is None or gpu is None or config.trainer.device != "cuda" or unplanned(config):
        return None
    job = job_of(config)
    return gpu_misfit(job, need_of(job, shape, gpu), gpu, f"{name} has")


def needed_memory(config: Any) -> tuple[float, float]:
    """Bytes of each GPU and of this machine's memory that the configuration takes; 0 where that is not known.

    The model's weights need not be here, its name or its config.json is enough.
    """
    from medserl.planning.cpus import bytes_on_cpus
    from medserl.planning.job import job_of, unplanned
    from medserl.planning.memory import need_of
    from medserl.preflight.fit import gpu_memory

    shape = _shape(config)
    if shape is None or unplanned(config):
        return 0.0, 0.0
    job = job_of(config)
    if config.trainer.device != "cuda":
        return 0.0, sum(bytes_on_cpus(job, shape).values())
    need = need_of(job, shape, gpu_memory()[0])
    return need.fullest.total, need.host.peak


def _shape(config: Any) -> Any:
    from medserl.planning.shapes import find_shape

    try:
        return find_shape(str(config.actor_rollout_ref.model.path), "model")
    except ConfigError:  # `content_checks` tells
        return None


# --------------------------------------------------------------------------------------- all nodes of an allocation


def has_other_nodes(environ: Mapping[str, str]) -> bool:
    """Whether this is an allocation of several nodes, and not one of several tasks that srun started in it."""
    if not environ.get("SLURM_JOB_ID"):
        return False
    counts = []
    for name in ("SLURM_JOB_NUM_NODES", "SLURM_STEP_NUM_TASKS"):
        value = environ.get(name) or "1"
        if not (value.isascii() and value.isdigit()):
            raise ConfigError(f"{name}={value}: Slurm sets a number here; unset it, or look at one machine with --here")
        counts.append(int(value))
    return counts[0] > 1 and counts[1] == 1


def least_cpus(listed: str) -> str | None:
    """The least of what Slurm lists, ``64(x2),40`` being two nodes of 64 and one of 40; None for no such list."""
    counts = [re.fullmatch(r"([0-9]+)(\(x[0-9]+\))?", part) for part in listed.split(",")]
    return str(min(int(count[1]) for count in counts if count)) if all(counts) else None


def look_at_all_nodes(options: argparse.Namespace, overrides: list[str]) -> None:
    """Become ``slurm/preflight.sh``, with folders of its own: a training may be running in the same job.

    Raises:
        ConfigError: the launchers are not there.
    """
    from medserl.slurm.request import launchers_dir, site_settings

    launchers = launchers_dir()
    job = os.environ["SLURM_JOB_ID"]
    site_settings(launchers)  # refuses a file of the site's that is no good
    run_dir = getattr(options, "medserl.run_dir")
    words = [word for word in overrides if not run_dir or not word.startswith("medserl.run_dir='")]  # main's quoting
    if options.config:
        words = ["--config", options.config, *words]
    if not words and not os.environ.get("SLURM_GPUS_PER_NODE"):
        os.environ.setdefault("MEDSERL_GPUS_PER_NODE", "1")  # no GPUs and no configuration to be looked at
    os.environ["MEDSERL_LAUNCHER"] = str(launchers)
    os.environ["MEDSERL_PREFLIGHT"] = "quick" if options.quick else "full"
    given = {"MEDSERL_INTERFACE": options.interface, "MEDSERL_RUN_DIR": run_dir and str(Path(run_dir).absolute())}
    os.environ.update({name: value for name, value in given.items() if value})
    usual = {
        "MEDSERL_RUN_DIR": f"outputs/doctor-{job}",
        "SLURM_SUBMIT_DIR": os.getcwd(),
    }
    if (Path(sys.prefix) / "bin" / "medserl").is_file():
        usual["MEDSERL_VENV"] = sys.prefix
    if cpus := least_cpus(os.environ.get("SLURM_JOB_CPUS_PER_NODE", "")):
        usual["SLURM_CPUS_ON_NODE"] = cpus
    for name, value in usual.items():
        os.environ.setdefault(name, value)
    os.execvp("bash", ["bash", str(launchers / "preflight.sh"), *words])
