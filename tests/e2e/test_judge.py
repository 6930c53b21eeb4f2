"""A round in which a vLLM that verl starts beside the policy's judges and plays the injector, and rare choices; in the
next one the Megatron worker is killed."""

import json
import re

import pytest

from tests.e2e.harm import kill_worker
from tests.e2e.runs import ONE_WORKER, Run, train

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]  # set-up on a loaded machine takes minutes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("judge") / "run"
    return train(
        path, "--max-rounds", "2", "medserl.referee.name=judge", "+medserl.referee.options.max_tokens=24",
        "medserl.second_referee.name=oracle", "medserl.rollout_batch_size=16", "medserl.frozen_injector=true",
        "actor_rollout_ref.actor.ppo_mini_batch_size=20", "medserl.advantage.normalisation=role_baseline",
        "medserl.train_roles=assessor", "trainer.save_freq=1", "trainer.val_before_train=false", *ONE_WORKER,
        do=kill_worker(after=f"checkpoint {path / 'checkpoints/global_step_1'} ("),
    )  # fmt: skip


def test_a_killed_worker_ends_the_run_and_is_named(run: Run) -> None:
    assert run.exit_code == 1, run.output
    assert re.search(r"Megatron worker 0 died \(pid \d+.*\); the run cannot go on", run.output), run.output
    assert "the same command resumes after round 1" in run.output
    assert run.left_behind == []


def test_a_round_that_the_tiny_model_judges(run: Run) -> None:
    """The tiny model cannot judge: every game is void, none failed; the gold-labelled notes train alone."""
    (metrics,) = run.metrics
    assert metrics["referee/void_rate"] == 1.0
    assert metrics["referee/failed_rate"] == 0.0
    ruled = [game for game in run.games(1) if game["ruling"] is not None]
    assert ruled
    assert metrics["vcf_acceptance_rate"] > 0.4  # the model that plays the injector is the warm start
    assert metrics["medserl/trained_trajectories"] == metrics["labelled/games"]  # void games train nobody
    assert {game["ruling_reason"] for game in ruled} <= {"judge_unparseable", "judge_undecidable"}
    assert {game["second_ruling"] for game in ruled} & {"benign", "error"}
    assert metrics["labelled/games"] == 8.0
    record = json.loads((run.path / "provenance.json").read_text())["starts"][0]
    assert record["prompt_set"]["name"] == "ward"
    manifest = json.loads((run.path / "checkpoints/global_step_1/medserl.json").read_text())
    assert set(manifest["state"]["baselines"]) == {"assessor"}
    assert metrics["actor/grad_norm"] > 0
