"""From Python, with pipeline parallelism, agent loops in a process of their own, and a second referee."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]  # set-up on a loaded machine takes minutes

SCRIPT = """
import json, sys
from medserl import MedSeRLTrainer

if __name__ == "__main__":
    with MedSeRLTrainer("embedded", sys.argv[2:], verbose=False) as trainer:
        batch = trainer.sample_batch()
        metrics = trainer.training_step(batch)
        trainer.save()
    with open(sys.argv[1], "w") as file:
        json.dump({"metrics": metrics, "notes": len(batch.batch.notes), "labelled": len(batch.labelled)},
        file)
"""


def test_one_training_step_with_pp_2(tmp_path: Path) -> None:
    script, answer = tmp_path / "script.py", tmp_path / "answer.json"
    script.write_text(SCRIPT)
    overrides = [
        f"medserl.run_dir={tmp_path / 'run'}",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2",
        "medserl.rollout_workers=1",
        "medserl.second_referee.name=rules",
        "medserl.advantage.normalisation=role_baseline",
        "medserl.train_roles=alternate",
        "medserl.rollout_batch_size=16",
        "actor_rollout_ref.actor.ppo_mini_batch_size=20",
    ]
    command = [sys.executable, str(script), str(answer), *overrides]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(answer.read_text())
    metrics = result["metrics"]
    assert (result["notes"], result["labelled"]) == (16, 8)
    assert metrics["vcf_acceptance_rate"] > 0.0
    assert -1.5 < metrics["mean_reward"] < 1.5
    assert metrics["actor/grad_norm"] > 0
    assert metrics["training/rollout_actor_probs_pearson_corr"] > 0.999
    manifest = json.loads((tmp_path / "run/checkpoints/global_step_1/medserl.json").read_text())
    assert set(manifest["state"]["baselines"]) == {"assessor"}  # odd rounds train the assessor only
