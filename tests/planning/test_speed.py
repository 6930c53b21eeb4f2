"""Seconds, ways to split and scaling: what must follow from what, whatever the assumptions."""

import dataclasses
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.config.load import load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.planning.assumptions import Assumptions, assume
from medserl.planning.choices import Choice, choices
from medserl.planning.gpus import find_gpu
from medserl.planning.job import Job, job_of
from medserl.planning.memory import GIB, need_of
from medserl.planning.scaling import NODES, scaling
from medserl.planning.shapes import find_shape
from medserl.planning.speed import Seconds, seconds_of, trajectories
from medserl.ward import model_dir

QWEN3_4B = find_shape("qwen3-4b", "--model")
ROWS = (
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=2",
    "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=2",
)
H100, A100 = find_gpu("h100-80gb"), find_gpu("a100-80gb")


@cache
def job(name: str = "qwen3_4b_1node", *overrides: str) -> Job:
    load = load_sft_config if name.startswith("sft") else load_config
    return job_of(load(name, ["medserl.notes.path=x", *overrides]))


def seconds(asked: Job, gpu=H100, **changes: float) -> Seconds:  # type: ignore[no-untyped-def]
    assumed = dataclasses.replace(Assumptions(), **changes)
    return seconds_of(asked, QWEN3_4B, gpu, need_of(asked, QWEN3_4B, gpu.memory), assumed)


@cache
def ranked(name: str = "qwen3_4b_1node") -> list[Choice]:
    return choices(job(name), QWEN3_4B, H100, None, Assumptions())


def test_replies_of_a_round() -> None:
    """64 notes, 40 % of edits accepted, three attempts: 1 + 0.6 + 0.36 of them, 0.784 assessments, and 16 labelled."""
    assert trajectories(job(), Assumptions()) == pytest.approx(64 * (1.96 + 0.784) + 16)
    assert trajectories(job(), dataclasses.replace(Assumptions(), acceptance=1.0)) == 64 * 2 + 16


def test_the_update_by_hand() -> None:
    """TP 1, one GPU, no recomputation: 6 FLOP a token and element, and attention, over the assumed speed."""
    one = job("qwen3_4b_1gpu").with_training(recomputes=False)
    found = seconds(one, mfu=0.5)
    length = 0.5 * 1536 + 0.4 * 2048
    tokens = found.trajectories * length * one.round.epochs
    flops = 6 * (36 * QWEN3_4B.matrices + QWEN3_4B.embedding) + 3 * 36 * 2 * 32 * 128 * length
    assert found.work["matrices"] == pytest.approx(tokens * flops / (H100.flops * 0.5))
    assert found.work["tensor-parallel sums"] == found.work["gradients"] == 0
    again = seconds(job("qwen3_4b_1gpu"), mfu=0.5).work["matrices"]
    assert 1.25 < again / found.work["matrices"] < 4 / 3


def test_a_critic_takes_what_the_policy_does_but_for_the_logits() -> None:
    """A pass for its values, and an update; the rest of a round is as it was."""
    gae = "algorithm.adv_estimator=gae"
    plain, both = seconds(job()), seconds(job("qwen3_4b_1node", gae))
    assert plain.critic == 0 and both.update == plain.update and both.log_probs == plain.log_probs
    assert 0.9 * plain.update < both.critic < plain.update + plain.log_probs / 2
    assert both.save > plain.save
    twice = seconds(job("qwen3_4b_1node", gae, "critic.ppo_epochs=4"))
    assert 1.6 < twice.critic / both.critic < 2
    half = dataclasses.replace(job("qwen3_4b_1node", gae).critic, mini=16)
    assert seconds(dataclasses.replace(job("qwen3_4b_1node", gae), critic=half)).critic > both.critic


def test_the_critics_optimizer_is_gathered_for_a_checkpoint_too() -> None:
    """Over gloo, as the policy's: all of a save takes twice as long."""
    plain, both = seconds(job()), seconds(job("qwen3_4b_1node", "algorithm.adv_estimator=gae"))
    assert both.save == pytest.approx(2 * plain.save, rel=0.01)


