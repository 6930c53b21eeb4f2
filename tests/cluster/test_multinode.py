"""slurm/train_multinode.sh as it is, on an emulated Slurm cluster of two nodes with real Ray."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = Path(__file__).with_name("slurm_cluster.sh")
NODES = 2
# A driver that finds out who is there, one task on each node, and then does what DRIVER says.
DRIVER = """
import os, signal, socket, sys, time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

stopped = []
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
name = ray.remote(num_cpus=1)(lambda: socket.gethostname())
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
names = ray.get([name.options(scheduling_strategy=On(node, soft=False)).remote() for node in nodes])
print("driver sees", *sorted(names), "on", socket.gethostname(), "with", *sys.argv[1:], flush=True)
if os.environ["DRIVER"].isdigit():
    sys.exit(int(os.environ["DRIVER"]))
print("driver waits", flush=True)
while not stopped:
    time.sleep(0.2)
print("driver saved with", len([n for n in ray.nodes() if n["Alive"]]), "nodes up", flush=True)
sys.exit(138)
"""


@dataclass
class Slurm:
    state: Path
    submit_dir: Path

    def submit(self, *arguments: str, **variables: str) -> int:
        """Submits the launcher; the options given here stand for a cluster of this size."""
        command = ["sbatch", "--parsable", f"--nodes={NODES}", "--cpus-per-task=4", "--gpus-per-node=0"]
        done = subprocess.run(
            [*command, str(ROOT / "slurm" / "train_multinode.sh"), *arguments],
            cwd=self.submit_dir,
            env={**os.environ, "MEDSERL_INTERFACE": "eth0", **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def output(self, job: int) -> str:
        path = self.submit_dir / f"slurm-medserl-{job}.out"
        return path.read_text() if path.exists() else ""

    def wait_for(self, job: int, text: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output(job):
            assert time.monotonic() < deadline, self.output(job)
            time.sleep(0.5)

    def end(self, job: int, seconds: float) -> tuple[str, int]:
        """State and exit code of a job that has ended."""
        deadline = time.monotonic() + seconds
        while True:
            shown = subprocess.run(["scontrol", "-o", "show", "job", str(job)], capture_output=True, text=True).stdout
            fields = dict(word.split("=", 1) for word in shown.split() if "=" in word)
            if fields["JobState"] not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
                return fields["JobState"], int(fields["ExitCode"].split(":")[0])
            assert time.monotonic() < deadline, self.output(job)
            time.sleep(0.5)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = [name for name in ("slurmctld", "slurmd", "sbatch", "munged", "ip") if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        pytest.skip(f"needs root and Debian's Slurm packages (missing: {', '.join(missing) or 'root'})")
    folder = tmp_path_factory.mktemp("slurm")
    state = folder / "state"
    submit_dir = folder / "submit"
    submit_dir.mkdir()
    shared = [str(submit_dir), str(ROOT), sys.prefix, sys.base_prefix]
    previous = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(state / "slurm.conf")
    try:
        subprocess.run([SCRIPT, "up", state, str(NODES), *shared], check=True, timeout=60)
        yield Slurm(state, submit_dir)
    finally:
        subprocess.run([SCRIPT, "down", state], check=True, timeout=60)
        os.environ.pop("SLURM_CONF")
        if previous is not None:
            os.environ["SLURM_CONF"] = previous


@pytest.fixture
def stand_in(slurm: Slurm) -> dict[str, str]:
    """An environment whose `medserl` is DRIVER, on this environment's Ray."""
    programs = slurm.submit_dir / "stand-in" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    here = Path(sys.executable).parent
    for name in ("ray", "python"):
        text = f'#!/bin/sh\nexec {here}/{name} "$@"\n'
        (programs / name).write_text(text)
    (programs / "medserl").write_text(f"#!{here}/python\n{DRIVER}")
    for path in programs.iterdir():
        path.chmod(0o755)
    return {"MEDSERL_VENV": str(programs.parent), "MEDSERL_GPUS_PER_NODE": "1", "MEDSERL_RAY_CPUS": "8"}


def node_folders(slurm: Slurm) -> list[Path]:
    return [
        path for number in range(1, NODES + 1) for path in (slurm.state / "tmp" / f"node{number}").glob("medserl-*")
    ]


def raylets(slurm: Slurm, job: int, node: str) -> list[int]:
    """Process ids of a node's raylets for a job, as this machine numbers them."""
    address = next(line.split()[0] for line in (slurm.state / "hosts").read_text().splitlines() if node in line)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, words = (
                (process / "comm").read_text().strip(),
                (process / "cmdline").read_text().split("\0"),
            )
        except OSError:  # gone in the meantime
            continue
        if name == "raylet" and f"--node_ip_address={address}" in words and f"medserl-{job}/" in " ".join(words):
            found.append(int(process.name))
    return found


def test_driver_sees_all_nodes_and_its_exit_code_is_the_jobs(slurm: Slurm, stand_in: dict[str, str]) -> None:
    job = slurm.submit("a=b", DRIVER="7", **stand_in)
    assert slurm.end(job, 300) == ("FAILED", 7), slurm.output(job)
    assert "driver sees node1 node2 on node1 with train --config qwen3_4b_multinode" in slurm.output(job)
    assert not node_folders(slurm)


def test_node_that_dies_ends_the_job(slurm: Slurm, stand_in: dict[str, str]) -> None:
    job = slurm.submit(DRIVER="wait", **stand_in)
    slurm.wait_for(job, "driver waits", 300)
    (raylet,) = raylets(slurm, job, f"node{NODES}")
    os.kill(raylet, signal.SIGKILL)
    assert slurm.end(job, 120) == ("FAILED", 1), slurm.output(job)
    assert "Ray ended on a node while the driver was running" in slurm.output(job)


def test_stopped_job_saves_while_ray_is_up(slurm: Slurm, stand_in: dict[str, str]) -> None:
    job = slurm.submit(DRIVER="wait", **stand_in)
    slurm.wait_for(job, "driver waits", 300)
    subprocess.run(["scancel", "--batch", "--signal=TERM", str(job)], check=True)
    assert slurm.end(job, 120) == ("FAILED", 138), slurm.output(job)
    assert f"driver saved with {NODES} nodes up" in slurm.output(job)
    assert not node_folders(slurm)


def test_embedded_default_trains_across_nodes(slurm: Slurm) -> None:
    """One Megatron worker per node: the pipeline of two stages crosses the network between them."""
    job = slurm.submit(
        "--max-rounds",
        "1",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2",
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        MEDSERL_CONFIG="embedded",
        MEDSERL_VENV=sys.prefix,
        MEDSERL_GPUS_PER_NODE="1",
        MEDSERL_RAY_CPUS="16",
    )
    assert slurm.end(job, 1500) == ("COMPLETED", 0), slurm.output(job)
    run_dir = slurm.submit_dir / "outputs" / f"medserl-{job}"
    assert "vcf_acceptance_rate" in (run_dir / "train.log").read_text()
    assert (run_dir / "metrics.jsonl").read_text().count("\n") == 1
    assert list((run_dir / "checkpoints").iterdir())
