"""``medserl selftest``: trains a round of the embedded default and looks at what came out."""

from __future__ import annotations

import argparse
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medserl.cpu.environment import gpus_here
from medserl.errors import EXIT_FAILURE, EXIT_OK, EXIT_USAGE, ConfigError
from medserl.run.stop_signals import passed_on
from medserl.words import counted

CONFIGS = {"cpu": "embedded", "cuda": "embedded_gpu"}
REAL_OUT = Path("outputs") / "selftest-real"
PACKAGES = ("vllm", "verl", "torch")
# What a round always has; the others depend on how the games went.
METRICS = (
    "vcf_acceptance_rate",
    "mean_reward",
    "actor/grad_norm",
    "actor/entropy",
    "training/rollout_actor_probs_pearson_corr",
)
# Least correlation between the probabilities that vLLM sampled with and those that Megatron computes for the same
# tokens. Both hold the same weights, so anything less is a broken weight transfer; 0.9999 is usual.
LEAST_CORRELATION = 0.99
_DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it is as it should be, and what was found."""

    name: str
    passed: bool
    found: str

    def __str__(self) -> str:
        return f"{'ok    ' if self.passed else 'FAILED'}  {self.name:11} {self.found}"


def add_selftest(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl selftest``."""
    parser = commands.add_parser(
        "selftest",
        help="train a round of the embedded default and check the result",
        description="Run Ray, vLLM, Megatron and verl's trainer on the tiny model and the synthetic notes of the "
        "package, and check rounds, metrics, checkpoint and TensorBoard. The last line says what passed.",
    )
    parser.set_defaults(run=run_selftest)
    parser.add_argument("--rounds", type=int, default=1, help="how many rounds to train (default: 1)")
    parser.add_argument(
        "--device",
        choices=("auto", *CONFIGS),
        default="auto",
        help="where to train (default: on the GPU, if there is one)",
    )
    parser.add_argument(
        "--run-dir", type=Path, help="keep the run here (default: a folder that is removed after a pass)"
    )
    real = parser.add_argument_group(
        "a real model through every command", "It takes an hour on two cores for a hundred million parameters."
    )
    real.add_argument(
        "--real",
        type=Path,
        metavar="MODEL",
        help="take this model directory through every command: evaluate, sft, train, export",
    )
    real.add_argument("--notes", type=Path, metavar="DIR", help="the folder with MEDEC's training and validation files")


def run_selftest(options: argparse.Namespace, overrides: list[str]) -> int:
    """Train, check, print a line per check and one for the whole."""
    from medserl.cpu.environment import choose_device, vllm_is_cpu_build

    if options.real is not None or options.notes is not None:
        return run_real(options, overrides)
    if options.rounds < 1:
        raise ConfigError(f"--rounds: {options.rounds} is less than 1")
    device = choose_device(options.device)
    if device == "cpu" and not vllm_is_cpu_build():
        return _failed(
            "the installed packages are those for GPUs, and no GPU is here; give this machine's to the container "
            "(docker run --gpus all, apptainer --nv), or use the cpu image"
        )
    gpus = gpus_here()
    if device == "cpu":
        print(
            "tests the CPU path" + (f" without using this machine's {counted(gpus, 'GPU')}" if gpus else ""), flush=True
        )
    kept = options.run_dir is not None
    run_dir = options.run_dir if kept else Path(tempfile.mkdtemp(prefix="medserl-selftest-")) / "run"
    code = _train(run_dir, options.rounds, device, gpus, overrides)
    if code == EXIT_USAGE:  # it has said what, and nothing was started
        if not kept:
            shutil.rmtree(run_dir.parent, ignore_errors=True)
        return EXIT_USAGE
    if code != EXIT_OK:
        _show_end_of_log(run_dir)
        return _failed(f"training ended with exit code {code}; everything it printed is in {run_dir / 'logs'}")
    checks = look_at(run_dir, options.rounds)
    for check in checks:
        print(check)
    wrong = [check.name for check in checks if not check.passed]
    if wrong:
        return _failed(f"{', '.join(wrong)}; the run is in {run_dir}")
    print(f"selftest passed: {summary(run_dir, options.rounds, device)}", flush=True)
    if not kept:
        shutil.rmtree(run_dir.parent, ignore_errors=True)
    return EXIT_OK


