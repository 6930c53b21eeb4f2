"""(f) New weights from Megatron to vLLM, and (g) whole rounds: `medserl train` and `medserl selftest` as a user runs
them, in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from medserl.bringup.checks import CUDA, Unexpected
from medserl.bringup.child import Place
from medserl.bringup.flops import PARAMETERS, QWEN3_4B

CORRELATION = "training/rollout_actor_probs_pearson_corr"
LEAST_CORRELATION = 0.99
TRANSFER = "timing_s/update_weights"
TRANSFER_AIM = 3.0
TRANSFER_ONLY = (
    "trainer.critic_warmup=3",  # no optimizer step: Adam's moments, 32 GB, would not fit
    "algorithm.use_kl_in_reward=false",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=2048",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
)
"""Of a training with `embedded_gpu`, to bring a model of 4 G parameters and its vLLM onto 80 GB."""
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights", "step")


def weight_transfer(place: Place) -> dict[str, Any]:
    """A round after which vLLM has Megatron's weights, and one in which both compute the same tokens' probabilities.

    On a GPU in Qwen3-4B's whole shape with random weights, without reference and without an update of the optimizer:
    weights, gradients and Adam's master copy are 40 GB, vLLM's weights 8. On CPUs the embedded default.
    """
    if place.device != CUDA:
        rows = _selftest(place)
        return _transfer(rows, None)
    from medserl.bringup.engine import model_with_weights

    run_dir = place.folder / "transfer"
    model = model_with_weights(place, QWEN3_4B["num_hidden_layers"])
    command = ["train", "--config", "embedded_gpu", "--run-dir", str(run_dir), "--max-rounds", "2"]
    _medserl(command, [f"actor_rollout_ref.model.path={model}", *TRANSFER_ONLY])
    return _transfer(_rows(run_dir), PARAMETERS)


def selftest(place: Place) -> dict[str, Any]:
    """Seconds of each phase in the last round."""
    last = _selftest(place)[-1]
    return {phase: round(last[f"timing_s/{phase}"], 3) for phase in PHASES if f"timing_s/{phase}" in last}


def _transfer(rows: list[dict[str, Any]], parameters: int | None) -> dict[str, Any]:
    seconds = min(row[TRANSFER] for row in rows)
    found: dict[str, Any] = {"seconds": round(seconds, 3), "correlation": round(rows[-1][CORRELATION], 6)}
    if parameters is not None:
        found |= {"gb_per_s": round(2e-9 * parameters / seconds, 2), "aim_s": TRANSFER_AIM}
        found["aim_met"] = seconds <= TRANSFER_AIM
    if not found["correlation"] > LEAST_CORRELATION:
        raise Unexpected("vLLM's probabilities are not those of the trainer: it has other weights", found)
    return found


def _selftest(place: Place) -> list[dict[str, Any]]:
    """The rounds of one self-test; where (f) has run it already, those."""
    run_dir = place.folder / "selftest"
    if not (run_dir / "metrics.jsonl").exists():
        _medserl(["selftest", "--device", place.device, "--rounds", "2", "--run-dir", str(run_dir)], [])
    return _rows(run_dir)


def _medserl(arguments: list[str], overrides: list[str]) -> None:
    """Run a command; its last line is what a failure says."""
    command = [sys.executable, "-P", "-m", "medserl", *arguments, *overrides]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Unexpected(f"medserl {arguments[0]} ended with {done.returncode}: {' | '.join(lines[-2:])[-400:]}", {})


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if TRANSFER in row]
