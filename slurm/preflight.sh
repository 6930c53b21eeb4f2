#!/usr/bin/env bash
#SBATCH --job-name=medserl-preflight
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=16
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=00:10:00
#SBATCH --output=slurm-%x-%j.out
#
# Looks at the nodes and starts nothing: GPUs, drivers, disks, clocks, network; one table, bad nodes by name.
#
#   medserl slurm submit --nodes 8 preflight [arguments of medserl train: their model and notes are looked for too]
#   salloc --nodes=8 … medserl doctor         [the same]: becomes this script, in the allocation
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

kind=doctor- # beside the folder of a training that may run in the same job
begin "$@"
guard
prepare_nodes
find_network
free_port
if (($# > 0)); then
  plan train --config "${MEDSERL_CONFIG:-qwen3_4b_multinode}" --run-dir "$run_dir" trainer.nnodes="${#hosts[@]}" \
    trainer.n_gpus_per_node="$gpus" "$@"
fi
preflight $((port + 2))
