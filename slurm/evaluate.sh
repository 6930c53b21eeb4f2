#!/usr/bin/env bash
#SBATCH --job-name=medserl-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --mem=64G
#SBATCH --time=02:00:00
#SBATCH --output=slurm-%x-%j.out
#SBATCH --open-mode=append
#
# Runs `medserl evaluate` on one node:
#
#   medserl slurm submit evaluate --model /models/Qwen3-4B --data /data/medec-ms-test.csv [arguments of medserl evaluate]
#
# The results go to outputs/JOBNAME-JOBID, or to the --out of the arguments; a job that was requeued starts over.
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
((${#hosts[@]} == 1)) || refuse "evaluate.sh got ${#hosts[@]} nodes; one is enough"
guard
prepare_nodes
find_network
free_port
driver_words=(medserl evaluate --out "$run_dir")
plan "${driver_words[@]:1}" "$@"
preflight $((port + 2))
leave_for_attach

step_on "$head"
enter driver
"${step[@]}" "${inside[@]}" "${driver_words[@]}" "$@" &
driver=$!
watch
