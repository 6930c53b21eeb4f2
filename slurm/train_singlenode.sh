#!/usr/bin/env bash
#SBATCH --job-name=medserl
#SBATCH --nodes=1
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
# Runs `medserl train` on one node; medserl starts a Ray of its own there. As train_multinode.sh otherwise: checkpoint
# before the time limit, requeue, resume.
#
#   medserl slurm submit train_singlenode actor_rollout_ref.model.path=/models/Qwen3-4B [arguments of medserl train]
#
#   MEDSERL_CONFIG     configuration                              (qwen3_4b_1node)
#   MEDSERL_RUN_DIR    where the run writes                       (outputs/JOBNAME-JOBID in the submit directory)
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

tmp_limit=26 # medserl makes Ray's folder below it
begin "$@"
((${#hosts[@]} == 1)) || refuse "train_singlenode.sh got ${#hosts[@]} nodes; submit train_multinode.sh"
guard
prepare_nodes
find_network
free_port
driver_words=(medserl train --config "${MEDSERL_CONFIG:-qwen3_4b_1node}" --run-dir "$run_dir"
  trainer.nnodes=1 trainer.n_gpus_per_node="$gpus")
plan "${driver_words[@]:1}" "$@"
preflight $((port + 2))
leave_for_attach

say "starting after $SECONDS s; round $rounds_before is saved"
step_on "$head"
enter driver
"${step[@]}" "${inside[@]}" "${driver_words[@]}" "$@" &
driver=$!
watch
