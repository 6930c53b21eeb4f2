"""Rounds of the embedded default with FSDP instead of Megatron, which ask again about earlier rounds, too; and with a
critic."""

import json
import math
from pathlib import Path

import pytest

from medserl.preflight.model_files import read_model_config
from medserl.report.metric_names import unknown
from medserl.training.export import export_checkpoint
from tests.e2e.runs import ONE_WORKER, Run, train

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
PLAIN = ("trainer.val_before_train=false", "trainer.test_freq=-1", "trainer.save_freq=1")
AGAIN = ("medserl.replay_batch_size=16", "medserl.advantage.verdict_credit=likelihood")
CORRELATION = "training/rollout_actor_probs_pearson_corr"


def check_round(run: Run, number: int) -> None:
    """The run ended well with this round, which moved the weights and gave vLLM those that it has."""
    assert run.exit_code == 0, run.output[-3000:]
    last = run.metrics[-1]
    assert last["round"] == number
    assert last["actor/grad_norm"] > 0 and math.isfinite(last["actor/loss"])
    assert last[CORRELATION] > 0.99
    assert not run.left_behind


def test_fsdp_trains_keeps_its_weights_and_goes_on(home: Path, tmp_path: Path) -> None:
    run = train(home / "fsdp", "--max-rounds", "1", "model_engine=dp", *PLAIN, *AGAIN)
    check_round(run, 1)
    model = export_checkpoint(run.path / "checkpoints" / "global_step_1", tmp_path / "model")
    assert (model / "model.safetensors").stat().st_size > 1_000_000
    assert run.metrics[-1]["replayed/games"] == 0
    # The second round's probabilities are those of the weights that came back from the checkpoint, and so are the edits
    # that it asks about again.
    run = train(home / "fsdp", "--max-rounds", "2", "model_engine=dp", *PLAIN, *AGAIN)
    check_round(run, 2)
    assert 0 < run.metrics[-1]["replayed/games"] <= 16


def test_a_critic_trains_and_goes_on_in_another_layout(home: Path, tmp_path: Path) -> None:
    """Values are 0 in the first round, and in the second those that the first one's update has taught it: they come
    back from the checkpoint of two workers, which one worker loads."""
    critic = ("algorithm.adv_estimator=gae", "critic.optim.lr=1e-3", "algorithm.lam=0.95", *PLAIN)
    run = train(home / "critic", "--max-rounds", "1", *critic)
    check_round(run, 1)
    first = run.metrics[-1]
    assert first["critic/values/max"] == first["critic/values/min"] == 0.0
    assert first["critic/grad_norm"] > 0 and math.isfinite(first["critic/vf_loss"]) and first["critic/lr"] == 1e-3
    checkpoint = run.path / "checkpoints" / "global_step_1"
    described = json.loads((checkpoint / "medserl.json").read_text())["sha256"]
    assert {"critic/model/huggingface/model.safetensors", "actor/model/huggingface/model.safetensors"} <= set(described)
    exported = read_model_config(export_checkpoint(checkpoint, tmp_path / "model"), "model")
    assert exported["tie_word_embeddings"]  # the policy's, not the critic's
    run = train(home / "critic", "--max-rounds", "2", *critic, *ONE_WORKER)
    check_round(run, 2)
    assert run.metrics[-1]["critic/values/max"] > run.metrics[-1]["critic/values/min"]
    assert unknown([name for name in run.metrics[-1] if name != "round"]) == []
    refused = train(home / "critic", "--max-rounds", "3", *critic, "critic.optim.lr=2e-3")
    assert refused.exit_code == 2 and "critic.optim.lr: 0.001 there, 0.002 now" in refused.output
