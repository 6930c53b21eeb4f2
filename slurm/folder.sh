#!/usr/bin/env bash
# The folder of a job on each node's own disk: made, told from all others, removed. lib.sh sources it and sends these
# functions to the nodes. What carries neither the name nor the mark of a job is never touched.
set -euo pipefail

# is_of_job FOLDER JOB CLUSTER: a launcher made it for that job. A mark's first line is "JOB CLUSTER"; its second, "ATTEMPT
# NODE". Other clusters that share a disk count their jobs by themselves.
is_of_job() {
  local name=${1##*/} mark=""
  [[ $name == "medserl-$2" || $name == "medserl-doctor-$2" ]] || return 1
  [[ -d $1 && ! -L $1 && -O $1 && -f $1/.medserl-job && ! -L $1/.medserl-job ]] || return 1
  read -r mark <"$1/.medserl-job" || return 1
  [[ $mark == "$2 $3" ]]
}

# remove_folder FOLDER JOB CLUSTER [made]: with `made`, where this job had made the folder, also the empty one that Slurm
# makes of a step's TMPDIR where another step has removed it in between.
remove_folder() {
  if is_of_job "$1" "$2" "$3"; then
    rm -rf --one-file-system "$1"
  elif [[ ${4:-} == made && -d $1 && ! -L $1 && -O $1 ]] && rmdir "$1" 2>/dev/null; then
    return 0
  elif [[ -e $1 || -L $1 ]]; then
    echo "${SLURMD_NODENAME:-this node}: $1 has no mark of job $2 and is left as it is"
  fi
}

# sweep FOLDER CLUSTER LIST JOB…: what jobs left beside FOLDER that are over. JOB… are this user's, as they were when the
# file LIST had been written: of a folder made later nobody knows whose it is.
sweep() {
  local parent=${1%/*} cluster=$2 list=$3 folder job
  shift 3
  for folder in "$parent"/medserl-*; do
    [[ ${folder##*/} =~ ^medserl-(doctor-)?([0-9]+)$ ]] || continue
    job=${BASH_REMATCH[2]}
    [[ " $* " != *" $job "* ]] || continue
    if is_of_job "$folder" "$job" "$cluster" && [[ $folder/.medserl-job -ot $list ]]; then rm -rf --one-file-system "$folder"; fi
  done
}

# make_folder FOLDER JOB CLUSTER ATTEMPT: a new one; instead of what an earlier attempt of the same job left, or, where
# several nodes share that disk, the one that another node of this attempt has just made. 2 where there is anything else.
make_folder() {
  local marked="" node=${SLURMD_NODENAME:-this node}
  if is_of_job "$1" "$2" "$3"; then
    marked=$(sed -n 2p "$1/.medserl-job")
    if [[ ${marked%% *} == "$4" && ${marked#* } != "$node" ]]; then
      echo "$node: ${marked#* } has the same $1; MEDSERL_SCRATCH should be each node's own disk"
      return 0
    fi
    rm -rf --one-file-system "$1"
  fi
  if [[ -e $1 || -L $1 ]]; then
    echo "$node: $1 is there and was not made by job $2; nothing was removed: move it away, or set MEDSERL_SCRATCH to another folder"
    return 2
  fi
  if [[ ! -d ${1%/*}/ ]]; then
    echo "$node: there is no folder ${1%/*}; set MEDSERL_SCRATCH to one on the node's own disk"
    return 1
  fi
  if ! { mkdir -m 700 "$1" && printf '%s %s\n%s %s\n' "$2" "$3" "$4" "$node" >"$1/.medserl-job"; }; then
    echo "$node: cannot make $1"
    return 1
  fi
}
