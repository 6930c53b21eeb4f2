"""The launchers as they are on an emulated Slurm cluster of two nodes, with real Ray and real training."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import NODES, ROOT, Slurm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]
ACTOR = "actor_rollout_ref.actor.megatron"
PIPELINE = (f"{ACTOR}.tensor_model_parallel_size=1", f"{ACTOR}.pipeline_model_parallel_size=2")


def test_driver_sees_all_nodes_and_its_exit_code_is_the_jobs(slurm: Slurm, on_ray: dict[str, str]) -> None:
    """With everything in its way: another Ray on the node, at Ray's own port, and the job's first port taken."""
    python = sys.executable
    job = slurm.submit("a=b", options=("--hold",), DRIVER="7", **on_ray)
    port = 20000 + job % 1200 * 10
    listen = f"import socket, time; s = socket.socket(); s.bind(('', {port})); s.listen(); time.sleep(300)"
    other = [f"{Path(python).parent}/ray", "start", "--head", "--port=6379", "--num-cpus=1", "--block"]
    clean = ["env", "-u", "RAY_ADDRESS", "TMPDIR=/tmp", "HOME=/tmp"]
    with slurm.on_node(1, python, "-c", listen), slurm.on_node(1, *clean, *other, "--include-dashboard=false"):
        slurm.wait_until(job, 60, lambda: bool(slurm.processes("gcs_server", "6379")), "waited for the other Ray")
        slurm.control("release", str(job))
        assert slurm.end(job, 300) == ("FAILED", 7), slurm.output(job)
    output = slurm.output(job)
    assert "driver sees node1 node2 on node1 with train --config qwen3_4b_multinode" in output
    assert f"Ray's head is up at {slurm.address('node1')}:{port + 3}" in output
    assert not slurm.scratch()


@pytest.mark.parametrize(("process", "node"), [("raylet", NODES), ("gcs_server", 1)])
def test_ray_that_dies_ends_the_job(slurm: Slurm, on_ray: dict[str, str], process: str, node: int) -> None:
    """A node's Ray, or its head: the job fails and frees its nodes."""
    job = slurm.submit(DRIVER="wait", **on_ray)
    slurm.wait_for(job, "driver waits", 300)
    (victim,) = slurm.processes(process, slurm.address(f"node{node}"), f"medserl-{job}")
    os.kill(victim, signal.SIGKILL)
    assert slurm.end(job, 120) == ("FAILED", 1), slurm.output(job)
    assert "Ray ended on a node while the driver was running" in slurm.output(job)


def test_stopped_job_saves_while_ray_is_up(slurm: Slurm, on_ray: dict[str, str]) -> None:
    """Before, someone attaches to it: a command on the second node finds the job's Ray."""
    job = slurm.submit(DRIVER="wait", **on_ray)
    slurm.wait_for(job, "driver waits", 300)
    attach = [str(ROOT / "slurm" / "attach.sh"), str(job), f"node{NODES}", "ray", "health-check"]
    attached = subprocess.run(attach, capture_output=True, text=True, timeout=120)
    assert attached.returncode == 0, attached.stderr
    slurm.cancel("--batch", "--signal=TERM", str(job))
    assert slurm.end(job, 120) == ("FAILED", 143), slurm.output(job)
    assert f"driver saved with {NODES} nodes up" in slurm.output(job)
    assert not slurm.scratch()


def test_preflight_adds_numbers_over_the_network_and_names_the_bad_node(slurm: Slurm) -> None:
    """A job of its own, submitted by `medserl slurm submit`; a node without the notes is the bad one."""
    notes = Path("/tmp/preflight-notes.jsonl")  # a /tmp of each node's own
    here = slurm.state / "tmp" / "node1" / notes.name
    here.write_text("{}\n")
    overrides = ["--prompt-data", str(notes), "actor_rollout_ref.rollout.tensor_model_parallel_size=1"]
    environment = {
        **os.environ,
        "MEDSERL_VENV": sys.prefix,
        "MEDSERL_GPUS_PER_NODE": "1",
        "MEDSERL_RAY_CPUS": "16",
        "MEDSERL_CONFIG": "embedded",
        "PYTHONPATH": str(ROOT),
        "MEDSERL_SITE": str(slurm.submit_dir / "site.sh"),
    }
    (slurm.submit_dir / "site.sh").write_text("MEDSERL_PARTITION=test\nMEDSERL_SBATCH_OPTIONS='--comment=site'\n")
    words = ["--nodes=2", "--cpus-per-task=4", "--gpus-per-node=0", "preflight", *overrides]
    notes.write_text("{}\n")  # where it is submitted
    try:
        done = subprocess.run(
            [sys.executable, "-m", "medserl", "slurm", "submit", *words],
            cwd=slurm.submit_dir,
            env=environment,
            capture_output=True,
            text=True,
        )
    finally:
        notes.unlink()
    assert done.returncode == 0, done.stderr
    assert "2 nodes x 1 GPU = 2 = TP 2 x PP 1 x DP 1" in done.stdout
    job = int(done.stdout.split("submitted job ")[1].split(";")[0])
    assert slurm.fields(job)["Comment"] == "site"
    assert slurm.end(job, 300) == ("FAILED", 1), slurm.output(job)
    output = slurm.output(job)
    assert f"bad node node2: cannot read {notes}" in output
    assert "bad node node1" not in output
    assert "--exclude=node2" in output
    records = [json.loads(path.read_text()) for path in slurm.submit_dir.rglob(f"{job}/attempt-0/preflight/*.json")]
    assert len(records) == NODES
    for record in records:
        (reduced,) = [check for check in record["checks"] if check["name"] == "all-reduce"]
        assert reduced["problem"] is None
        assert reduced["value"].endswith("GB/s")


