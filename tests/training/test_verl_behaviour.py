"""What verl 0.9.1 makes of small tensors, wherever a run's results depend on it.

When one of these fails after an upgrade, the algorithm has changed: read verl's code, decide whether ours still fits,
then change the expectation. Where behaviour can't be had without processes: test_verl_contracts.py.
"""

import asyncio
import os
import statistics
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]  # imports torch and verl


@pytest.fixture(scope="module", autouse=True)
def torch() -> Any:
    from medserl.cpu.environment import cpu_environment

    os.environ.update(cpu_environment())
    import torch
    import verl  # noqa: F401

    return torch


@pytest.fixture
def made(torch: Any) -> Any:
    from tests.training import round_made

    return round_made


@pytest.fixture
def queue(made: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return made.Queue(monkeypatch)


# ---------------------------------------------------------------- returns and advantages


@pytest.mark.parametrize(("gamma", "expected"), [(1.0, [2.5, 2.0, 1.0, 0.0]), (0.5, [1.25, 1.5, 1.0, 0.0])])
def test_reinforce_sums_what_is_still_to_come(torch: Any, gamma: float, expected: list[float]) -> None:
    from verl.trainer.ppo.core_algos import compute_reinforce_plus_plus_outcome_advantage as reinforce

    rewards = torch.tensor([[0.5, 1.0, 1.0, 9.0]] * 2)
    mask = torch.tensor([[1, 1, 1, 0]] * 2)
    _, returns = reinforce(rewards, mask, SimpleNamespace(gamma=gamma))
    assert returns.tolist() == [pytest.approx(expected)] * 2


def test_whitening_is_over_all_answered_tokens_with_bessels_correction(torch: Any) -> None:
    from verl.trainer.ppo.core_algos import compute_reinforce_plus_plus_outcome_advantage as reinforce
    from verl.utils.torch_functional import masked_whiten

    values = torch.tensor([[1.0, 4.0, 99.0], [2.0, -3.0, 7.0], [99.0, 99.0, 99.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 0]])
    chosen = values[mask.bool()].tolist()
    mean, deviation = statistics.mean(chosen), statistics.stdev(chosen)
    whitened = masked_whiten(values, mask)[mask.bool()].tolist()
    assert whitened == pytest.approx([(value - mean) / deviation for value in chosen], abs=1e-5)
    last = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    advantages, returns = reinforce(last, mask, SimpleNamespace(gamma=1.0))
    assert torch.allclose(advantages, masked_whiten(returns, mask) * mask)
    assert (advantages[mask == 0] == 0).all()


# ---------------------------------------------------------------- KL in the reward


def test_the_penalty_is_k1_per_token_and_its_mean_counts_rows_of_padding_as_zero(torch: Any) -> None:
    """The second half is what `SelfPlayTrainer._compute_returns` corrects: without it the correction must go."""
    from verl import DataProto
    from verl.trainer.ppo.core_algos import FixedKLController
    from verl.trainer.ppo.ray_trainer import apply_kl_penalty

    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]])
    data = {
        "response_mask": mask,
        "token_level_scores": torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0, 0], [0, 0, 0], [0, 0, 0]]),
        "old_log_probs": torch.full((4, 3), -1.0),
        "ref_log_prob": torch.tensor([[-1.3, -1.0, -1.0], [-1.2, 5.0, 5.0], [5.0] * 3, [5.0] * 3]),
    }
    after, metrics = apply_kl_penalty(DataProto.from_dict(data), FixedKLController(0.5), "kl")
    assert torch.allclose(
        after.batch["token_level_rewards"],
        torch.tensor([[-0.15, 0.0, 1.0], [-1.1, 0.0, 0.0], [0.0] * 3, [0.0] * 3]),
    )
    assert metrics["actor/reward_kl_penalty"] == pytest.approx((0.1 + 0.2) / 4)
    assert metrics["actor/reward_kl_penalty_coeff"] == 0.5


def test_how_an_adaptive_coefficient_moves() -> None:
    from verl.trainer.ppo.core_algos import AdaptiveKLController

    for kl, factor in ((0.1, 1.0), (0.11, 1 + 0.1 * 20 / 100), (9.0, 1 + 0.2 * 20 / 100), (0.0, 1 - 0.2 * 20 / 100)):
        controller = AdaptiveKLController(init_kl_coef=0.01, target_kl=0.1, horizon=100)
        controller.update(current_kl=kl, n_steps=20)
        assert controller.value == pytest.approx(0.01 * factor)


# ---------------------------------------------------------------- padding and mini-batches


