"""Rounds of the embedded default with FSDP instead of Megatron; they ask again about earlier rounds, too."""

import math
from pathlib import Path

import pytest

from medserl.training.export import export_checkpoint
from tests.e2e.runs import Run, train

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
