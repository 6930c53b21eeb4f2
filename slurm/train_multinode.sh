#!/usr/bin/env bash
#SBATCH --job-name=medserl
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@900
#
# Starts Ray on every node of the job and runs `medserl train` on the first. From the root of a checkout that lies on
# a file system all nodes see, after `python3 bootstrap.py --device cuda setup`:
#
#   sbatch slurm/train_multinode.sh actor_rollout_ref.model.path=/models/Qwen3-4B [arguments of medserl train]
#
# The job ends when the driver ends, with its exit code, or when Ray dies on any node. 15 minutes before its limit, and
# on `scancel --batch --signal=TERM`, it saves a checkpoint and ends. docs/cluster.md has the rest.
#
# Settings, from the environment of sbatch:
#   MEDSERL_CONFIG          configuration                               (qwen3_4b_multinode)
#   MEDSERL_VENV            environment to run in                       (.venv in the submit directory)
#   MEDSERL_RUN_DIR         where the run writes, on the shared disk    (outputs/JOBNAME-JOBID in the submit directory)
#   MEDSERL_TMP             node-local folder for sockets and scratch   (/tmp/medserl-JOBID)
#   MEDSERL_INTERFACE       network interface for Ray, Gloo and NCCL    (left to each of them)
#   MEDSERL_GPUS_PER_NODE   worker processes on a node                  (what Slurm gave)
#   MEDSERL_RAY_CPUS        Ray's logical CPUs on a node                (what Slurm gave)
#   MEDSERL_START_TIMEOUT   seconds within which all nodes must be up   (600)
set -euo pipefail
umask 077 # logs and runs may hold clinical text

say() { printf '%(%H:%M:%S)T launcher: %s\n' -1 "$*"; }
die() {
  say "$*" >&2
  exit 1
}

[[ -n ${SLURM_JOB_ID:-} ]] || die "no Slurm job here; submit it: sbatch slurm/train_multinode.sh"
cd "$SLURM_SUBMIT_DIR"

config=${MEDSERL_CONFIG:-qwen3_4b_multinode}
venv=$(realpath -m "${MEDSERL_VENV:-.venv}")
run_dir=$(realpath -m "${MEDSERL_RUN_DIR:-outputs/${SLURM_JOB_NAME:-medserl}-$SLURM_JOB_ID}")
tmp=${MEDSERL_TMP:-/tmp/medserl-$SLURM_JOB_ID}
timeout=${MEDSERL_START_TIMEOUT:-600}
attempt_dir=$run_dir.launcher/attempt-${SLURM_RESTART_COUNT:-0} # beside the run directory, which is medserl's own