def run_real(options: argparse.Namespace, overrides: list[str]) -> int:
    """The course of `medserl.proof`: its table, and whether the model got through all of it."""
    from medserl.cli.evaluate import progress_on_stderr
    from medserl.proof.course import course_of
    from medserl.proof.run import Proof, StageFailed
    from medserl.proof.table import TABLE

    if options.real is None or options.notes is None:
        raise ConfigError("--real MODEL and --notes DIR go together: a model directory and the folder of MEDEC's files")
    if overrides:
        raise ConfigError(f"{overrides[0]}: --real takes no overrides; change the commands that its table lists")
    course = course_of(options.real, options.notes, options.run_dir or REAL_OUT)
    proof = Proof(course)
    print(f"{course.cut()} Everything is kept in {course.out}.", flush=True)
    with progress_on_stderr():
        try:
            proof.run()
        except StageFailed as error:
            return _failed(f"{error}; the same command continues from there")
    print((course.out / TABLE).read_text(encoding="utf-8"))
    checks = look_at(course.out / "game", course.rounds)
    for check in checks:
        print(check)
    found = proof.readiness()
    wrong = [check.name for check in checks if not check.passed]
    if found is None or not course.ready(found):
        wrong.append(
            f"warm start (wanted: {course.accepted:.0%} of the first edits accepted, {course.parsed:.0%} of the "
            "answers read)"
        )
    if wrong:
        return _failed(f"{', '.join(wrong)}; the table is {course.out / TABLE}")
    print(f"selftest passed: {course.model.name} through every command; the table is {course.out / TABLE}")
    return EXIT_OK


def _failed(reason: str) -> int:
    print(f"selftest failed: {reason}", flush=True)
    return EXIT_FAILURE


def _train(run_dir: Path, rounds: int, device: str, gpus: int, overrides: list[str]) -> int:
    """``medserl train`` in a process of its own, which signals reach too; its exit code, 128 + N for a signal N."""
    # -P: a checkout, or a torch.py, in the current directory is not what is to be tested.
    command = [sys.executable, "-P", "-m", "medserl", "train", "--config", CONFIGS[device], "--run-dir", str(run_dir)]
    command += ["--max-rounds", str(rounds), "trainer.val_before_train=false", "trainer.test_freq=-1"]
    if device == "cuda" and gpus > 1:  # the layout of the CPU test, where there is a second GPU for it
        command += ["trainer.n_gpus_per_node=2"]
        command += [f"actor_rollout_ref.{key}.tensor_model_parallel_size=2" for key in ("actor.megatron", "rollout")]
    with passed_on([*command, *overrides]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:  # the terminal has told the child too
            process.wait()
            raise
    return code if code >= 0 else 128 - code


def _show_end_of_log(run_dir: Path, lines: int = 40) -> None:
    """What verl, vLLM and Ray said last: a container's files are often gone when somebody looks."""
    for log in sorted(run_dir.glob("logs/*/driver.log"))[-1:]:
        print(*log.read_text(errors="replace").splitlines()[-lines:], sep="\n", file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------ the checks


def look_at(run_dir: Path, rounds: int) -> list[Check]:
    """Every check of a finished run of ``rounds`` rounds."""
    from medserl.run.run_log import METRICS_FILE, read_metrics

    path = run_dir / METRICS_FILE
    rows = [row for row in read_metrics(path) if not row.get("validation")] if path.is_file() else []
    numbers = [row["round"] for row in rows]
    found = Check("rounds", numbers == list(range(1, rounds + 1)), f"{len(numbers)} of {rounds} in {METRICS_FILE}")
    return [found, check_metrics(rows), check_checkpoint(run_dir, rounds), check_tensorboard(run_dir, rounds)]


def check_metrics(rows: list[dict[str, Any]]) -> Check:
    """Every metric is a finite number, those of ``METRICS`` are there, and vLLM and Megatron hold the same weights."""
    faults = []
    for row in rows:
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float)}
        faults += [f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]
        faults += [f"round {row['round']} has no {name}" for name in METRICS if name not in numbers]
        correlation = numbers.get(METRICS[-1], 1.0)
        if correlation < LEAST_CORRELATION:
            faults.append(f"{METRICS[-1]} is {correlation:.4f}, less than {LEAST_CORRELATION}")
    if not rows:
        faults.append("none")
    shown = ", ".join(f"{name} {rows[-1][name]:.4g}" for name in METRICS) if not faults else "; ".join(faults[:3])
    return Check("metrics", not faults, shown)


