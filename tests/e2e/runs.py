"""Starts ``medserl train`` in processes of its own, harms it where a test asks for it, and reads what it wrote."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from medserl.gamelog.kinds import Source
from medserl.gamelog.read import read_part

START_LIMIT = 600  # seconds: a loaded machine with two cores
SWEEP_LIMIT = 30  # seconds until nothing of a run is left
COMMON = ("trainer.save_freq=2", "trainer.max_actor_ckpt_to_keep=null")
ONE_WORKER = (
    "trainer.n_gpus_per_node=1",
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
    "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
)
MARK = "MEDSERL_TEST_RUN"
SESSION = uuid.uuid4().hex
"""In the environment of every process that these tests start: runs of others on this machine are left alone."""
# The sampled tokens are the same; what is computed from log-probabilities may differ in the last bits,
# because vLLM's batches hold other requests when other games end first.
TOLERANCE = 1e-3
EXACT = ("vcf_acceptance_rate", "mean_reward", "injector/win_rate", "perf/generated_tokens", "trajectories")
CLOSE = ("actor/entropy", "actor/grad_norm", "actor/reward_kl_penalty", "actor/pg_loss", "actor/ppo_kl", "actor/lr")
Action = Callable[["Started"], None]


@dataclass(frozen=True)
class Run:
    """A finished run: where it wrote, how it ended, what it said."""

    path: Path
    exit_code: int
    output: str
    left_behind: list[str] = field(default_factory=list)
    """Command lines of its processes that were still there when it had ended."""
    listening: frozenset[tuple[str, str, int]] = frozenset()
    """Command line, address and port of each of its processes that listened for TCP connections at some time."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row a round."""
        return [row for row in self._rows if not row.get("validation")]

    @property
    def validations(self) -> list[dict[str, Any]]:
        """Rows of validations that stand by themselves: before the first round."""
        return [row for row in self._rows if row.get("validation")]

    @property
    def _rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.path / "metrics.jsonl").read_text().splitlines()]

    def games(self, number: int) -> list[dict[str, Any]]:
        """What the game log keeps of a round, held-out answers left out."""
        rows = read_part(self.path / "games" / f"round-{number:06d}.parquet")
        return [row for row in rows if row["source"] in (Source.PLAY, Source.GOLD)]


@dataclass(frozen=True)
class Started:
    """A run that is under way: its main process, and what it has said so far."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def wait_for(self, condition: Callable[[], bool], period: float = 0.2) -> bool:
        """Whether the condition came true while the run was there."""
        deadline = time.monotonic() + START_LIMIT
        while self.process.poll() is None and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(period)
        return False

    def wait_for_text(self, text: str) -> bool:
        """Whether it said so."""
        return self.wait_for(lambda: text in self.log.read_text())


def train(
    run_dir: Path,
    *arguments: str,
    do: Action | None = None,
    environment: Mapping[str, str] | None = None,
    enter: Callable[[], None] | None = None,
) -> Run:
    """Run ``medserl train``; ``do`` something to it while it runs.

    Args:
        run_dir: Its run directory.
        arguments: More arguments of the command line.
        do: Waits for its moment and harms the run.
        environment: Additions to its environment.
        enter: Called in the new process before the program starts.
    """
    return start(train_command(run_dir, *arguments), run_dir, do, environment, enter)


def train_command(run_dir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "medserl", "train", "--run-dir", str(run_dir), *COMMON, *arguments]


def start(
    command: Sequence[str],
    run_dir: Path,
    do: Action | None = None,
    environment: Mapping[str, str] | None = None,
    enter: Callable[[], None] | None = None,
    period: float = 2.0,
) -> Run:
    """Run a command that trains in ``run_dir``, to its end and until none of its processes is left; its sockets are
    looked for every ``period`` seconds."""
    log = run_dir.with_suffix(".out")
    listening: set[tuple[str, str, int]] = set()
    ended = threading.Event()
    variables = {**os.environ, **(environment or {}), MARK: SESSION}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=variables, preexec_fn=enter
        )
        watcher = threading.Thread(target=watch_sockets, args=(listening, ended, period), daemon=True)
        watcher.start()
        try:
            if do is not None:
                do(Started(process, log))
            code = process.wait(timeout=START_LIMIT)
        finally:
            ended.set()
            watcher.join()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    deadline = time.monotonic() + SWEEP_LIMIT
    while processes() and time.monotonic() < deadline:
        time.sleep(0.2)
    return Run(run_dir, code, log.read_text(), list(processes().values()), frozenset(listening))


def processes() -> dict[int, str]:
    """Processes that these tests have started and that are there: id, command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            marked = f"{MARK}={SESSION}".encode() in (entry / "environ").read_bytes()
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if marked and title:  # a zombie has no title
            found[int(entry.name)] = title
    return found


def watch_sockets(found: set[tuple[str, str, int]], ended: threading.Event, period: float = 2.0) -> None:
    """Collect the listening TCP sockets of the processes that these tests have started, until ``ended``."""
    while not ended.wait(period):
        seen: set[psutil.Process] = set()
        for pid in processes():
            with contextlib.suppress(psutil.Error, OSError):  # one that has ended in between, and that one only
                started = psutil.Process(pid)
                # Ray's agents have another environment: they are known as raylet's children.
                seen |= {started, *started.children(recursive=True)}
        for process in seen:
            with contextlib.suppress(psutil.Error, OSError):
                title = " ".join(process.cmdline()).strip()
                if not title:  # it is ending: its memory is gone, its sockets not yet; it was seen before
                    continue
                for connection in process.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.add((title, *connection.laddr))


def optimizer_state(checkpoint: Path) -> dict[str, Any]:
    """Adam's moments and the float32 weights by name, gathered from all ranks' files."""
    import torch
    import torch.distributed.checkpoint as dcp

    reader = dcp.FileSystemReader(checkpoint / "actor/optimizer/dist_ckpt")
    described = reader.read_metadata().state_dict_metadata
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in described.items()
        if hasattr(entry, "size")
    }
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state
