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

# folder_of_job: where its folders are on the nodes, as the job left it: its output names the run directory; without one, a
# look below the folder it was submitted from, and this one. Nothing where none of them says it.
folder_of_job() {
  local shown output run="" workdir left
  shown=$(scontrol -o show job "$job" 2>/dev/null) || shown=""
  output=$(sed -n 's/.* StdOut=\(.*\)/\1/;T;s/ [A-Z][A-Za-z]*=.*//;p' <<<"$shown")
  workdir=$(sed -n 's/.* WorkDir=\(.*\)/\1/;T;s/ [A-Z][A-Za-z]*=.*//;p' <<<"$shown")
  if [[ -f $output ]]; then
    run=$(sed -n "s/^[0-9:]* launcher: job $job, attempt .* run in \(.*\)/\1/p" "$output" | tail -n 1)
  fi
  for left in "$run.launcher" "$workdir"/{,*/}*.launcher "$PWD"/{,*/}*.launcher; do
    if [[ -s $left/$job/folder ]]; then
      cat "$left/$job/folder"
      return
    fi
  done
}

for program in squeue scontrol srun; do
  command -v "$program" >/dev/null || refuse "$program is not on PATH; run this on a login node of the cluster"
done
nodes=$(squeue --noheader --jobs="$job" --states=RUNNING --format=%N 2>/dev/null) || true
[[ -n $nodes ]] || refuse "job $job is not running"
tmp=$(folder_of_job)
if [[ -z $tmp && -n ${MEDSERL_TMP:-${MEDSERL_SCRATCH:-}} ]]; then tmp=$(scratch_folder)/medserl-$job; fi
[[ -n $tmp ]] ||
  refuse "nothing here says where job $job has its folders; set MEDSERL_SCRATCH as the job had it (/tmp if it had none)"
node=${2:-$(scontrol show hostnames "$nodes" | head -n 1)}
shift $(($# > 1 ? 2 : 1))
options=()
if (($# == 0)); then options=(--pty); fi
# The file was left on the node's own disk by the job: it holds the token of its Ray.
# shellcheck disable=SC2016  # expands on the node
exec srun --jobid="$job" --overlap --nodes=1 --ntasks=1 --nodelist="$node" "${options[@]}" bash -c '
  if [[ ! -r $1 ]]; then
    echo "$1 is not there: the job is still starting, or has its folders elsewhere; then set MEDSERL_SCRATCH as the job had it" >&2
    exit 2
  fi
  exec bash "$@"' bash "$tmp/attach.sh" "$@"