def check_checkpoint(run_dir: Path, rounds: int) -> Check:
    """The last round has a whole checkpoint whose weights can be read and are finite."""
    from medserl.run import checkpoint
    from medserl.training.export import export_checkpoint

    newest, complaints = checkpoint.latest_usable(run_dir / "checkpoints")
    if newest is None or complaints:
        return Check("checkpoint", False, "; ".join(complaints) or f"none in {run_dir / 'checkpoints'}")
    if newest.name != f"{checkpoint.STEP_PREFIX}{rounds}":
        return Check("checkpoint", False, f"the newest is {newest.name}")
    with tempfile.TemporaryDirectory() as folder:
        model = export_checkpoint(newest, Path(folder) / "model")
        tensors = [tensor for file in sorted(model.glob("*.safetensors")) for tensor in read_tensors(file)]
    bad = [name for name, _, finite in tensors if not finite]
    if bad or not tensors:
        return Check("checkpoint", False, f"weights that are not finite: {', '.join(bad[:3])}" if bad else "no weights")
    numbers = sum(count for _, count, _ in tensors)
    return Check("checkpoint", True, f"{newest.name}, {len(tensors)} finite weight tensors of {numbers} numbers")


def read_tensors(file: Path) -> Iterator[tuple[str, int, bool]]:
    """Name, number of elements and finiteness of every floating-point tensor of a ``.safetensors`` file."""
    import numpy as np

    from medserl.run.weights import header

    data = memoryview(file.read_bytes())
    entries = header(file)
    start = len(data) - max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    for name, entry in entries.items():
        if entry["dtype"] not in _DTYPES:
            continue
        begin, end = (start + offset for offset in entry["data_offsets"])
        width = _DTYPES[entry["dtype"]]
        if entry["dtype"] == "BF16":  # numpy has none: the upper half of a float32
            values = (np.frombuffer(data[begin:end], np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(data[begin:end], f"<f{width}")
        yield name, values.size, bool(np.isfinite(values).all())


def check_tensorboard(run_dir: Path, rounds: int) -> Check:
    """TensorBoard's own reader finds a point for each round."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from medserl.run.curves import TENSORBOARD_DIR

    if not (run_dir / TENSORBOARD_DIR).is_dir():
        return Check("TensorBoard", False, f"no {run_dir / TENSORBOARD_DIR}")
    events = EventAccumulator(str(run_dir / TENSORBOARD_DIR))
    events.Reload()
    tags = events.Tags()["scalars"]
    steps = [event.step for event in events.Scalars(METRICS[0])] if METRICS[0] in tags else []
    return Check(
        "TensorBoard",
        steps == list(range(1, rounds + 1)),
        f"{counted(len(tags), 'curve')}, {counted(len(steps), 'round')}",
    )


def summary(run_dir: Path, rounds: int, device: str) -> str:
    """What passed, with the versions and the layout that it passed with."""
    import importlib.metadata

    from omegaconf import OmegaConf

    from medserl.run.run_dir import CONFIG_FILE

    config = OmegaConf.load(run_dir / CONFIG_FILE)
    layout = OmegaConf.select(config, "actor_rollout_ref.actor.megatron.tensor_model_parallel_size")
    versions = ", ".join(f"{name} {importlib.metadata.version(name).split('+')[0]}" for name in PACKAGES)
    return f"{counted(rounds, 'round')}, checkpoint, TensorBoard; {versions}, TP {layout}, {device}"