def start_training(slurm: Slurm, rounds: int, *layout: str, **variables: str) -> tuple[int, Path]:
    """The ward's default, one Megatron worker and one vLLM per node: with TP 2 every layer's sums cross the network."""
    job = slurm.submit(
        "--max-rounds",
        str(rounds),
        "actor_rollout_ref.rollout.tensor_model_parallel_size=1",
        *layout,
        MEDSERL_CONFIG="embedded",
        MEDSERL_GPUS_PER_NODE="1",
        MEDSERL_RAY_CPUS="16",
        **variables,
    )
    return job, slurm.submit_dir / "outputs" / f"medserl-{job}"


def trained_rounds(run_dir: Path) -> list[int]:
    path = run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    rows = [row for row in rows if row["round"] > 0]  # before the first, held-out notes are judged
    assert all("vcf_acceptance_rate" in row for row in rows)
    return [row["round"] for row in rows]


@pytest.mark.parametrize(
    ("layout", "said"),
    [
        pytest.param((), "2 nodes x 1 GPU = 2 = TP 2 x PP 1 x DP 1", id="tp2"),
        pytest.param(PIPELINE, "2 nodes x 1 GPU = 2 = TP 1 x PP 2 x DP 1", id="pp2", marks=pytest.mark.nightly),
    ],
)
def test_training_is_requeued_and_resumes_across_nodes(slurm: Slurm, layout: tuple[str, ...], said: str) -> None:
    """Told to stop as before a time limit, the job saves, requeues itself and trains the rounds that are left."""
    # The one in containers judges held-out notes too.
    quick = ("trainer.val_before_train=false", "trainer.test_freq=-1")
    job, run_dir = start_training(slurm, 3, *layout, *quick, MEDSERL_VENV=sys.prefix, PYTHONPATH=str(ROOT))
    slurm.wait_until(job, 900, lambda: bool(trained_rounds(run_dir)), "waited for a round")
    slurm.cancel("--batch", "--signal=USR1", str(job))
    slurm.wait_for(job, "requeued: attempt 1 goes on", 600)
    assert slurm.end(job, 900) == ("COMPLETED", 0), slurm.output(job)
    assert said in slurm.output(job)
    assert trained_rounds(run_dir) == [1, 2, 3]
    assert (run_dir / "checkpoints" / "global_step_3").is_dir()
    launcher = Path(f"{run_dir}.launcher") / str(job)
    assert {path.name for path in launcher.iterdir() if path.is_dir()} == {"attempt-0", "attempt-1"}
    assert len(json.loads((run_dir / "provenance.json").read_text())["starts"]) == 2
    assert not slurm.scratch()


@pytest.mark.images
@pytest.mark.timeout(4800)  # run alone, it waits for the image and the SIF
def test_training_in_apptainer(slurm: Slurm, apptainer: dict[str, str], sif: Path) -> None:
    """The same in containers on both nodes; rootless, as on sites that give no setuid Apptainer."""
    job, run_dir = start_training(
        slurm,
        2,
        PATH=apptainer["PATH"],
        MEDSERL_RUNTIME="apptainer",
        MEDSERL_IMAGE=str(sif),
        MEDSERL_RUNTIME_OPTIONS=os.environ.get("MEDSERL_TEST_SIF_OPTIONS", "--userns"),
    )
    assert slurm.end(job, 1200) == ("COMPLETED", 0), slurm.output(job)
    assert "runtime apptainer" in slurm.output(job)
    assert "2 nodes x 1 GPU = 2 = TP 2 x PP 1 x DP 1" in slurm.output(job)
    assert trained_rounds(run_dir) == [1, 2]
    assert not slurm.scratch()
