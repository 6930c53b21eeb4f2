#!/usr/bin/env bash
# Steps on the nodes of a job, bare or in a container; network and preflight. lib.sh sources it.
# shellcheck disable=SC2034,SC2154  # shares its variables with lib.sh and the launchers
set -euo pipefail

# step_on HOST: srun's words for one task on one node, in `step`. For steps in the background: there `$!` must be srun's
# own number, not that of a shell that runs a function, or a signal would end the shell and leave the step.
step_on() { step=(srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" --mem=0); }

# on HOST COMMAND…: one task on one node, beside the other steps of this job
on() {
  step_on "$1"
  shift
  "${step[@]}" "$@"
}

# everywhere COMMAND…: one task on every node
step_everywhere() {
  step=(srun --overlap --nodes="${#hosts[@]}" --ntasks="${#hosts[@]}" --ntasks-per-node=1 --mem=0)
}
everywhere() {
  step_everywhere
  "${step[@]}" "$@"
}

# Folders that a container sees at the same place: where the job was submitted, the run, the image's own binds.
list_binds() {
  local bind
  binds=("$tmp:/tmp" "$PWD:$PWD" "$(dirname "$run_dir"):$(dirname "$run_dir")")
  for bind in ${MEDSERL_BINDS:-}; do
    [[ $bind == *:* ]] || bind=$bind:$bind
    binds+=("$bind")
  done
}

# enter NAME: the words that put a command into the container, in `inside`, and srun's own, which it adds to `step`.
# NAME tells apart the containers of a node.
containers=()
enter() {
  local bind name options
  inside=()
  [[ $runtime != none ]] || return 0
  list_binds
  read -ra options <<<"${MEDSERL_RUNTIME_OPTIONS:-}"
  case $runtime in
    apptainer)
      inside=(apptainer --quiet exec --pwd "$PWD")
      if [[ $with_gpus == yes ]]; then inside+=(--nv); fi
      for bind in "${binds[@]}"; do inside+=(--bind "$bind"); done
      # An image's own environment beats the variables of the node, but not these: its caches lie in the home directory,
      # its temporary files where MEDSERL_TMP says, which is a folder of the node.
      inside+=(--env "XDG_CACHE_HOME=$inner_tmp")
      for name in TMPDIR TRITON_CACHE_DIR TORCHINDUCTOR_CACHE_DIR FLASHINFER_WORKSPACE_BASE HF_HUB_OFFLINE; do
        inside+=(--env "$name=${!name}")
      done
      inside+=("${options[@]}" "$image")
      ;;
    docker | podman)
      containers+=("medserl-$SLURM_JOB_ID-$restarts-$1")
      inside=("$runtime" run --rm --init --name "${containers[-1]}" --network=host --ipc=host --ulimit memlock=-1)
      if [[ $runtime == podman ]]; then
        inside+=(--userns=keep-id)
        if [[ $with_gpus == yes ]]; then inside+=(--device nvidia.com/gpu=all); fi
      elif [[ $with_gpus == yes ]]; then
        inside+=(--gpus all)
      fi
      inside+=(--user "$(id -u):$(id -g)" --workdir "$PWD" --env HOME=/tmp)
      for bind in "${binds[@]}"; do inside+=(--volume "$bind"); done
      # By name: values, secrets among them, do not appear in process lists. Those set for a step come last.
      while read -r name; do inside+=(--env "$name"); done < <(compgen -e | grep -E "$PASSED_ON")
      for name in GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME VLLM_HOST_IP SLURMD_NODENAME SLURM_PROCID CUDA_VISIBLE_DEVICES; do
        inside+=(--env "$name")
      done
      inside+=("${options[@]}" --entrypoint "" "$image")
      ;;
    pyxis)
      step+=(--container-image="$image" --container-workdir="$PWD" --no-container-mount-home
        --container-mounts="$(IFS=,; echo "${binds[*]}")" "${options[@]}")
      ;;
  esac
}

# inside_on HOST NAME COMMAND…: one task on one node, in the container where there is one
inside_on() {
  local host=$1 name=$2
  shift 2
  step_on "$host"
  enter "$name"
  "${step[@]}" "${inside[@]}" "$@"
}