# "8", "a100:8" or, where a job asked in another way, what is on this node.
gpus=${MEDSERL_GPUS_PER_NODE:-${SLURM_GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-}}}
gpus=${gpus##*:}
cpus=${MEDSERL_RAY_CPUS:-${SLURM_CPUS_ON_NODE:-$(nproc)}}
[[ $gpus =~ ^[1-9][0-9]*$ ]] || die "no GPUs in this job; ask with --gpus-per-node, or set MEDSERL_GPUS_PER_NODE"
[[ -x $venv/bin/medserl ]] || die "$venv/bin/medserl is not there; run: python3 bootstrap.py setup, or set MEDSERL_VENV"
# Ray's longest socket name below its folder takes about 65 of the 107 bytes that a socket path may have.
((${#tmp} <= 40)) || die "MEDSERL_TMP=$tmp is too long for socket paths; 40 characters at most"

export PATH=$venv/bin:$PATH PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} RAY_USAGE_STATS_ENABLED=0
export TMPDIR=$tmp TRITON_CACHE_DIR=$tmp/triton TORCHINDUCTOR_CACHE_DIR=$tmp/inductor
# verl refuses to start where these stand beside CUDA_VISIBLE_DEVICES; some sites' prologues set them everywhere.
unset ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES
# srun inherits --cpus-per-task from the job no longer since Slurm 22.05.
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
if [[ -n ${MEDSERL_INTERFACE:-} ]]; then
  export GLOO_SOCKET_IFNAME=$MEDSERL_INTERFACE NCCL_SOCKET_IFNAME=$MEDSERL_INTERFACE
fi

mkdir -p "$attempt_dir"
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
((${#hosts[@]} > 0)) || die "scontrol named no hosts for $SLURM_JOB_NODELIST"
head=${hosts[0]}

# on HOST COMMAND…: one task on one node, beside the other steps of this job
on() {
  step_on "$1"
  shift
  "${step[@]}" "$@"
}

# step_on HOST: srun's words for that, for steps in the background; there `$!` must be srun's own number, not that of
# a shell that runs a function, or a signal would end the shell and leave the step.
step_on() { step=(srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" --mem=0); }

# The address of a node: on the chosen interface, else the first that is neither loopback nor a container bridge's.
address_of() {
  # shellcheck disable=SC2016  # expands on the node
  on "$1" env INTERFACE="${MEDSERL_INTERFACE:-}" bash -c '
    if [[ -n $INTERFACE ]]; then
      ip -4 -o addr show dev "$INTERFACE" | awk "{sub(\"/.*\", \"\", \$4); print \$4; exit}"
    else
      { hostname --ip-address; hostname -I; } 2>/dev/null | tr " " "\n" | grep -E "^[0-9.]+$" |
        grep -vE "^(127\.|172\.17\.)" | head -n 1
    fi'
}

# Two ports that follow from the job's number, below the range of outgoing connections, and are free on the head.
free_port() {
  on "$head" python -c '
import socket, sys
address, base = sys.argv[1], int(sys.argv[2])
for port in range(base, base + 10, 2):
    with socket.socket() as first, socket.socket() as second:
        try:
            first.bind((address, port))
            second.bind((address, port + 1))
        except OSError:
            continue
    print(port)
    break
else:
    sys.exit(f"launcher: ports {base} to {base + 9} of {address} are all taken")
' "$1" $((20000 + SLURM_JOB_ID % 1200 * 10))
}

steps=()
driver=""
# shellcheck disable=SC2329  # the trap below calls it
clean_up() {
  local code=$? pid
  trap - EXIT
  for pid in $driver "${steps[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  wait || true
  for host in "${hosts[@]}"; do on "$host" rm -rf "$tmp" || say "could not remove $tmp on $host"; done
  say "done after $SECONDS s, exit code $code"
  exit "$code"
}
trap clean_up EXIT

# The driver saves a checkpoint and ends after its round on USR1; srun would turn TERM into KILL. Ray stays until then.
# shellcheck disable=SC2329  # the trap below calls it
stop() {
  [[ -n $driver ]] || exit 143
  say "asked to stop: the driver ends after this round, with a checkpoint"
  kill -USR1 "$driver" 2>/dev/null || true
}
trap stop TERM INT USR1

# start_ray HOST ADDRESS ARGUMENT…: Ray in the foreground of a step of its own, so that its death is seen. Of Ray's own
# fixed ports some would meet those of another job on the node, hence 0: any free one.
start_ray() {
  local host=$1 address=$2
  shift 2
  step_on "$host"
  "${step[@]}" ray start --node-ip-address="$address" --num-cpus="$cpus" --num-gpus="$gpus" \
    --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 --disable-usage-stats --block "$@" >"$attempt_dir/ray-$host.log" 2>&1 &
  steps+=($!)
}

# all_alive: no Ray step has ended
all_alive() {
  local pid
  for pid in "${steps[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done
}

wait_for_head() {
  until on "$head" ray health-check --address "$RAY_ADDRESS" >/dev/null 2>&1; do
    all_alive || die "Ray ended on $head while starting; see $attempt_dir/ray-$head.log"
    ((SECONDS < timeout)) || die "Ray's head on $head was not up within $timeout s; see $attempt_dir/ray-$head.log"
    sleep 1
  done
}

# wait_for_nodes: until Ray counts all nodes and their GPUs; one Python process asks, because its start costs seconds
wait_for_nodes() {
  on "$head" python - "$RAY_ADDRESS" "${#hosts[@]}" "$gpus" "$((timeout - SECONDS))" <<'PYTHON'
import sys, time
import ray
address, nodes, gpus, seconds = sys.argv[1], *map(int, sys.argv[2:])
ray.init(address=address, log_to_driver=False, logging_level="error")
deadline = time.monotonic() + seconds
while True:
    alive = {node["NodeManagerAddress"]: node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]}
    if len(alive) == nodes and all(count >= gpus for count in alive.values()):
        sys.exit(0)
    if time.monotonic() > deadline:
        sys.exit(f"launcher: {nodes} nodes with {gpus} GPUs each were wanted, these joined in time: {alive}")
    time.sleep(0.5)
PYTHON
}

# The run folder must be one folder on all nodes: what this node writes, every other must see.
canary=$attempt_dir/canary
echo "$SLURM_JOB_ID" >"$canary"
for host in "${hosts[@]}"; do
  # shellcheck disable=SC2016  # expands on the node
  on "$host" bash -c 'rm -rf "$1" && mkdir -m 700 "$1" && grep -qx "$2" "$3"' \
    bash "$tmp" "$SLURM_JOB_ID" "$canary" ||
    die "$host cannot make $tmp, or does not see $run_dir: it must lie on a file system that all nodes share"
done
rm -f "$canary"

head_address=$(address_of "$head")
[[ -n $head_address ]] || die "found no IPv4 address of $head; set MEDSERL_INTERFACE"
port=$(free_port "$head_address") || die "no free port on $head for job $SLURM_JOB_ID"
# Explicit, never "auto", which would join whatever other cluster runs on the node. The token keeps others out of ours
# and spares the one that Ray would write into the home directory.
export RAY_ADDRESS=$head_address:$port RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | sha256sum | cut -d' ' -f1)
say "job $SLURM_JOB_ID: ${#hosts[@]} nodes (${hosts[*]}), $gpus workers each, Ray at $RAY_ADDRESS, run in $run_dir"

start_ray "$head" "$head_address" --head --port="$port" --ray-client-server-port=$((port + 1)) \
  --temp-dir="$tmp" --include-dashboard=false
wait_for_head
say "head is up after $SECONDS s"
for host in "${hosts[@]:1}"; do
  start_ray "$host" "$(address_of "$host")" --address="$RAY_ADDRESS"
done
wait_for_nodes || die "not all nodes joined; see $attempt_dir/ray-*.log"
say "all nodes are up after $SECONDS s"

step_on "$head"
"${step[@]}" medserl train --config "$config" --run-dir "$run_dir" \
  trainer.nnodes="${#hosts[@]}" trainer.n_gpus_per_node="$gpus" \
  ++ray_kwargs.ray_init.address="$RAY_ADDRESS" "$@" &
driver=$!

# Until the driver ends, or anything that it stands on.
while kill -0 "$driver" 2>/dev/null && all_alive; do sleep 1; done
if kill -0 "$driver" 2>/dev/null; then
  die "Ray ended on a node while the driver was running; see $attempt_dir/ray-*.log"
fi
code=0
wait "$driver" || code=$?
driver=""
exit "$code"
