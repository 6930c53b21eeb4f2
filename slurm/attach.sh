#!/usr/bin/env bash
# A shell, or a command, inside a running job of the launchers, with its environment, Ray address and container:
#
#   slurm/attach.sh JOBID                       a shell on the first node
#   slurm/attach.sh JOBID NODE                  … on another one
#   slurm/attach.sh JOBID NODE ray status       a command
set -euo pipefail

if (($# < 1)) || ! [[ $1 =~ ^[0-9]+$ ]]; then
  sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
fi
# shellcheck source=slurm/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
job=$1
load_site
tmp=${MEDSERL_TMP:-${MEDSERL_SCRATCH:-/tmp}/medserl-$job}
nodes=$(squeue --noheader --jobs="$job" --states=RUNNING --format=%N 2>/dev/null) || true
[[ -n $nodes ]] || refuse "job $job is not running"
node=${2:-$(scontrol show hostnames "$nodes" | head -n 1)}
shift $(($# > 1 ? 2 : 1))
options=()
if (($# == 0)); then options=(--pty); fi
# The file was left on the node's own disk by the job: it holds the token of its Ray.
exec srun --jobid="$job" --overlap --nodes=1 --ntasks=1 --nodelist="$node" "${options[@]}" bash "$tmp/attach.sh" "$@"