# node_words: bash with the functions of folder.sh, in `words`; the name of one and its arguments follow
node_words() {
  words=(bash -c "umask 077; $(declare -f is_of_job remove_folder sweep make_folder see_folder prepare_node)
    \"\$@\"" bash)
}

# see_folder FILE JOB: the file that the first node wrote, which a shared disk may take its time to show
# shellcheck disable=SC2329  # node_words sends it
see_folder() {
  local _
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [[ $(cat "$1" 2>/dev/null) != "$2" ]] || return 0
    sleep 0.5
  done
  echo "$SLURMD_NODENAME does not see $1"
  return 1
}

# prepare_node FOLDER JOB CLUSTER ATTEMPT CANARY RUNNING [MOUNT POINT…]
# shellcheck disable=SC2329  # node_words sends it
prepare_node() {
  local tmp=$1 job=$2 cluster=$3 attempt=$4 canary=$5 running
  read -ra running <<<"$6"
  shift 6
  # Where Slurm ended a job by itself (scancel, a lost node), no step could take its folder away. A list of jobs that
  # lacks this one is none.
  if [[ " ${running[*]} " == *" $job "* ]]; then sweep "$tmp" "$cluster" "$canary" "${running[@]}"; fi
  make_folder "$tmp" "$job" "$cluster" "$attempt" || return
  mkdir -p "$tmp" "$@" || return 1
  see_folder "$canary" "$job"
}

