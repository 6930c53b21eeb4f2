"""From Python: a run that was begun under TP 2 goes on under PP 2, with agent loops in a process of their own; a
deadline ends it, and then vLLM is killed while it generates."""

import json
import re
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medserl.run import checkpoint
from tests.e2e.harm import kill_vllm_while_it_generates
from tests.e2e.runs import COMMON, Run, start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]  # set-up on a loaded machine takes minutes

SCRIPT = """
import json, sys
from medserl import MedSeRLTrainer

if __name__ == "__main__":
    with MedSeRLTrainer("embedded", sys.argv[2:], verbose=False) as trainer:
        batch = trainer.sample_batch()
        metrics = trainer.training_step(batch)
        facts = {"metrics": metrics, "notes": len(batch.batch.notes), "labelled": len(batch.labelled)}
        facts["played"], facts["out_of_time"] = trainer.fit(), trainer.out_of_time
        try:
            trainer.training_step(trainer.sample_batch())
        except Exception as error:
            facts["error"], facts["cause"] = repr(error), trainer.cause()
    with open(sys.argv[1], "w") as file:
        json.dump(facts, file)
"""


@dataclass
class Resharded:
    """The run from Python, and what its program wrote down."""

    run: Run
    facts: dict[str, Any]


@pytest.fixture(scope="module")
def resharded(uninterrupted: Run, home: Path) -> Resharded:
    path, script, answer = home / "resharded", home / "script.py", home / "answer.json"
    shutil.copytree(uninterrupted.path, path, symlinks=True)
    remember_a_validation_of_a_day(path)
    script.write_text(SCRIPT)
    overrides = [
        *COMMON,
        "trainer.save_freq=-1",
        f"medserl.run_dir={path}",
        "medserl.max_rounds=6",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size=1",
        "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=2",
        "medserl.rollout_workers=1",
    ]
    run = start(
        [sys.executable, str(script), str(answer), *overrides],
        path,
        do=kill_vllm_while_it_generates(after="stopped before the deadline after round 4"),
        environment={"MEDSERL_DEADLINE": str(time.time() + 7200)},
    )
    assert run.exit_code == 0, run.output
    return Resharded(run, json.loads(answer.read_text()))


def remember_a_validation_of_a_day(run_dir: Path) -> None:
    """Round 5 is validated, round 4 is not: the run has time for the latter only."""
    path = run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["timing_s/validate"] = 86400.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_one_training_step_in_another_layout(resharded: Resharded) -> None:
    """Three rounds under TP 2, the fourth under PP 2: weights, optimizer and notes go on (tests/cpu compares bits)."""
    run, facts = resharded.run, resharded.facts
    assert "TP 2 x PP 1, this run is TP 1 x PP 2" in (run.path / "train.log").read_text()
    metrics, after = facts["metrics"], run.metrics[-1]
    assert (facts["notes"], facts["labelled"]) == (32, 16)
    assert [row["round"] for row in run.metrics] == [1, 2, 3, 4]
    assert metrics["vcf_acceptance_rate"] > 0.0 and metrics["actor/grad_norm"] > 0
    assert metrics["training/rollout_actor_probs_pearson_corr"] > 0.999
    # Fresh from the start model it would be exactly 0 before the first update. It is an estimate, of either sign.
    assert run.metrics[0]["actor/reward_kl_penalty"] == 0.0 != after["actor/reward_kl_penalty"]
    manifest = json.loads((run.path / "checkpoints/global_step_4/medserl.json").read_text())
    assert manifest["state"]["layout"] == {
        "engine": "Megatron", "tp": 1, "pp": 2, "workers": 2, "reshardable": True
    }  # fmt: skip
    played = [{g["note_id"] for g in run.games(n) if g["mode"] is not None} for n in (1, 2, 3, 4)]
    assert len(set().union(*played)) == 4 * 32


def test_a_deadline_ends_it_before_a_round_that_does_not_fit(resharded: Resharded) -> None:
    """With a checkpoint of the round before, which nobody had asked for."""
    facts, path = resharded.facts, resharded.run.path
    assert facts["played"] == {}
    assert re.fullmatch(r"\d+ s are left and one more round with its checkpoint may need \d+ s", facts["out_of_time"])
    ended = json.loads((path / "provenance.json").read_text())["starts"][-1]["ended"]
    assert (ended["rounds"], ended["stopped_by"]) == ([3, 4], "MEDSERL_DEADLINE")
    assert checkpoint.latest_step(path / "checkpoints") == 4


def test_a_vllm_that_dies_while_it_generates_ends_the_round(resharded: Resharded) -> None:
    assert resharded.facts["cause"] == "vLLM (replica 0): its engine or one of its workers died; the run cannot go on"
    assert resharded.facts["cause"] in resharded.run.output
    assert resharded.run.left_behind == []
