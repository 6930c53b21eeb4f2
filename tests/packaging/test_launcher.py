"""slurm/train_multinode.sh as it is, on stand-ins for Slurm and Ray: what it starts, and how it ends."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine  # processes that wait for one another: seconds each, too long for the quick tests

SCONTROL = 'printf "node1\\nnode2\\n"'
# Runs the command here, as the node it was sent to; what srun was asked goes to a log.
SRUN = """
echo "srun $*" >> "$CALLS"
while [[ ${1:-} == --* ]]; do
  [[ $1 == --nodelist=* ]] && export SLURMD_NODENAME=${1#*=}
  shift
done
exec "$@"
"""
HOSTNAME = 'echo "127.0.0.1 10.1.1.${SLURMD_NODENAME#node}"'
RAY = """
echo "ray@$SLURMD_NODENAME $*" >> "$CALLS"
case $1 in
  health-check) [[ -e $STATE/head-is-up ]] ;;
  start)
    [[ $SLURMD_NODENAME != "${DIES_AT_START:-}" ]] || { echo "ray says no"; exit 1; }
    [[ $* != *--head* ]] || touch "$STATE/head-is-up"
    trap 'touch "$STATE/ended"; exit 1' TERM
    for _ in $(seq 100); do
      [[ ! -e $STATE/kill-$SLURMD_NODENAME ]] || exit 1
      sleep 0.1
    done ;;
esac
"""
PYTHON = """
[[ $1 != -c ]] || { echo "$4"; exit; }  # the probe for a free port: the first one is
cat >/dev/null
exit ${GATE:-0}
"""
MEDSERL = """
echo "medserl $*" >> "$CALLS"
env | grep -E "^(RAY_ADDRESS|ROCR|HIP|PYTHONNOUSERSITE|TMPDIR)" | sed "s/^/env /" >> "$CALLS"
[[ -z ${KILL:-} ]] || { touch "$STATE/kill-$KILL"; exec sleep 100; }
if [[ -n ${SAVES:-} ]]; then
  trap 'sleep 1; [[ ! -e $STATE/ended ]] && echo "driver saved while Ray was up" >> "$CALLS"; exit 138' USR1
  echo "driver is ready" >> "$CALLS"
  while true; do sleep 0.1; done
