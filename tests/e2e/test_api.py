"""From Python: a run that was begun under TP 2 goes on under PP 2, with agent loops in a process of their own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.runs import COMMON, MARK, SESSION, Run

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
        json.dump({"metrics": metrics, "notes": len(batch.batch.notes), "labelled": len(batch.labelled)}, file)
"""


def test_one_training_step_in_another_layout(uninterrupted: Run, home: Path) -> None:
    """Three rounds under TP 2, the fourth under PP 2: weights, optimizer and notes go on (tests/cpu compares bits)."""
    run = Run(home / "resharded", 0, "")
    shutil.copytree(uninterrupted.path, run.path, symlinks=True)
    script, answer = home / "script.py", home / "answer.json"
    script.write_text(SCRIPT)
    overrides = [
        *COMMON,
        f"medserl.run_dir={run.path}",
        "medserl.max_rounds=4",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2",
        "medserl.rollout_workers=1",
    ]
    command = [sys.executable, str(script), str(answer), *overrides]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, MARK: SESSION}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TP 2 x PP 1, this run is TP 1 x PP 2" in (run.path / "train.log").read_text()
    result = json.loads(answer.read_text())
    metrics, after = result["metrics"], run.metrics[-1]
    assert (result["notes"], result["labelled"]) == (32, 16)
    assert [row["round"] for row in run.metrics] == [1, 2, 3, 4]
    assert metrics["vcf_acceptance_rate"] > 0.0 and metrics["actor/grad_norm"] > 0
    assert metrics["training/rollout_actor_probs_pearson_corr"] > 0.999
    # Fresh from the start model it would be exactly 0 before the first update. It is an estimate, of either sign.
    assert run.metrics[0]["actor/reward_kl_penalty"] == 0.0 != after["actor/reward_kl_penalty"]
    manifest = json.loads((run.path / "checkpoints/global_step_4/medserl.json").read_text())
    assert manifest["state"]["layout"] == {"tp": 1, "pp": 2, "workers": 2, "reshardable": True}
    played = [{g["note_id"] for g in run.games(n) if g["mode"] is not None} for n in (1, 2, 3, 4)]
    assert len(set().union(*played)) == 4 * 32
