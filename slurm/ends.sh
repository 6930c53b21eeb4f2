#!/usr/bin/env bash
# How a job of the launchers ends: signals, lost nodes, requeue. lib.sh sources it.
# shellcheck disable=SC2034,SC2154  # shares its variables with lib.sh and the launchers
set -euo pipefail

poll=${MEDSERL_POLL_SECONDS:-0.5}
steps=()
driver=""
told_to_stop=""
requeue=no
# rounds_done: rounds that are saved in the run directory
rounds_done() {
  local number
  number=$(cat "$run_dir/checkpoints/latest_checkpointed_iteration.txt" 2>/dev/null) || number=0
  [[ $number =~ ^[0-9]+$ ]] && echo "$number" || echo 0
}

# stop SIGNAL: the driver ends after its round, with a checkpoint. It gets USR1 either way, because srun turns TERM into
# KILL; whether the job then goes on is up to the signal. Ray stays until the driver is through.
# shellcheck disable=SC2329  # traps call it
stop() {
  if [[ -z $driver && $1 == USR1 ]]; then
    say "told to stop ($1) before the training began: nothing to save; Slurm ends the job, or requeues it after preemption"
    return
  fi
  [[ -n $driver ]] || exit 143
  say "told to stop ($1): the driver ends after this round, with a checkpoint"
  if [[ $1 != USR1 ]]; then told_to_stop=$1; fi
  kill -USR1 "$driver" 2>/dev/null || true
}

# all_alive: no step in the background has ended
all_alive() {
  local pid
  for pid in "${steps[@]}"; do kill -0 "$pid" 2>/dev/null || return 1; done
}

# end_steps: what runs in the background gets TERM, and half a minute
end_steps() {
  local pid left
  for pid in $driver "${steps[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for ((left = SECONDS + 30; SECONDS < left; )); do
    [[ -n $(jobs -rp) ]] || break
    sleep "$poll"
  done
  for pid in $driver "${steps[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done
}

# ending: Slurm is ending the job by itself, and starts no more steps
ending() { [[ $(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T 2>/dev/null) == COMPLETING ]]; }

# shellcheck disable=SC2329  # the trap on EXIT calls it
clean_up() {
  local code=$?
  trap - EXIT
  trap '' TERM USR1
  end_steps
  if ! ending; then
    step_everywhere
    if ((${#containers[@]} > 0)); then
      timeout 60 "${step[@]}" "$runtime" rm --force "${containers[@]}" >/dev/null 2>&1 || true
    fi
    node_words
    export TMPDIR=/tmp # Slurm would make it again for a step
    timeout 60 "${step[@]}" "${words[@]}" remove_folder "$tmp" "$SLURM_JOB_ID" "$cluster" "${folder_made:-}" ||
      say "could not remove $tmp on every node"
  else
    remove_folder "$tmp" "$SLURM_JOB_ID" "$cluster" "${folder_made:-}" # Slurm starts no more steps; the next job of this user takes away what is left on other nodes
  fi
  say "done after $SECONDS s, exit code $code"
  if [[ $requeue == yes ]]; then
    if scontrol requeue "$SLURM_JOB_ID"; then
      say "requeued: attempt $((restarts + 1)) goes on from round $(rounds_done)"
    else
      say "Slurm did not requeue the job; submit it again with MEDSERL_RUN_DIR=$run_dir to go on" >&2
    fi
  fi
  exit "$code"
}

# watch: until the driver ends, or anything that it stands on; ends the job as the driver ended
watch() {
  local code=0
  while kill -0 "$driver" 2>/dev/null && all_alive; do sleep "$poll"; done
  if kill -0 "$driver" 2>/dev/null; then
    await_lost_node
    die "Ray ended on a node while the driver was running; see $attempt_dir/ray-*.log"
  fi
  wait "$driver" || code=$?
  driver=""
  if ((code == 1)); then await_lost_node; fi
  finish "$code"
}

# finish CODE: requeue where the driver stopped in time with more to do, and end
finish() {
  local code=$1 now
  if [[ -n $told_to_stop && $code == 138 ]]; then code=143; fi
  if [[ $code == 75 || $code == 138 ]]; then
    now=$(rounds_done)
    if ((now <= rounds_before)); then
      say "this attempt began and ended with round $now: not requeued, because a job that cannot work would run forever" >&2
    elif ((restarts >= MEDSERL_MAX_REQUEUES)); then
      say "requeued $restarts times already (MEDSERL_MAX_REQUEUES): stopped after round $now; submit again to go on" >&2
    else
      requeue=yes
    fi
  fi
  exit "$code"
}

# await_lost_node: where a node is gone, Slurm requeues the job when it has noticed, and marks the node, which we cannot
await_lost_node() {
  local host lost=() pids=() index
  if ending; then return; fi
  for host in "${hosts[@]}"; do
    timeout --kill-after=2 20 srun --overlap --nodes=1 --ntasks=1 --nodelist="$host" --mem=0 true >/dev/null 2>&1 &
    pids+=($!)
  done
  for index in "${!hosts[@]}"; do wait "${pids[$index]}" || lost+=("${hosts[$index]}"); done
  ((${#lost[@]} > 0)) || return 0
  say "${lost[*]} does not answer: waiting for Slurm to see it and to requeue this job" >&2
  trap 'exit 143' TERM
  for ((index = 0; index < ${MEDSERL_NODE_WAIT:-600}; index++)); do sleep 1; done
  die "Slurm still considers ${lost[*]} alive; submit again with --exclude=$(IFS=,; echo "${lost[*]}") and MEDSERL_RUN_DIR=$run_dir"
}

# leave_for_attach: what slurm/attach.sh runs on a node, on the node's own disk: it holds the token of this job's Ray
leave_for_attach() {
  local name
  step=()
  enter attach # with a runtime: a container like the others; with pyxis, on the node as it is
  {
    echo 'set -euo pipefail'
    while read -r name; do printf 'export %s=%q\n' "$name" "${!name}"; done \
      < <(compgen -e | grep -E "$PASSED_ON|^PATH$" | grep -v "^SLURM")
    printf 'cd %q\n' "$PWD"
    printf 'command=(%s)\n' "${inside[*]@Q}"
    # shellcheck disable=SC2016  # expands on the node
    echo 'if (($# == 0)); then set -- bash --norc -i; fi'
    # shellcheck disable=SC2016
    echo 'exec "${command[@]}" "$@"'
  } | on_all_write "$tmp/attach.sh"
  echo "$tmp" >"$job_dir/folder" # for attach.sh, which is not told where the job's folders are
}

# on_all_write FILE: what is read, into a file of this user's own on each node; through a pipe, no shared disk sees it
on_all_write() {
  local text
  text=$(cat)
  # shellcheck disable=SC2016  # expands on the nodes
  everywhere bash -c 'umask 077; cat >"$1"' bash "$1" <<<"$text"
}

# guard: from here on the job cleans up behind itself and answers signals
guard() {
  trap clean_up EXIT
  trap 'stop USR1' USR1
  trap 'stop TERM' TERM INT
  rounds_before=$(rounds_done)
}
