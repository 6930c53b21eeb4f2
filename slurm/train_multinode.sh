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
#SBATCH --signal=B:USR1@900
#SBATCH --requeue
#
# Starts Ray on every node of the job and runs `medserl train` on the first. From the root of a checkout that lies on
# a file system all nodes see, after `python3 bootstrap.py --device cuda setup`:
#
#   medserl slurm submit train_multinode actor_rollout_ref.model.path=/models/Qwen3-4B [arguments of medserl train]
#   sbatch slurm/train_multinode.sh      actor_rollout_ref.model.path=/models/Qwen3-4B [arguments of medserl train]
#
# 15 minutes before the time limit the driver saves a checkpoint, and the job requeues itself and goes on from there.
# It ends when the driver ends, with its exit code, or when Ray dies on any node. docs/cluster.md has the rest.
#
# Settings, from the environment of sbatch; those of a site also from its file, slurm/site.sh.example:
#   MEDSERL_CONFIG     configuration                              (qwen3_4b_multinode)
#   MEDSERL_RUN_DIR    where the run writes, on the shared disk   (outputs/JOBNAME-JOBID in the submit directory)
set -euo pipefail

# sbatch runs a copy in its spool: the library lies beside the file that was submitted, or in the submit directory.
submitted=$(scontrol -o show job "${SLURM_JOB_ID:-0}" 2>/dev/null |
  sed -n 's/.* Command=\(.*\) WorkDir=.*/\1/;T;s/\/[^/ ]*\.sh\( .*\)\{0,1\}$//p;t;s/\/[^/ ]*\( .*\)\{0,1\}$//p') || true
places=("${BASH_SOURCE[0]%/*}" "$submitted" "${SLURM_SUBMIT_DIR:-.}/slurm")
for lib in "${MEDSERL_LAUNCHER:-${places[@]}}" ""; do
  if [[ -n $lib && -r $lib/lib.sh ]]; then break; fi
done
# shellcheck source=slurm/lib.sh
source "${lib:?set MEDSERL_LAUNCHER to the folder that holds lib.sh}/lib.sh"

begin "$@"
guard
prepare_nodes
find_network
free_port
driver_words=(medserl train --config "${MEDSERL_CONFIG:-qwen3_4b_multinode}" --run-dir "$run_dir"
  trainer.nnodes="${#hosts[@]}" trainer.n_gpus_per_node="$gpus")
plan "${driver_words[@]:1}" "$@"
preflight $((port + 2))

# Explicit, never "auto", which would join whatever other cluster runs on the node. The token keeps others out of ours
# and spares the one that Ray would write into the home directory.
export RAY_ADDRESS=${address[$head]}:$port RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | sha256sum | cut -d' ' -f1)

# start_ray HOST ARGUMENT…: Ray in the foreground of a step of its own, so that its death is seen. Of Ray's own fixed
# ports some would meet those of another job on the node, hence 0: any free one.
declare -A ray=() tries=()
start_ray() {
  local host=$1 name=ray-$1 try=$((${tries[$1]:-0} + 1))
  shift
  if ((try > 1)); then
    mv "$attempt_dir/ray-$host.log" "$attempt_dir/ray-$host.try-$((try - 1)).log"
    name+=-$try
  fi
  network_of "$host"
  step_on "$host"
  enter "$name"
  "${network[@]}" "${step[@]}" "${inside[@]}" ray start --node-ip-address="${address[$host]}" --num-cpus="$cpus" \
    --num-gpus="$gpus" --min-worker-port=0 --max-worker-port=0 --dashboard-agent-listen-port=0 --disable-usage-stats \
    --block "$@" >"$attempt_dir/ray-$host.log" 2>&1 &
  ray[$host]=$! tries[$host]=$try
  steps=("${ray[@]}")
}

# keep_up HOST ARGUMENT…: starts Ray again where it ended before the driver began, three times in all. On a busy node, or
# from a slow disk, Ray's helpers may need more than the 15 s after which its raylet gives up (Ray 2.60, node_manager.cc,
# WaitForDashboardAgentPorts; github.com/ray-project/ray/issues/65983); the next time their files are in memory.
keep_up() {
  if kill -0 "${ray[$1]}" 2>/dev/null; then return; fi
  ((tries[$1] < 3 && SECONDS < timeout)) || return 1
  say "Ray ended on $1 while starting, ${tries[$1]} of 3 times; starting it again (see $attempt_dir/ray-$1.try-${tries[$1]}.log)"
  start_ray "$@"
}

# What `ray start` prints last (tests/packaging/test_launcher.py holds it). A health check would ask Ray's store only, and
# another node that starts before the head's own raylet is registered fails.
head_words=(--head --port="$port" --ray-client-server-port=$((port + 1)) --temp-dir="$inner_tmp" --include-dashboard=false)
start_ray "$head" "${head_words[@]}"
until grep -q "Ray runtime started" "$attempt_dir/ray-$head.log" 2>/dev/null; do
  keep_up "$head" "${head_words[@]}" || die "Ray ended on $head while starting; see $attempt_dir/ray-$head*.log"
  ((SECONDS < timeout)) || die "Ray's head on $head was not up within $timeout s; see $attempt_dir/ray-$head*.log"
  sleep "$poll"
done
say "Ray's head is up at $RAY_ADDRESS after $SECONDS s"
for host in "${hosts[@]:1}"; do
  start_ray "$host" --address="$RAY_ADDRESS"
done
leave_for_attach
step_on "$head"
enter gate
"${step[@]}" "${inside[@]}" medserl slurm step wait-for-nodes --nodes "${#hosts[@]}" --gpus "$gpus" \
  --seconds "$((timeout - SECONDS))" &
gate=$!
nodes_stay_up() {
  local host
  kill -0 "${ray[$head]}" 2>/dev/null || return 1 # the others stand on it
  for host in "${hosts[@]:1}"; do keep_up "$host" --address="$RAY_ADDRESS" || return 1; done
}
while kill -0 "$gate" 2>/dev/null; do
  if ! nodes_stay_up; then
    kill -TERM "$gate" 2>/dev/null || true
    die "Ray ended on a node while starting; see $attempt_dir/ray-*.log"
  fi
  sleep "$poll"
done
wait "$gate" || die "not all nodes joined; see $attempt_dir/ray-*.log"
say "all nodes are up after $SECONDS s; round $rounds_before is saved"

network_of "$head"
step_on "$head"
enter driver
"${network[@]}" "${step[@]}" "${inside[@]}" "${driver_words[@]}" ++ray_kwargs.ray_init.address="$RAY_ADDRESS" "$@" &
driver=$!
watch
