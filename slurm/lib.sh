#!/usr/bin/env bash
# What the launchers of this folder share; they source it. docs/cluster.md describes what happens in which order.
# shellcheck disable=SC2034  # what is set here is read by the scripts that source it
set -euo pipefail
umask 077 # logs and runs may hold clinical text

# Settings of a site, in the order of site.sh.example. What stands in the environment beats the site's file.
SITE_SETTINGS=(
  MEDSERL_ACCOUNT MEDSERL_PARTITION MEDSERL_QOS MEDSERL_SBATCH_OPTIONS MEDSERL_MODULES
  MEDSERL_RUNTIME MEDSERL_IMAGE MEDSERL_BINDS MEDSERL_RUNTIME_OPTIONS MEDSERL_VENV
  MEDSERL_INTERFACE MEDSERL_SCRATCH MEDSERL_TMP MEDSERL_PREFLIGHT MEDSERL_START_TIMEOUT MEDSERL_MAX_REQUEUES
  MEDSERL_GPU_MEMORY_GB MEDSERL_GPUS_PER_NODE MEDSERL_RAY_CPUS
)
# Variables that a container is given where its runtime does not pass all of them on.
PASSED_ON='^(MEDSERL|RAY|SLURM|NCCL|GLOO|UCX|FI|IB|HF|CUDA|NVIDIA|TRITON|TORCH|TORCHINDUCTOR|FLASHINFER|VLLM|VERL|OMP|MKL|ONEDNN|PYTHON|TMPDIR|WANDB|LANG|LC|USER|LOGNAME)(_|[A-Z]*$)'

kind="" # of a job's folders on the nodes, and how long their names may be; the launchers may say otherwise
tmp_limit=40

say() { printf '%(%H:%M:%S)T launcher: %s\n' -1 "$*"; }
die() {
  say "$*" >&2
  exit 1
}
# refuse SENTENCE: what the user can mend; the exit code of all of MedSeRL for that
refuse() {
  say "$*" >&2
  exit 2
}

# ---------------------------------------------------------------------------------------------- settings of the site

# The site's file: MEDSERL_SITE, site.sh beside this library, or the user's own.
site_file() {
  local file here
  here=$(dirname "${BASH_SOURCE[0]}")
  if [[ -n ${MEDSERL_SITE:-} ]]; then
    [[ -r $MEDSERL_SITE ]] || refuse "MEDSERL_SITE=$MEDSERL_SITE cannot be read; give a file like slurm/site.sh.example"
    echo "$MEDSERL_SITE"
    return
  fi
  for file in "$here/site.sh" "${XDG_CONFIG_HOME:-${HOME:-/nonexistent}/.config}/medserl/site.sh"; do
    if [[ -r $file ]]; then
      echo "$file"
      return
    fi
  done
}

# read_site FILE: sources it; refuses what an editor elsewhere made of it, and one that ends the shell
read_site() {
  if LC_ALL=C grep -q $'\r$' "$1"; then
    refuse "$1 has Windows line endings; run: sed -i 's/\\r\$//' $(printf %q "$1")"
  fi
  if [[ $(head -c 3 "$1" | od -An -tx1) =~ ^\ (ef\ bb\ bf|ff\ fe|fe\ ff) ]]; then
    refuse "$1 begins with the byte order mark of Windows editors; save it as plain UTF-8 without one"
  fi
  # shellcheck disable=SC2064  # the name of now
  trap "refuse $(printf %q "$1: it ends the shell (exit, or a variable that is not set); it should only set variables")" EXIT
  # shellcheck disable=SC1090  # the user's
  source "$1" || {
    trap - EXIT
    refuse "$1: its last command failed; it should only set variables"
  }
  trap - EXIT
}

load_site() {
  local file name
  local -A given=()
  for name in "${SITE_SETTINGS[@]}"; do
    if [[ -n ${!name+set} ]]; then given[$name]=${!name}; fi
  done
  file=$(site_file)
  if [[ -n $file ]]; then read_site "$file"; fi
  for name in "${!given[@]}"; do printf -v "$name" %s "${given[$name]}"; done
  for name in "${SITE_SETTINGS[@]}"; do
    if [[ -n ${!name+set} ]]; then export "${name?}"; fi
  done
  MEDSERL_RUNTIME=${MEDSERL_RUNTIME:-none}
  case $MEDSERL_RUNTIME in
    none | apptainer | docker | podman | pyxis) ;;
    *) refuse "MEDSERL_RUNTIME=${MEDSERL_RUNTIME@Q} is not one of apptainer, docker, podman, pyxis, none" ;;
  esac
}