fi
exit ${DRIVER:-0}
"""


@dataclass
class Cluster:
    """A submit directory with the stand-ins on PATH; `run` is one job."""

    folder: Path
    script: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.script, *arguments],
            env={**self.environment, **variables},
            cwd="/",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        job = self.start(*arguments, **variables)
        try:
            output = job.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            raise
        return job.returncode, output

    @property
    def calls(self) -> str:
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def cluster(root: Path, tmp_path: Path) -> Iterator[Cluster]:
    programs = {"bin/scontrol": SCONTROL, "bin/srun": SRUN, "bin/hostname": HOSTNAME}
    programs |= {f".venv/bin/{name}": text for name, text in (("ray", RAY), ("python", PYTHON), ("medserl", MEDSERL))}
    for name, text in programs.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\nset -u\n{text}\n")
        path.chmod(0o755)
    scratch = Path(f"/tmp/ml-{os.getpid()}")
    yield Cluster(
        tmp_path,
        root / "slurm" / "train_multinode.sh",
        {
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "STATE": str(tmp_path),
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "game",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_GPUS_PER_NODE": "a100:4",
            "SLURM_CPUS_ON_NODE": "32",
            "SLURM_CPUS_PER_TASK": "32",
            "ROCR_VISIBLE_DEVICES": "0,1",
            "MEDSERL_TMP": str(scratch),
            "WANDB_API_KEY": "a-secret-of-the-user",
        },
    )
    assert not scratch.exists(), "the launcher left its node-local folder behind"


def test_runs_the_driver_on_the_whole_cluster(cluster: Cluster) -> None:
    code, output = cluster.run("actor_rollout_ref.model.path=/models/x y", "--max-rounds", "3")
    assert code == 0, output
    calls = cluster.calls.splitlines()
    address = "10.1.1.1:31110"  # 20000 + 4711 % 1200 * 10
    starts = [call for call in calls if call.startswith("ray@") and " start " in call]
    assert [start.split()[0] for start in starts] == ["ray@node1", "ray@node2"]
    assert "--head --port=31110" in starts[0]
    assert "--node-ip-address=10.1.1.1 --num-cpus=32 --num-gpus=4" in starts[0]
    assert "--node-ip-address=10.1.1.2 --num-cpus=32 --num-gpus=4" in starts[1]
    assert starts[1].endswith(f"--block --address={address}")
    (driver,) = [call for call in calls if call.startswith("medserl")]
    assert driver == (
        f"medserl train --config qwen3_4b_multinode --run-dir {cluster.folder}/outputs/game-4711 "
        f"trainer.nnodes=2 trainer.n_gpus_per_node=4 ++ray_kwargs.ray_init.address={address} "
        "actor_rollout_ref.model.path=/models/x y --max-rounds 3"
    )
    environment = {call for call in calls if call.startswith("env ")}
    assert {f"env RAY_ADDRESS={address}", "env PYTHONNOUSERSITE=1"} <= environment
    assert not [line for line in environment if "VISIBLE" in line]
    steps = [call for call in calls if call.startswith("srun")]
    assert steps
    assert all("--overlap --nodes=1 --ntasks=1" in step for step in steps)


def test_drivers_exit_code_is_the_jobs(cluster: Cluster) -> None:
    code, output = cluster.run(DRIVER="42")
    assert code == 42, output


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_rays_death_on_any_node_ends_the_job(cluster: Cluster, node: str) -> None:
    code, output = cluster.run(KILL=node)  # the driver alone would go on past the limit of `run`
    assert code == 1
    assert "Ray ended on a node while the driver was running" in output


def test_head_that_does_not_start_is_told_at_once(cluster: Cluster) -> None:
    code, output = cluster.run(DIES_AT_START="node1")
    assert code == 1
    assert "Ray ended on node1 while starting" in output
    log = cluster.folder / "outputs" / "game-4711.launcher" / "attempt-0" / "ray-node1.log"
    assert "ray says no" in log.read_text()
    assert "medserl" not in cluster.calls


def test_nodes_that_do_not_join_end_the_job_before_the_driver_starts(cluster: Cluster) -> None:
    code, output = cluster.run(GATE="1")
    assert code == 1
    assert "not all nodes joined" in output
    assert "medserl train" not in cluster.calls


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SLURM_JOB_ID": ""}, "submit it: sbatch"),
        ({"SLURM_GPUS_PER_NODE": ""}, "no GPUs in this job"),
        ({"MEDSERL_VENV": "nowhere"}, "bootstrap.py setup"),
        ({"MEDSERL_TMP": "/tmp/" + "x" * 40}, "too long for socket paths"),
    ],
)
def test_what_cannot_work_is_told_before_anything_starts(
    cluster: Cluster, variables: dict[str, str], message: str
) -> None:
    code, output = cluster.run(**variables)
    assert code == 1
    assert message in output
    assert not cluster.calls


def test_secrets_stay_out_of_output_and_logs(cluster: Cluster) -> None:
    _, output = cluster.run()
    logs = [path.read_text() for path in (cluster.folder / "outputs").rglob("*") if path.is_file()]
    assert "a-secret-of-the-user" not in "".join([output, cluster.calls, *logs])


def test_logs_are_for_their_owner_only(cluster: Cluster) -> None:
    cluster.run()
    run_dir = cluster.folder / "outputs" / "game-4711.launcher"
    assert not [path for path in (run_dir, *run_dir.rglob("*")) if path.stat().st_mode & 0o077]


def test_stopped_job_lets_its_driver_save_first(cluster: Cluster) -> None:
    job = cluster.start(SAVES="yes")
    deadline = time.monotonic() + 30
    while "driver is ready" not in cluster.calls:
        assert time.monotonic() < deadline, job.kill()
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    output = job.communicate(timeout=30)[0]
    assert job.returncode == 138, output
    assert "driver saved while Ray was up" in cluster.calls
