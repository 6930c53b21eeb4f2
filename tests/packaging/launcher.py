"""Stand-ins for Slurm, Ray and medserl, on which the launchers of slurm/ run as they are."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

SCONTROL = """
echo "scontrol $*" >> "$CALLS"
case $* in
  "show hostnames"*) tr , "\\n" <<< "$NODES" ;;
  *"show job"*) echo "JobId=4711 EndTime=${END_TIME:-Unknown} Command=/somewhere/script.sh a" ;;
  requeue*) exit ${REQUEUE:-0} ;;
esac
"""
SQUEUE = 'echo "${OTHER_JOB:-}"'
# Runs the command here, as the node it was sent to, or as each of them; what srun was asked goes to a log.
SRUN = """
echo "srun $*" >> "$CALLS"
nodes=${NODES//,/ }
while [[ ${1:-} == --* ]]; do
  [[ $1 == --nodelist=* ]] && nodes=${1#*=}
  shift
done
[[ ! -e $STATE/gone-$nodes ]] || exit 1
export SLURMD_NODENAME
[[ $nodes == *" "* ]] || { SLURMD_NODENAME=$nodes; exec "$@"; }
code=0
cat > "$STATE/stdin.$$"
for SLURMD_NODENAME in $nodes; do "$@" < "$STATE/stdin.$$" || code=$?; done
exit $code
"""
HOSTNAME = 'echo "127.0.0.1 10.9.9.${SLURMD_NODENAME#node}"'
GETENT = 'echo "10.1.1.${2#node} STREAM $2"'
IP = """
case $* in
  *route*) [[ -z ${NO_ROUTE:-} ]] && echo "${!#} dev ib0 src 10.1.1.9 uid 0" ;;
  *addr*) [[ ${!#} != nowhere0 ]] && echo "2: ${!#} inet 10.1.1.${SLURMD_NODENAME#node}/24 brd 10.1.1.255" ;;
esac
"""
RAY = """
echo "ray@$SLURMD_NODENAME $*" >> "$CALLS"
case $1 in
  start)
    env | grep -E "^(GLOO|NCCL|VLLM_HOST)" | sort | sed "s/^/env@$SLURMD_NODENAME /" >> "$CALLS"
    [[ $SLURMD_NODENAME != "${DIES_AT_START:-}" ]] || { echo "ray says no"; exit 1; }
    if [[ $SLURMD_NODENAME == "${DIES_TWICE:-}" ]]; then
      echo x >> "$STATE/deaths"
      (($(wc -l < "$STATE/deaths") > 2)) || { echo "ray says no, $(wc -l < "$STATE/deaths")"; exit 1; }
    fi
    touch "$STATE/up-$SLURMD_NODENAME"
    [[ $* != *--head* ]] || { touch "$STATE/head-is-up"; echo "Ray runtime started."; }
    trap 'touch "$STATE/ended"; exit 1' TERM
    for _ in $(seq 300); do
      [[ ! -e $STATE/kill-$SLURMD_NODENAME ]] || exit 1
      sleep 0.1
    done ;;
esac
"""
MEDSERL = """
echo "medserl $*" >> "$CALLS"
case $* in
  "slurm step free-port"*) [[ -z ${NO_PORT:-} ]] && echo 31110; exit ;;
  "slurm step plan"*) echo "layout     as planned"; exit ${PLAN:-0} ;;
  "slurm step preflight-report"*) [[ -z ${BAD:-} ]] || { echo "bad node $BAD: 7 GPUs instead of 8"; exit 1; }; exit 0 ;;
  "slurm step wait-for-nodes"*)
    for _ in $(seq 100); do [[ -n ${GATE_WAITS:-} && ! -e $STATE/up-$GATE_WAITS ]] || exit ${GATE:-0}; sleep 0.1; done
    exit 2 ;;
  "slurm step check-node"*) exit 0 ;;