# prepare_nodes: a private folder on each node's own disk, and a look at the run directory from there. What this node
# writes every other must see: a run directory on a local disk is the commonest way to lose checkpoints.
prepare_nodes() {
  local canary=$attempt_dir/canary bind inner=() running code=0
  echo "$SLURM_JOB_ID" >"$canary"
  list_binds
  for bind in "${binds[@]:1}"; do # a mount point below a mounted /tmp must be there
    bind=${bind#*:}
    if [[ $runtime != none && $bind == /tmp/* ]]; then inner+=("$tmp/${bind#/tmp/}"); fi
  done
  running=$(squeue --noheader --user="$(id -u)" --format=%A 2>/dev/null | tr '\n' ' ') || running=""
  node_words
  # TMPDIR is this folder already, and Slurm makes a step's TMPDIR where it is missing: it would look like another's.
  TMPDIR=/tmp everywhere "${words[@]}" prepare_node "$tmp" "$SLURM_JOB_ID" "$cluster" "$restarts" "$canary" "$running" "${inner[@]}" ||
    code=$?
  rm -f "$canary"
  if ((code == 2)); then refuse "the nodes named above have another $tmp; the job starts nothing"; fi
  ((code == 0)) ||
    die "the nodes named above cannot make $tmp, or do not see $run_dir: it must lie on a file system that all nodes share"
  folder_made=made
}

# find_network: the address and the interface of each node in `address` and `interface`: what MEDSERL_INTERFACE names,
# else what leads to the other nodes. One concrete interface, for Ray, Gloo and NCCL alike.
declare -A address=() interface=()
find_network() {
  local host line
  # What prologs and modules print stands beside a step's own lines: those bear a mark, and count before all others.
  local -A sure=()
  # shellcheck disable=SC2016  # expands on the nodes
  while read -r line; do
    [[ $line =~ ^(network\ )?([^ ]+)\ (none|[0-9]+(\.[0-9]+){3})(\ ([^ ]+))?$ ]] || continue
    host=${BASH_REMATCH[2]}
    [[ " ${hosts[*]} " == *" $host "* && (-n ${BASH_REMATCH[1]} || -z ${sure[$host]:-}) ]] || continue
    address[$host]=${BASH_REMATCH[3]} interface[$host]=${BASH_REMATCH[6]} sure[$host]=${BASH_REMATCH[1]}
  done < <(everywhere bash -c '
    name=$1 first=$2 second=$3
    if [[ -z $name ]]; then
      peer=$first
      if [[ $SLURMD_NODENAME == "$first" ]]; then peer=$second; fi
      peer=$(getent ahostsv4 "$peer" | awk "{print \$1; exit}")
      route=$(ip -4 -o route get "$peer" 2>/dev/null)
      name=$(sed -n "s/.* dev \([^ ]*\).*/\1/p" <<<"$route")
    fi
    if [[ -n $name && $name != lo ]]; then
      ip=$(ip -4 -o addr show dev "$name" | awk "{sub(\"/.*\", \"\", \$4); print \$4; exit}")
    else
      name=
      ip=$({ hostname --ip-address; hostname -I; } 2>/dev/null | tr " " "\n" | grep -E "^[0-9.]+$" |
        grep -vE "^(127\.|172\.17\.)" | head -n 1)
    fi
    printf "\nnetwork %s %s %s\n" "$SLURMD_NODENAME" "${ip:-none}" "$name"' bash "${MEDSERL_INTERFACE:-}" "$head" "${hosts[1]:-$head}")
  for host in "${hosts[@]}"; do
    [[ ${address[$host]:-none} != none ]] ||
      die "found no IPv4 address of $host${MEDSERL_INTERFACE:+ on $MEDSERL_INTERFACE}; set MEDSERL_INTERFACE to the network that the nodes share"
  done
  say "network: $(for host in "${hosts[@]}"; do printf '%s %s %s; ' "$host" "${address[$host]}" "${interface[$host]:-?}"; done)"
}

# network_of HOST: the environment that holds a process to that interface, in `network`. NCCL takes prefixes: `=` stops it.
network_of() {
  network=(env "VLLM_HOST_IP=${address[$1]}")
  if [[ -n ${interface[$1]:-} ]]; then
    network+=("GLOO_SOCKET_IFNAME=${interface[$1]}" "NCCL_SOCKET_IFNAME==${interface[$1]}")
  fi
}

# --------------------------------------------------------------------------------------------------------- preflight

# plan COMMAND ARGUMENT…: the arithmetic of this job and what it will read, before anything big starts; refuses with 2
plan() {
  local code=0
  inside_on "$head" plan medserl slurm step plan --out "$attempt_dir/plan.json" --nodes "${#hosts[@]}" \
    --gpus-per-node "$gpus" --cpus-per-node "$cpus" -- "$@" || code=$?
  if ((code == 2)); then exit 2; fi
  ((code == 0)) || die "medserl could not be started on $head (exit code $code): is $([[ $runtime == none ]] && echo "$venv" || echo "$image") there?"
}

# preflight PORT: every node looks at itself and, all together, they add numbers over the network; bad ones are named
preflight() {
  local folder=$attempt_dir/preflight port=$1 pids=() host code=0
  if [[ $MEDSERL_PREFLIGHT == none ]]; then return; fi
  mkdir -p "$folder"
  for host in "${hosts[@]}"; do
    network_of "$host"
    step_on "$host"
    enter "check-$host"
    "${network[@]}" timeout 300 "${step[@]}" "${inside[@]}" medserl slurm step check-node --node "$host" \
      --plan "$attempt_dir/plan.json" --out "$folder" --run-dir "$run_dir" --tmp "$inner_tmp" --level "$MEDSERL_PREFLIGHT" \
      --gpus "$([[ $with_gpus == yes ]] && echo "$gpus" || echo 0)" \
      --all-reduce "${address[$head]}:$port" \
      --nodes "$(IFS=,; echo "${hosts[*]}")" --interface "${interface[$host]:-}" >"$folder/$host.log" 2>&1 &
    pids+=($!)
  done
  wait "${pids[@]}" || true # the report says who is missing and why
  inside_on "$head" report medserl slurm step preflight-report --folder "$folder" "${hosts[@]}" || code=$?
  ((code == 0)) || die "preflight failed; logs in $folder (MEDSERL_PREFLIGHT=none goes on without it)"
  say "preflight passed after $SECONDS s"
}

# free_port: the first of three free ports on the head, in `port`, which follow from the job's number; whatever else the
# node prints is no line with a port's number alone
free_port() {
  local line said
  said=$(inside_on "$head" port medserl slurm step free-port "${address[$head]}" "$SLURM_JOB_ID") ||
    die "no free port on $head for job $SLURM_JOB_ID"
  port=""
  while read -r line; do
    if [[ $line =~ ^[1-9][0-9]{3,4}$ ]] && ((line <= 65533)); then port=$line; fi
  done <<<"$said"
  [[ -n $port ]] || die "no free port on $head for job $SLURM_JOB_ID: its step said ${said@Q}"
}