def test_engines_without_a_game_make_no_round_shorter() -> None:
    """A game's replies come one after the other, however many engines there are: 80 games, eight engines a node."""
    asked = job()
    times = [seconds(asked.with_training(nodes=nodes)).rollout for nodes in (1, 2, 4, 8, 10, 16, 64, 1024)]
    assert times == sorted(times, reverse=True) and times[3] > times[4] == times[5] == times[7]
    turns = trajectories(asked, Assumptions()) / (asked.round.fresh + asked.round.labelled)
    reply = 0.4 * asked.round.response * Assumptions().step
    assert times[-1] > turns * reply


@pytest.mark.parametrize(("pp", "micro"), [(1, 4), (2, 8)])
def test_micro_batches_of_rows_are_counted_in_rows(pp: int, micro: int) -> None:
    """64 rows a step: 16 of each of four replicas, four at a time; 32 of each of two."""
    asked = job("sft_qwen3_4b").with_training(pp=pp)
    assert asked.training.rows == 4 and asked.training.tokens == 4 * 2048
    found, none = seconds(asked), seconds(asked, launch=1e-12)
    launches = (found.work["micro-batches"] - none.work["micro-batches"]) / (1.5e-4 * 36 / pp)
    assert launches == pytest.approx(micro * 3)
    bubble = found.work["pipeline's bubble"] / (found.work["matrices"] + found.work["tensor-parallel sums"])
    assert bubble == pytest.approx((pp - 1) / micro)


def test_so_are_those_of_a_training_without_dynamic_ones() -> None:
    by_rows = job("qwen3_4b_1node", "actor_rollout_ref.actor.use_dynamic_bsz=false", *ROWS)
    assert by_rows.training.rows == 2 and by_rows.training.tokens == 2 * 3584
    filled = job().with_training(tokens=2 * 3584)
    assert seconds(by_rows).work["micro-batches"] > seconds(filled).work["micro-batches"]
    assert {choice.job.training.tokens for choice in choices(by_rows, QWEN3_4B, H100, None, Assumptions())} == {7168}


def test_many_attempts_are_no_long_sum() -> None:
    many = dataclasses.replace(job(), round=dataclasses.replace(job().round, attempts=10**15))
    assert trajectories(many, Assumptions()) == pytest.approx(64 * (1 / 0.4 + 1) + 16)


def test_stages_of_unequal_length_wait_for_the_longest() -> None:
    even = job("qwen3_4b_multinode")
    forward = seconds(even).work["matrices"]
    for last, faster in ((17, True), (16, True), (9, False), (25, False)):
        assert (seconds(even.with_training(last_layers=last)).work["matrices"] < forward) is faster


def test_a_better_machine_is_faster() -> None:
    for name in ("qwen3_4b_1node", "qwen3_4b_1gpu", "qwen3_4b_multinode"):
        assert seconds(job(name), H100).round < seconds(job(name), A100).round
    assert seconds(job(), mfu=0.5).update < seconds(job(), mfu=0.4).update
    assert seconds(job(), bandwidth=0.9).rollout < seconds(job(), bandwidth=0.5).rollout
    assert seconds(job(), disk=4e9).save < seconds(job(), disk=1e9).save


def test_mfu_is_what_is_useful_of_the_time() -> None:
    found = seconds(job())
    assert 0.1 < found.mfu < 0.4
    assert seconds(job().with_training(recomputes=False)).mfu > found.mfu


def test_a_warm_start_only_updates() -> None:
    found = seconds(job("sft_qwen3_4b"))
    assert found.rollout == found.log_probs == found.transfer == 0 < found.update


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([4096, 24576]), st.integers(1, 6))
def test_every_time_is_positive_and_more_work_takes_longer(tp: int, pp: int, tokens: int, times: int) -> None:
    asked = job().with_training(tp=tp, pp=pp, tokens=tokens, nodes=4)
    found = seconds(asked)
    assert min(found.rollout, found.log_probs, found.update, found.transfer, found.save) > 0
    work = dataclasses.replace(asked.round, fresh=64 * (times + 1), labelled=16 * (times + 1))
    more = seconds(dataclasses.replace(asked, round=work))
    assert more.update > found.update and more.log_probs > found.log_probs and more.rollout >= found.rollout