esac
env | grep -E "^(RAY_ADDRESS|ROCR|HIP|PYTHON|TMPDIR|TRITON|TORCHINDUCTOR|HF_HUB|MEDSERL_DEADLINE|GLOO|NCCL)" |
  sed "s/^/env /" >> "$CALLS"
saved() { mkdir -p "$RUN/checkpoints"; echo "$1" > "$RUN/checkpoints/latest_checkpointed_iteration.txt"; }
[[ -z ${LOSES:-} ]] || touch "$STATE/gone-$LOSES"
[[ -z ${KILL:-} ]] || { touch "$STATE/kill-$KILL"; exec sleep 100; }
if [[ -n ${SAVES:-} ]]; then
  trap 'sleep 1; [[ ! -e $STATE/ended ]] && echo "driver saved while Ray was up" >> "$CALLS"; saved 5; exit 138' USR1
  echo "driver is ready" >> "$CALLS"
  while true; do sleep 0.1; done
fi
[[ -z ${ROUND:-} ]] || saved "$ROUND"
exit ${DRIVER:-0}
"""


@dataclass
class Cluster:
    """A submit directory with the stand-ins on PATH; `run` is one job of `script`."""

    folder: Path
    script: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [self.script, *arguments],
            env={**self.environment, **variables},
            cwd="/",
            text=True,
            stdin=subprocess.DEVNULL,
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

    def signal_when_ready(self, number: int, **variables: str) -> tuple[int, str]:
        """A job whose driver waits, and then gets a signal."""
        job = self.start(SAVES="yes", **variables)
        deadline = time.monotonic() + 30
        while "driver is ready" not in self.calls:
            assert time.monotonic() < deadline, job.kill()
            time.sleep(0.1)
        job.send_signal(number)
        return job.communicate(timeout=30)[0], job.returncode  # type: ignore[return-value]

    def save_round(self, number: int) -> None:
        folder = self.run_dir / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "latest_checkpointed_iteration.txt").write_text(str(number))

    @property
    def node_folder(self) -> str:
        """The job's own folder on its nodes."""
        return f"{self.environment['MEDSERL_TMP']}/medserl-4711"

    @property
    def run_dir(self) -> Path:
        return self.folder / "outputs" / "game-4711"

    @property
    def calls(self) -> str:
        path = self.folder / "calls"
        return path.read_text() if path.exists() else ""

    def lines(self, start: str) -> list[str]:
        return [line for line in self.calls.splitlines() if line.startswith(start)]


def make_cluster(root: Path, folder: Path, script: str = "train_multinode.sh") -> Cluster:
    programs = {"scontrol": SCONTROL, "srun": SRUN, "hostname": HOSTNAME, "getent": GETENT, "ip": IP, "squeue": SQUEUE}
    texts = {f"bin/{name}": text for name, text in programs.items()}
    texts |= {f".venv/bin/{name}": text for name, text in (("ray", RAY), ("medserl", MEDSERL))}
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/usr/bin/env bash\nset -u\n{text}\n")
        path.chmod(0o755)
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL") if name in os.environ}
    return Cluster(
        folder,
        root / "slurm" / script,
        {
            **kept,
            "HOME": str(folder),
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "CALLS": str(folder / "calls"),
            "STATE": str(folder),
            "RUN": str(folder / "outputs" / "game-4711"),
            "MEDSERL_POLL_SECONDS": "0.05",
            "NODES": "node1,node2",
            "SLURM_JOB_ID": "4711",
            "SLURM_JOB_NAME": "game",
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(folder),
            "SLURM_GPUS_PER_NODE": "a100:4",
            "SLURM_CPUS_ON_NODE": "32",
            "SLURM_CPUS_PER_TASK": "32",
            "ROCR_VISIBLE_DEVICES": "0,1",
            "HIP_VISIBLE_DEVICES": "0,1",
            "RAY_ADDRESS": "somebody-elses:6379",
            "MEDSERL_TMP": f"/tmp/ml-{os.getpid()}",
            "WANDB_API_KEY": "a-secret-of-the-user",
            "MY_NOTE": "a-secret-of-the-user",
        },
    )