def test_padding_is_appended_masked_worth_nothing_and_says_so(torch: Any, made: Any, queue: Any) -> None:
    from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size as upsample

    batch = made.play(made.made_trainer(), queue, [made.duel("a"), made.gold("g", made.Label.CORRECT)])
    padded = upsample(batch, 5, 0)
    assert padded.keys[:3] == batch.keys and len(padded) == 5
    for key, tag in zip(padded.keys[3:], padded.tags[3:], strict=True):
        assert tag["is_padding"] and tag["seq_len"] == 128
        row = queue.rows[key]
        assert row["response_mask"].tolist() == row["rm_scores"].tolist() == [0]
        assert key.count("_") == 2 and key not in batch.keys
    assert not any(tag.get("is_padding") for tag in padded.tags[:3])
    assert upsample(padded, 5, 0) is padded


def test_mini_batches_are_slices_in_order_and_the_same_each_epoch(torch: Any) -> None:
    from tensordict import TensorDict
    from verl.utils.tensordict_utils import make_iterator

    data = TensorDict({"row": torch.arange(6)}, batch_size=[6])
    found = [part["row"].tolist() for part in make_iterator(data, 2, 2, 42, {"shuffle": False})]
    assert found == [[0, 1], [2, 3], [4, 5]] * 2
    with pytest.raises(AssertionError):
        make_iterator(data, 4, 1, 42, {"shuffle": False})


def test_a_worker_makes_one_step_a_mini_batch_and_reports_a_norm_for_each(torch: Any) -> None:
    """`medserl/optimizer_steps` counts these norms. The learning rate moves with the last one."""
    from contextlib import nullcontext

    from tensordict import TensorDict
    from verl.utils import tensordict_utils as tu
    from verl.workers.engine_workers import TrainingWorker

    worker: Any = object.__new__(TrainingWorker)
    seen: list[tuple[list[int], bool]] = []
    worker.engine = SimpleNamespace(
        get_data_parallel_size=lambda: 2,
        get_data_parallel_rank=lambda: 0,
        train_mode=lambda **kwargs: nullcontext(),
        is_mp_src_rank_with_outputs=lambda: True,
    )
    worker.profiler = SimpleNamespace(step=lambda: None)

    def train_batch(part: TensorDict) -> TensorDict:
        seen.append((part["row"].tolist(), tu.get(part, "update_lr_scheduler")))
        return tu.get_tensordict({}, {"metrics": {"grad_norm": float(len(seen)), "mfu": 0.0}})

    worker.train_batch = train_batch
    data = tu.get_tensordict(
        {"row": torch.arange(6)},
        {"mini_batch_size": 4, "epochs": 2, "seed": 1, "dataloader_kwargs": {"shuffle": False}},
    )
    method = TrainingWorker.train_mini_batch
    output = getattr(method, "__wrapped__", method)(worker, data)
    assert [rows for rows, _ in seen] == [[0, 1], [2, 3], [4, 5]] * 2
    assert [moved for _, moved in seen] == [False] * 5 + [True]
    assert output["metrics"]["grad_norm"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


# ---------------------------------------------------------------- the loss


def test_token_mean_weighs_tokens_of_the_whole_mini_batch_alike(torch: Any) -> None:
    from verl.trainer.ppo.core_algos import agg_loss

    loss = torch.tensor([[1.0, 2.0, 3.0], [5.0, 99.0, 99.0], [99.0] * 3])
    mask = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    assert agg_loss(loss, mask, "token-mean").item() == pytest.approx(11 / 4)
    # A rank's share: of two ranks and ten tokens in all.
    assert agg_loss(loss, mask, "token-mean", dp_size=2, batch_num_tokens=10).item() == pytest.approx(2 * 11 / 10)


def clipped(torch: Any, ratio: float, advantage: float) -> tuple[float, float]:
    """The loss of one token, and its derivative by the log-probability."""
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
    from verl.workers.config import ActorConfig

    config = ActorConfig(strategy="megatron", rollout_n=1, ppo_micro_batch_size_per_gpu=1, clip_ratio=0.2)
    log_prob = torch.tensor([[ratio]]).log().requires_grad_()
    loss, _ = compute_policy_loss_vanilla(
        torch.zeros(1, 1), log_prob, torch.tensor([[advantage]]), torch.ones(1, 1), "token-mean", config
    )
    loss.backward()
    return loss.item(), log_prob.grad.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),  # on policy: the plain policy gradient
        (1.1, 2.0, -2.2, -2.2),
        (1.3, 2.0, -2.4, 0.0),  # already likelier by more than 0.2
        (0.5, 2.0, -1.0, -1.0),  # has become less likely: no clip
        (0.7, -2.0, 1.6, 0.0),
        (1.3, -2.0, 2.6, 2.6),
        (4.0, -2.0, 6.0, 0.0),  # dual clip at 3
    ],
)
def test_the_clip(torch: Any, ratio: float, advantage: float, loss: float, slope: float) -> None:
    assert clipped(torch, ratio, advantage) == pytest.approx((loss, slope), abs=1e-5)