load_modules() {
  local file
  [[ -n ${MEDSERL_MODULES:-} ]] || return 0
  set +eu # the module command of most sites trips over both
  if ! declare -F module >/dev/null; then
    for file in "${LMOD_PKG:-/nonexistent}/init/bash" "${MODULESHOME:-/nonexistent}/init/bash" /etc/profile.d/modules.sh \
      /etc/profile.d/lmod.sh; do
      # shellcheck disable=SC1090
      if [[ -r $file ]]; then source "$file" && break; fi
    done
  fi
  # shellcheck disable=SC2086  # a list of names
  declare -F module >/dev/null && module load $MEDSERL_MODULES
  local code=$?
  set -eu
  ((code == 0)) || refuse "module load $MEDSERL_MODULES failed; MEDSERL_MODULES comes from the site's file"
}

# ------------------------------------------------------------------------------------------------- what a job starts as

# begin ARGUMENT…: settings, checks and environment of a job that will run `medserl train` or `evaluate` with these
# arguments; sets config, run_dir, tmp, hosts, gpus, cpus and more.
begin() {
  [[ -n ${SLURM_JOB_ID:-} ]] || refuse "no Slurm job here; submit it: medserl slurm submit, or sbatch slurm/$(basename "$0")"
  cd "$SLURM_SUBMIT_DIR"
  forget_outer_job
  load_site
  load_modules
  runtime=$MEDSERL_RUNTIME
  timeout=${MEDSERL_START_TIMEOUT:-600}
  restarts=${SLURM_RESTART_COUNT:-0}
  # Where medserl keeps a run if nothing is said; what is said behind the script wins, as it does in medserl.
  run_dir=${MEDSERL_RUN_DIR:-outputs/${SLURM_JOB_NAME:-medserl}-$SLURM_JOB_ID}
  local argument previous=""
  for argument; do
    case $argument in
      --run-dir=* | --out=*) run_dir=${argument#*=} ;;
      medserl.run_dir=*) run_dir=${argument#*=} ;;
      *) if [[ $previous == --run-dir || $previous == --out ]]; then run_dir=$argument; fi ;;
    esac
    previous=$argument
  done
  run_dir=$(realpath -m "$run_dir")
  # Beside the run directory, which is medserl's own; a folder of each job's, so that a second one spoils no log.
  job_dir=$run_dir.launcher/$SLURM_JOB_ID
  attempt_dir=$job_dir/attempt-$restarts
  # A folder of the job's own below what the settings name, which is the user's.
  tmp=$(scratch_folder)/medserl-$kind$SLURM_JOB_ID
  cluster=${SLURM_CLUSTER_NAME:-cluster}
  check_settings
  set_environment
  mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
  ((${#hosts[@]} > 0)) || die "scontrol named no hosts for $SLURM_JOB_NODELIST"
  head=${hosts[0]}
  refuse_second_job
  mkdir -p "$attempt_dir"
  echo "$SLURM_JOB_ID" >"$run_dir.launcher/job"
  dump_environment >"$attempt_dir/environment.txt"
  set_deadline
  say "job $SLURM_JOB_ID, attempt $restarts: ${#hosts[@]} node(s) (${hosts[*]}), $gpus workers each, runtime $runtime, run in $run_dir"
}

# scratch_folder: the folder of the settings below which a job has its own, without a slash at its end
scratch_folder() {
  local folder=${MEDSERL_TMP:-${MEDSERL_SCRATCH:-/tmp}}
  while [[ $folder == */ ]]; do folder=${folder%/}; done
  echo "$folder"
}

# forget_outer_job: where sbatch was called from inside another job, its variables are here too; srun reads these of them,
# and Slurm replaces them only where this job asks for the same
forget_outer_job() {
  local name
  for name in $(compgen -e SLURM_CPU_BIND) $(compgen -e SLURM_MEM_) $(compgen -e SRUN_) SLURM_DISTRIBUTION SLURM_HINT \
    SLURM_THREADS_PER_CORE SLURM_CORE_SPEC SLURM_GPU_BIND SLURM_GPU_FREQ SLURM_GPUS_PER_TASK SLURM_NTASKS_PER_GPU \
    SLURM_NTASKS_PER_CORE SLURM_NTASKS_PER_SOCKET SLURM_CPUS_PER_GPU SLURM_TRES_PER_TASK SLURM_EXCLUSIVE SLURM_EXACT; do
    unset "$name"
  done
}

# count_of LIST: GPUs in "8", "a100:8" or "a100:4,h100:4"
count_of() {
  local part parts sum=0
  IFS=, read -ra parts <<<"$1"
  for part in "${parts[@]}"; do
    part=${part##*:}
    if [[ $part =~ ^[0-9]+$ ]]; then sum=$((sum + 10#$part)); else sum=$((sum + 1)); fi # "a100" is one
  done
  echo "$sum"
}

# cpus_of_nodes: the least that a node of this job has; Slurm writes "64(x2),40"
cpus_of_nodes() {
  local least="" part parts
  IFS=, read -ra parts <<<"${SLURM_JOB_CPUS_PER_NODE:-}"
  for part in "${parts[@]}"; do
    part=${part%%(*}
    if [[ $part =~ ^[1-9][0-9]*$ ]] && { [[ -z $least ]] || ((part < least)); }; then least=$part; fi
  done
  echo "${least:-${SLURM_CPUS_ON_NODE:-$(nproc)}}"
}

check_settings() {
  # "8", "a100:8" or, where a job asked in another way, what is on this node.
  local asked
  asked=$(count_of "${SLURM_GPUS_PER_NODE:-${SLURM_GPUS_ON_NODE:-}}")
  gpus=${MEDSERL_GPUS_PER_NODE:-$asked}
  with_gpus=no
  if [[ $asked =~ ^[1-9] ]]; then with_gpus=yes; fi
  cpus=${MEDSERL_RAY_CPUS:-$(cpus_of_nodes)}
  [[ $cpus =~ ^[1-9][0-9]*$ ]] || refuse "MEDSERL_RAY_CPUS=${cpus@Q} is not a number of CPUs"
  [[ $gpus =~ ^[1-9][0-9]*$ ]] || refuse "no GPUs in this job; ask with --gpus-per-node, or set MEDSERL_GPUS_PER_NODE"
  # Ray's longest socket name below its folder takes about 65 of the 107 bytes that a socket path may have.
  [[ $tmp == /* ]] || refuse "MEDSERL_SCRATCH=$(scratch_folder): give a folder from the root on, which each node has on its disk"
  ((${#tmp} <= tmp_limit)) ||
    refuse "$tmp is too long for socket paths; $tmp_limit characters at most: set MEDSERL_SCRATCH to a shorter folder"
  [[ ${MEDSERL_INTERFACE:-} =~ ^[A-Za-z0-9._@-]*$ ]] ||
    refuse "MEDSERL_INTERFACE=$MEDSERL_INTERFACE must be one interface by its name: Gloo knows no lists and no ^"
  [[ ${MEDSERL_PREFLIGHT:=full} =~ ^(full|quick|none)$ ]] ||
    refuse "MEDSERL_PREFLIGHT=$MEDSERL_PREFLIGHT is not one of full, quick, none"
  [[ $timeout =~ ^[1-9][0-9]*$ ]] || refuse "MEDSERL_START_TIMEOUT=$timeout is not a number of seconds"
  [[ ${MEDSERL_MAX_REQUEUES:=20} =~ ^[0-9]+$ ]] || refuse "MEDSERL_MAX_REQUEUES=$MEDSERL_MAX_REQUEUES is not a number"
  if [[ $runtime == none ]]; then
    venv=$(realpath -m "${MEDSERL_VENV:-.venv}")
    [[ -x $venv/bin/medserl ]] || refuse "$venv/bin/medserl is not there; run: python3 bootstrap.py setup, or set MEDSERL_VENV"
    return
  fi
  image=${MEDSERL_IMAGE:-}
  [[ -n $image ]] || refuse "MEDSERL_RUNTIME=$runtime needs MEDSERL_IMAGE"
  [[ $runtime != apptainer || $image == *://* || -e $image ]] || refuse "MEDSERL_IMAGE=$image is not there"
  [[ $runtime == pyxis ]] || command -v "$runtime" >/dev/null ||
    refuse "$runtime is not on PATH of $(hostname); name its module in MEDSERL_MODULES"
}

set_environment() {
  local name
  # A container is given its own /tmp, a folder of this job's on the node's disk; bare processes are told of it.
  if [[ $runtime == none ]]; then
    inner_tmp=$tmp
    export PATH=$venv/bin:$PATH
  else
    inner_tmp=/tmp
    unset PYTHONPATH PYTHONHOME VIRTUAL_ENV LD_PRELOAD # of the host
  fi
  # An account that a node or a container does not know: torch looks for a name as it is imported.
  export USER=${USER:-$(id -un 2>/dev/null || echo medserl)}
  export PYTHONNOUSERSITE=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} RAY_USAGE_STATS_ENABLED=0
  # A shared disk is slow to import from: Ray's helpers have time. A raylet that has not joined after a minute is dead (it
  # waits 15 s for each of their four ports), which `ray start` does not see before this time is over.
  export RAY_raylet_start_wait_time_s=60 RAY_agent_register_timeout_ms=$((timeout * 1000))
  # What compilers keep: on the node's disk, or every node writes the same files in the home directory.
  export TMPDIR=$inner_tmp TRITON_CACHE_DIR=$inner_tmp/triton TORCHINDUCTOR_CACHE_DIR=$inner_tmp/inductor
  export VLLM_CACHE_ROOT=$inner_tmp/vllm CUDA_CACHE_PATH=$inner_tmp/cuda FLASHINFER_WORKSPACE_BASE=$inner_tmp
  # verl refuses to start where these stand beside CUDA_VISIBLE_DEVICES; some sites' prologues set them everywhere.
  unset ROCR_VISIBLE_DEVICES HIP_VISIBLE_DEVICES
  # Left over from the user's own cluster, it would be joined.
  for name in $(compgen -e RAY_ADDRESS) $(compgen -e RAY_AUTH); do unset "$name"; done
  # srun inherits --cpus-per-task from the job no longer since Slurm 22.05.
  if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
}

# When Slurm will kill the job, for the trainer, which stops in time; what was spent on setting up is in it by itself.
set_deadline() {
  local end=${SLURM_JOB_END_TIME:-}
  if [[ -z $end ]]; then
    end=$(scontrol -o show job "$SLURM_JOB_ID" 2>/dev/null | sed -n 's/.* EndTime=\([^ ]*\).*/\1/p') || true
    if [[ -n $end && $end != [Uu]n* ]]; then end=$(date -d "$end" +%s) || end=""; fi
  fi
  if [[ $end =~ ^[0-9]+$ ]]; then
    export MEDSERL_DEADLINE=$end
    say "time limit in $((end - $(date +%s))) s"
  fi
}

# What helps to debug, by name and value; of everything else the name only: environments hold secrets.
dump_environment() {
  local name
  while read -r name; do
    if [[ ${!name} =~ ://[^/]*@ || $name =~ (KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|COOKIE) ]] ||
      ! [[ $name =~ $PASSED_ON || $name =~ ^(PATH|LD_LIBRARY_PATH|HOSTNAME|PWD|LOADEDMODULES)$ ]]; then
      echo "$name (set, not shown)"
    else
      echo "$name=${!name}"
    fi
  done < <(compgen -e | sort)
}

# Two jobs in one run directory would spoil each other's checkpoints. medserl's own lock sees it later, and not over
# file systems without locks.
refuse_second_job() {
  local other
  other=$(cat "$run_dir.launcher/job" 2>/dev/null) || return 0
  [[ -n $other && $other != "$SLURM_JOB_ID" ]] || return 0
  if [[ $(squeue --noheader --jobs="$other" --format=%T 2>/dev/null) =~ (PENDING|RUNNING|SUSPENDED|COMPLETING|CONFIGURING) ]]; then
    refuse "job $other uses the run directory $run_dir; wait for it, scancel it, or give another MEDSERL_RUN_DIR"
  fi
}

# shellcheck source=slurm/folder.sh
source "$(dirname "${BASH_SOURCE[0]}")/folder.sh"
# shellcheck source=slurm/nodes.sh
source "$(dirname "${BASH_SOURCE[0]}")/nodes.sh"
# shellcheck source=slurm/ends.sh
source "$(dirname "${BASH_SOURCE[0]}")/ends.sh"