def test_the_best_is_first_and_every_loser_has_a_reason() -> None:
    found = ranked()
    assert found[0].fits and not found[0].reason
    assert all(choice.reason for choice in found[1:])
    times = [choice.seconds.round for choice in found if choice.seconds is not None]
    assert times == sorted(times, key=lambda time: round(time, 2)) and len(times) > 10
    assert all(choice.job.training.dp * choice.job.training.tp * choice.job.training.pp == 8 for choice in found)


def test_reasons_name_what_is_wrong() -> None:
    found = {(choice.job.training.tp, choice.job.training.pp): choice for choice in reversed(ranked())}
    assert "36 layers cannot be divided by PP 8" in found[1, 8].reason
    assert "s slower: tensor-parallel sums" in found[8, 1].reason
    one = choices(job("qwen3_4b_1gpu"), QWEN3_4B, find_gpu("a100-40gb"), None, Assumptions())
    assert all(
        "its update phase needs" in choice.reason or "less than 5%" in choice.reason
        for choice in one
        if not choice.fits
    )
    many = choices(job().with_training(nodes=64), QWEN3_4B, H100, None, Assumptions())
    assert any("a mini-batch of 32 trajectories cannot be divided by DP" in choice.reason for choice in many)
    small = choices(job(), QWEN3_4B, H100, 64 * GIB, Assumptions())
    assert any("a checkpoint takes about" in choice.reason for choice in small)
    assert not any(choice.fits for choice in small)
    heads = choices(job(), find_shape("qwen2.5-1.5b", "x"), H100, None, Assumptions())
    assert any("num_key_value_heads 2 cannot be divided" in choice.reason for choice in heads)


def test_a_smaller_share_for_vllm_is_tried() -> None:
    """TP 1 on 80 GB leaves too little for 60 % of the GPU, and enough for less."""
    one = next(choice for choice in ranked() if (choice.job.training.tp, choice.job.training.pp) == (1, 1))
    assert one.fits and one.job.rollout is not None and one.job.rollout.share < 0.6
    assert f"vLLM's share {one.job.rollout.share:g}" in one.name


def test_strong_scaling_loses_efficiency_and_weak_scaling_keeps_it() -> None:
    strong = scaling(job(), QWEN3_4B, H100, None, Assumptions(), weak=False)
    weak = scaling(job(), QWEN3_4B, H100, None, Assumptions(), weak=True)
    assert [point.nodes for point in strong] == [point.nodes for point in weak] == list(NODES)
    rates = [point.choice.seconds.round for point in strong if point.choice and point.choice.seconds]
    assert rates == sorted(rates, reverse=True) and len(rates) == len(NODES)
    last, wide = strong[-1].efficiency, weak[-1].efficiency
    assert last is not None and wide is not None and last < 0.2 < 0.8 < wide <= 1.05
    assert strong[0].efficiency == 1.0 and "rollout" in strong[1].why


def test_no_loss_is_named_where_there_is_none() -> None:
    """The tiny model's round that grows with the nodes takes as long."""
    asked, tiny = job_of(load_config("embedded_gpu")), find_shape(str(model_dir()), "x")
    points = scaling(asked, tiny, H100, None, Assumptions(), weak=True)
    assert [point.why for point in points] == [""] * len(NODES)


def test_where_nothing_fits_scaling_says_so() -> None:
    points = scaling(job(), find_shape("qwen3-32b", "x"), find_gpu("l4-24gb"), None, Assumptions(), weak=False)
    assert points[0].choice is None and points[0].why


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("mfuu=0.3", "there is no such assumption; known: mfu, bandwidth"),
        ("mfu", "'' is not a number above 0"),
        ("mfu=fast", "'fast' is not a number above 0"),
        ("mfu=-1", "'-1' is not a number above 0"),
        ("mfu=nan", "'nan' is not a number above 0"),
        ("mfu=40", "--assume mfu=40: must be a share, a number above 0 and up to 1"),
        ("tail=2", "--assume tail=2: must be a share"),
    ],
)
def test_assumptions_that_are_none(word: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        assume([word])
    assert sentence in str(error.value) and word in str(error.value)


def test_assumptions_can_be_replaced() -> None:
    assert assume(["mfu=0.31", "network=1e11"]) == dataclasses.replace(Assumptions(), mfu=0.31, network=1e11)
    assert all(why for _, _, why in Assumptions().named())