# ---------------------------------------------------------------- hooks


def test_when_weights_travel_and_vllm_sleeps(made: Any) -> None:
    trainer = made.made_trainer(number=7)
    called: list[Any] = []
    trainer.checkpoint_manager = SimpleNamespace(
        update_weights=lambda step: called.append(("weights", step)), sleep_replicas=lambda: called.append("sleep")
    )
    trainer.curr_step_profile, trainer.timing_raw = False, {}
    trainer.on_init_end()
    trainer.on_sample_end()
    trainer.on_step_end()
    assert called == [("weights", 7), "sleep", ("weights", 7)]
    assert "update_weights" in trainer.timing_raw


def test_rows_are_announced_as_pending_and_sent_to_the_agent_loops(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    sent: list[Any] = []
    trainer.trainer_mode = "sync"
    trainer.agent_loop_manager = SimpleNamespace(generate_sequences=sent.append)
    from medserl.data.rounds import RoundSource

    trainer.round.tasks = trainer._tasks(RoundSource(trainer.settings).next_round())
    trainer._add_batch_to_generate()
    assert set(queue.tags) == set(trainer.round.tasks)
    assert all(tag == {"is_prompt": True, "status": "pending", "global_steps": 1} for tag in queue.tags.values())
    assert all(row == {} for row in queue.rows.values())  # tasks, and with them notes, do not go through the queue
    assert [len(batch) for batch in sent] == [48]


def test_each_trajectory_is_stored_under_its_own_key_with_its_own_reward(
    torch: Any, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And verl alone would give all of a game's trajectories the last one's reward."""
    import transfer_queue
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    from medserl.training.agent_loop import SelfPlayWorker, _outputs

    stored: dict[str, Any] = {}

    async def put(keys: list[str], fields: Any, tags: list[dict[str, Any]], partition_id: str) -> None:
        for i, key in enumerate(keys):
            stored[key] = fields["reward_score" if "reward_score" in fields else "rm_scores"][i].sum().item()
            assert tags[i]["status"] == "success" and partition_id == "train" and "task" not in fields

    async def nothing(*args: Any, **kwargs: Any) -> None:
        for output in args[0] if args and isinstance(args[0], list) else []:
            output.extra_fields.setdefault("reward_extra_info", {})

    monkeypatch.setattr(transfer_queue, "async_kv_batch_put", put)
    game = made.made_game("a", made.Mode.ERROR, made.Label.INCORRECT, attempts=2, reward=0.75)
    for cls in (SelfPlayWorker, AgentLoopWorkerTQ.__ray_metadata__.modified_class):
        worker: Any = object.__new__(cls)
        worker._compute_score, worker._compute_teacher_logprobs = nothing, nothing
        worker._compute_multi_modal_inputs = lambda *args: {}
        worker._compute_position_ids = lambda ids, mask, extra: torch.arange(ids.shape[1]).unsqueeze(0)
        row = {"uid": "r000001n00000", "session_id": 0, "global_steps": 1}
        row |= {"task": object()} if cls is SelfPlayWorker else {}
        asyncio.run(worker._agent_loop_postprocess(_outputs(game), False, **row))
        if cls is SelfPlayWorker:
            assert stored == {"r000001n00000_0_0": 0.0, "r000001n00000_1_0": -0.75, "r000001n00000_2_0": 0.75}
        else:
            assert stored == {"r000001n00000_0_0": 0.75, "r000001n00000_0_1": 0.75, "r000001n00000_0_2": 0.75}
        stored.clear()


def test_padding_is_in_none_of_the_rounds_metrics(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    trainer._rollout_moe_lb_metrics_accumulator = None
    trainer.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
    games = [made.duel("a", reward=1.0), made.duel("b", made.Mode.BENIGN, reward=0.5)]
    games += [made.gold("g", made.Label.CORRECT, -1.0)]
    metrics: dict[str, Any] = {}
    batch = trainer._balance_batch(made.play(trainer, queue, games), metrics)
    for key in batch.keys:
        queue.rows[key]["num_turns"] = 1
        queue.tags[key] |= {"min_global_steps": 0, "max_global_steps": 0}
    batch = trainer._compute_advantage(batch, metrics)
    trainer._compute_metrics(batch, metrics, {"step": 1.0, "gen": 1.0}, global_steps=1, epoch=0)
    assert metrics["critic/score/mean"] == pytest.approx((1.0 - 1.0 + 0.5 - 0.5 - 1.0) / 5)
    assert metrics["critic/score/min"] == -1.0
    assert metrics["response_length/mean"] == pytest.approx((6 + 3 + 6 + 3 + 3) / 5)
