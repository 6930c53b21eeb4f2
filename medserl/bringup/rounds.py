"""(f) New weights from Megatron to vLLM, by the trainer's Python interface, and (g) whole rounds, by `medserl selftest`
as a user runs it; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from medserl.bringup.checks import CPU, CUDA, Unexpected
from medserl.bringup.child import Place
from medserl.bringup.flops import PARAMETERS, QWEN3_4B
from medserl.run.run_log import METRICS_FILE, read_metrics

CORRELATION = "training/rollout_actor_probs_pearson_corr"
LEAST_CORRELATION = 0.99
TRANSFER = "timing_s/update_weights"
TRANSFER_AIM = 3.0
TRANSFER_ONLY = (
    "algorithm.use_kl_in_reward=false",
    "trainer.val_before_train=false",
    "trainer.test_freq=-1",
    "trainer.save_freq=-1",
    "medserl.max_rounds=2",
)
ON_A_GPU = (
    "trainer.critic_warmup=3",  # no optimizer step: Adam's moments, 32 GB, would not fit
    "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=2048",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192",
    # Nothing is saved, but the check before the start counts a checkpoint: 45 GiB of the host instead of 135.
    "actor_rollout_ref.actor.megatron.dist_ckpt_optim_fully_reshardable=false",
)
"""Beside that, to bring a model of 4 G parameters and its vLLM onto 80 GB, and its host onto 128."""
CONFIGURATIONS = {CUDA: "embedded_gpu", CPU: "embedded"}
_PLAY = "import sys; from medserl.bringup.rounds import play; play(*sys.argv[1:])"
PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights", "step")


def weight_transfer(place: Place) -> dict[str, Any]:
    """A round after which vLLM has Megatron's weights, and one in which both compute the same tokens' probabilities.

    On a GPU in Qwen3-4B's whole shape with random weights, without reference and without an update of the optimizer:
    weights, gradients and Adam's master copy are 40 GB, vLLM's weights 8. On CPUs with the tiny model.
    """
    from medserl.bringup.engine import model_with_weights

    run_dir = place.folder / "transfer"
    model = model_with_weights(place, QWEN3_4B["num_hidden_layers"])
    _run("two rounds", ["-c", _PLAY, place.device, str(run_dir), str(model)])
    return _transfer(_rows(run_dir), PARAMETERS if place.device == CUDA else None)


def play(device: str, run_dir: str, model: str) -> None:
    """Two rounds, on a GPU without an update.

    Unlike `medserl train` it saves nothing at its end, which in Qwen3-4B's shape would be 56 GB.
    """
    from medserl import MedSeRLTrainer

    words = [f"medserl.run_dir={run_dir}", f"actor_rollout_ref.model.path={model}", *TRANSFER_ONLY]
    words += ON_A_GPU if device == CUDA else ()
    with MedSeRLTrainer(CONFIGURATIONS[device], words) as trainer:
        for _ in range(2):
            trainer.training_step(trainer.sample_batch())


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
        raise Unexpected("vLLM's probabilities are not those of the trainer: its weights differ", found)
    return found


def _selftest(place: Place) -> list[dict[str, Any]]:
    """The rounds of one self-test."""
    run_dir = place.folder / "selftest"
    words = ["selftest", "--device", place.device, "--rounds", "2", "--run-dir", str(run_dir)]
    _run("medserl selftest", ["-m", "medserl", *words])
    return _rows(run_dir)


def _run(name: str, arguments: list[str]) -> None:
    """Run Python; its last lines are what a failure says."""
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise Unexpected(f"{name} ended with {done.returncode}: {' | '.join(lines[-2:])[-400:]}", {})


def _rows(run_dir: Path) -> list[dict[str, Any]]:
    return [row for row in read_metrics(run_dir / METRICS_FILE) if TRANSFER in row]
