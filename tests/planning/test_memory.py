"""The sums of GPU and host memory against what is known of models, Megatron and vLLM."""

import dataclasses
import json
import re
import struct
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig

from medserl.config.load import load_config, load_sft_config
from medserl.planning.fits import gpu_misfit, host_misfit
from medserl.planning.gpus import find_gpu
from medserl.planning.job import Job, job_of
from medserl.planning.memory import CRITIC, FROZEN, GIB, LOG_PROBS, ROLLOUT, SAVE, TRANSFER, UPDATE, Need, need_of
from medserl.planning.shapes import find_shape
from medserl.ward import model_dir

NOTES = "medserl.notes.path=x"
ACTOR, ROLLOUT_KEYS = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
QWEN3_4B = find_shape("qwen3-4b", "--model")
QWEN3_06B = find_shape("qwen3-0.6b", "--model")
WARD = find_shape(str(model_dir()), "--model")
H100 = find_gpu("h100-80gb").memory
# Configuration, model, intended GPU, one that is too small and the phase that does not fit there.
SHIPPED = (
    ("qwen3_4b_1node", QWEN3_4B, "h100-80gb", "a100-40gb", "update"),
    ("qwen3_4b_multinode", QWEN3_4B, "a100-80gb", "a10-24gb", "update"),
    ("qwen3_4b_1gpu", QWEN3_4B, "h100-80gb", "a100-40gb", "update"),
    ("qwen3_0.6b_debug", QWEN3_06B, "rtx4090-24gb", None, ""),
    ("embedded_gpu", WARD, "l4-24gb", None, ""),
    ("sft_qwen3_4b", QWEN3_4B, "a100-80gb", "l4-24gb", "update"),
)


@cache
def resolved(name: str, *overrides: str) -> DictConfig:
    load = load_sft_config if name.startswith("sft") else load_config
    return load(name, [NOTES, *overrides])


def job(name: str, *overrides: str) -> Job:
    return job_of(resolved(name, *overrides))


def need(name: str, *overrides: str, gpu: float | None = H100) -> Need:
    return need_of(job(name, *overrides), QWEN3_4B, gpu)


def test_parameters_of_the_models_own_weights() -> None:
    """Counted in the headers of the safetensors that lie in the package."""
    total = 0
    for path in model_dir().glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= dimension
                total += size
    assert WARD.parameters == total


def test_the_pages_table_has_the_planners_figures() -> None:
    """Of an update and of a rollout, and of a save where the page names one."""
    page = (Path(__file__).resolve().parents[2] / "docs/gpu.md").read_text(encoding="utf-8")
    rows = {found[1]: found[2] for found in re.finditer(r"^\| `(\w[\w.]*)` \|.*\| ([^|]*GiB[^|]*) \|$", page, re.M)}
    assert set(rows) == {row[0] for row in SHIPPED}
    for name, model, gpu, _, _ in SHIPPED:
        asked = job(name) if name != "embedded_gpu" else job_of(load_config(name))
        found = need_of(asked, model, find_gpu(gpu).memory)
        phases = (UPDATE, *((ROLLOUT,) if asked.rollout else ()), *((SAVE,) if "save" in rows[name] else ()))
        told = re.findall(r"\d+(?:\.\d+)?", rows[name])
        figures = [found.phase(phase).total / GIB for phase in phases]
        wanted = [f"{size:.{len(word.partition('.')[2])}f}" for size, word in zip(figures, told, strict=True)]
        assert told == wanted, name


@pytest.mark.parametrize(("name", "model", "gpu", "small", "phase"), SHIPPED, ids=[row[0] for row in SHIPPED])
def test_each_configuration_fits_its_gpu_and_no_smaller_one(
    name: str, model: object, gpu: str, small: str | None, phase: str
) -> None:
    asked = job(name) if name != "embedded_gpu" else job_of(load_config(name))
    for kind in (gpu, small):
        if kind is None:
            continue
        memory = find_gpu(kind).memory
        reason = gpu_misfit(asked, need_of(asked, model, memory), memory, f"{kind} has")
        if kind == gpu:
            assert reason is None
        else:
            assert reason is not None and f"{phase} needs about" in reason and f"{kind} has" in reason


def test_resident_memory_of_one_node() -> None:
    """TP 2 x DP 4: 2 + 4 + 12/4 bytes for each of 2.011e9 parameters, and the reference's 2."""
    rollout = need("qwen3_4b_1node").phase(ROLLOUT).parts
    kept = sum(rollout[part] for part in ("weights", "gradients", "optimizer", "reference"))
    assert kept == pytest.approx(22.1e9, rel=0.01)
    two = need("qwen3_4b_1node", "trainer.n_gpus_per_node=2").phase(ROLLOUT).parts
    assert sum(two[part] for part in ("weights", "gradients", "optimizer", "reference")) > 40e9


def test_two_gpus_of_one_node_need_a_smaller_share() -> None:
    two = ("trainer.n_gpus_per_node=2",)
    reason = gpu_misfit(job("qwen3_4b_1node", *two), need("qwen3_4b_1node", *two), H100, "it has")
    assert reason is not None and reason.startswith("a rollout needs about") and "gpu_memory_utilization" in reason
    less = (*two, f"{ROLLOUT_KEYS}.gpu_memory_utilization=0.35")
    assert gpu_misfit(job("qwen3_4b_1node", *less), need("qwen3_4b_1node", *less), H100, "it has") is None


def test_one_gpu_needs_its_optimizer_on_the_host() -> None:
    one = need("qwen3_4b_1gpu")
    update = one.phase(UPDATE).parts
    assert update["optimizer"] == 0
    assert update["weights"] + update["gradients"] == pytest.approx(24.1e9, rel=0.01)
    assert one.phase(ROLLOUT).parts["weights"] == 0
    assert one.host.peak < 256 * GIB
    key = f"{ACTOR}.optim.override_optimizer_config.optimizer_cpu_offload=false"
    assert need("qwen3_4b_1gpu", key).phase(UPDATE).total > H100
    # Without the precision-aware optimizer the GPU keeps a float32 copy of the weights.
    key = f"{ACTOR}.optim.use_precision_aware_optimizer=false"
    assert need("qwen3_4b_1gpu", key).phase(UPDATE).parts["optimizer"] == pytest.approx(16.1e9, rel=0.01)


def test_a_save_finds_vllm_awake_beside_weights_that_were_on_the_host() -> None:
    """verl loads weights and gradients for a save, and the round's new weights have gone to vLLM before it."""
    one = need("qwen3_4b_1gpu")
    more = one.phase(SAVE).total - one.phase(ROLLOUT).total
    assert more == pytest.approx(24.1e9, rel=0.01)
    asked = job("qwen3_4b_1gpu", f"{ROLLOUT_KEYS}.gpu_memory_utilization=0.7")
    reason = gpu_misfit(asked, need_of(asked, QWEN3_4B, H100), H100, "it has")
    assert reason is not None and reason.startswith("a save needs about")


def test_entropy_costs_logits() -> None:
    plain = need("qwen3_4b_1node")
    wasted = need("qwen3_4b_1node", f"{ACTOR}.calculate_entropy=true")
    logits = 4 * 24576 * 151936 / 2
    assert wasted.phase(UPDATE).parts["logits"] - plain.phase(UPDATE).parts["logits"] == pytest.approx(1.5 * logits)
    whole = need("qwen3_4b_1node", f"{ACTOR}.entropy_from_logits_with_chunking=false")
    assert whole.phase(LOG_PROBS).total - plain.phase(LOG_PROBS).total == pytest.approx(logits)


def test_the_last_stage_has_the_logits_and_the_first_keeps_more_layers() -> None:
    asked = job("qwen3_4b_multinode")
    found = need_of(asked, QWEN3_4B, H100)
    assert found.phase(UPDATE).stage == 1
    few = dataclasses.replace(asked, training=dataclasses.replace(asked.training, recomputes=False, tokens=256))
    assert need_of(few, QWEN3_4B, H100).phase(UPDATE).stage == 0


def test_recomputation_keeps_one_hidden_state_a_layer() -> None:
    full = need("qwen3_4b_1node").phase(UPDATE).parts["activations"]
    per_layer = 2 * 24576 * 2560 / 2
    assert full == pytest.approx(36 * per_layer + 17 * per_layer)
    key = f"{ACTOR}.megatron.override_transformer_config.recompute_granularity=null"
    assert need("qwen3_4b_1node", key).phase(UPDATE).parts["activations"] == pytest.approx(36 * 17 * per_layer)


def test_the_kv_cache_must_hold_one_sequence() -> None:
    asked = job("qwen3_4b_1node", f"{ROLLOUT_KEYS}.gpu_memory_utilization=0.11")
    found = need_of(asked, QWEN3_4B, H100)
    assert found.cache is not None and found.cache.needed == 2 * 2 * 36 * 8 * 128 * 3584
    reason = gpu_misfit(asked, found, H100, "it has")
    assert reason is not None and "one sequence of" in reason and "max_model_len 3584" in reason
    fixed = job("qwen3_4b_1node", f"+{ROLLOUT_KEYS}.engine_kwargs.vllm.kv_cache_memory_bytes=1000000")
    assert gpu_misfit(fixed, need_of(fixed, QWEN3_4B, H100), H100, "it has") is not None


def test_what_is_advised_would_help() -> None:
    """A smaller cache or buffer where that is enough, more or larger GPUs where vLLM's weights alone are too much."""
    big, l4 = find_shape("qwen3-32b", "--model"), find_gpu("l4-24gb").memory
    asked = job("qwen3_4b_1node")
    reason = gpu_misfit(asked, need_of(asked, big, l4), l4, "it has")
    assert reason is not None and "weights and workspace take 64.1 GiB of each GPU of 22.5 GiB" in reason
    assert "raise actor_rollout_ref.rollout.tensor_model_parallel_size, or lower its max_num_seqs" in reason
    many = job("qwen3_4b_1node", f"{ROLLOUT_KEYS}.max_num_seqs=100000")
    reason = gpu_misfit(many, need_of(many, QWEN3_4B, H100), H100, "it has")
    assert reason is not None and "lower its max_num_seqs" in reason
    fixed = job("qwen3_4b_1node", f"+{ROLLOUT_KEYS}.engine_kwargs.vllm.kv_cache_memory_bytes=1000000")
    reason = gpu_misfit(fixed, need_of(fixed, QWEN3_4B, H100), H100, "it has")
    assert reason is not None and "kv_cache_memory_bytes" in reason and reason.endswith("raise it")
    fixed = job("qwen3_4b_1node", f"+{ROLLOUT_KEYS}.engine_kwargs.vllm.kv_cache_memory_bytes=100000000000")
    reason = gpu_misfit(fixed, need_of(fixed, QWEN3_4B, H100), H100, "it has")
    assert reason is not None and reason.endswith("; lower actor_rollout_ref.rollout.engine_kwargs.vllm.kv_cache_mem"
                                                  "ory_bytes")  # fmt: skip
    four = job("qwen3_4b_1node", f"{ACTOR}.megatron.tensor_model_parallel_size=4")
    reason = gpu_misfit(four, need_of(four, find_shape("qwen3-14b", "--model"), H100), H100, "it has")
    assert reason is not None and "transfer of weights needs" in reason and "raise TP, PP or" in reason


def test_a_vllm_that_does_not_sleep_is_counted_beside_the_trainer() -> None:
    sleeping, awake = need("qwen3_4b_1node"), need("qwen3_4b_1node", f"{ROLLOUT_KEYS}.free_cache_engine=false")
    vllm = sum(sleeping.phase(ROLLOUT).parts[part] for part in ("vLLM weights", "vLLM workspace", "KV cache"))
    for name in (LOG_PROBS, UPDATE):
        assert awake.phase(name).total == pytest.approx(sleeping.phase(name).total + vllm)
    assert awake.phase(ROLLOUT).total == sleeping.phase(ROLLOUT).total


def test_what_would_help_a_vllm_that_does_not_sleep() -> None:
    keep = f"{ROLLOUT_KEYS}.free_cache_engine=false"
    reason = gpu_misfit(job("qwen3_4b_1node", keep), need("qwen3_4b_1node", keep), H100, "it has")
    assert reason is not None and reason.startswith("an update needs about")
    assert f"set {ROLLOUT_KEYS}.free_cache_engine=true, or lower {ROLLOUT_KEYS}.gpu_memory_utilization" in reason
    wide = (keep, f"{ROLLOUT_KEYS}.gpu_memory_utilization=0.35")
    assert gpu_misfit(job("qwen3_4b_1node", *wide), need("qwen3_4b_1node", *wide), H100, "it has") is None
    large = find_shape("qwen3-32b", "--model")  # which would not fit without vLLM either
    reason = gpu_misfit(job("qwen3_4b_1node", keep), need_of(job("qwen3_4b_1node", keep), large, H100), H100, "it has")
    assert reason is not None and "free_cache_engine" not in reason


def test_float32_takes_twice_as_much_of_vllm() -> None:
    half, full = need("qwen3_4b_1node"), need("qwen3_4b_1node", f"{ROLLOUT_KEYS}.dtype=float32")
    weights = [each.phase(TRANSFER).parts["vLLM weights"] for each in (half, full)]
    assert weights[1] == 2 * weights[0]
    assert half.cache is not None and full.cache is not None and full.cache.needed == 2 * half.cache.needed


def test_without_a_known_gpu_vllms_share_is_left_out() -> None:
    assert [phase.name for phase in need("qwen3_4b_1node", gpu=None).phases] == [LOG_PROBS, UPDATE, TRANSFER, "load"]
    sft = [phase.name for phase in need("sft_qwen3_4b").phases]
    assert sft == [UPDATE, SAVE, "load"]


def test_a_frozen_model_fills_its_own_gpu() -> None:
    words = ("medserl.referee.name=judge", f"+medserl.referee.options.model={model_dir()}", "trainer.n_gpus_per_node=4")
    asked = job("qwen3_4b_1node", *words)
    assert asked.served is not None and asked.gpus == 5
    alone = need_of(asked, QWEN3_4B, H100).phase(FROZEN)
    assert alone.parts["vLLM weights"] == 2 * WARD.parameters
    assert alone.total < 0.65 * H100


def test_host_memory_of_a_checkpoint() -> None:
    """World tensors on one rank of each share at a save, on every rank at a load; none of them in the other form."""
    node = need("qwen3_4b_1node").host
    assert node.saving == pytest.approx(2 * 24 * 2.01e9 + 8 * 12 * 2.01e9 / 4, rel=0.01)
    assert node.loading == pytest.approx(8 * 24 * 2.01e9, rel=0.01)
    key = f"{ACTOR}.megatron.dist_ckpt_optim_fully_reshardable=false"
    assert need("qwen3_4b_1node", key).host.loading == pytest.approx(48e9, rel=0.01)
    reason = host_misfit(job("qwen3_4b_1node"), need("qwen3_4b_1node"), 256 * GIB, "a node has")
    assert reason is not None and "loading a checkpoint takes about" in reason and "a node has 256.0 GiB" in reason
    assert host_misfit(job("qwen3_4b_1node"), need("qwen3_4b_1node"), 512 * GIB, "a node has") is None


def test_a_checkpoint_has_fourteen_bytes_a_parameter() -> None:
    assert need("qwen3_4b_1node").host.checkpoint == 14 * 4_022_468_096


GAE = "algorithm.adv_estimator=gae"


def test_a_critic_lies_beside_the_policy() -> None:
    """TP 2 x DP 4: 2 + 4 + 12/4 bytes for each of its parameters, as many as the policy's, in every phase."""
    plain, both = need("qwen3_4b_1node"), need("qwen3_4b_1node", GAE)
    for name in (LOG_PROBS, UPDATE, TRANSFER, ROLLOUT, SAVE):
        more = both.phase(name).total - plain.phase(name).total
        assert more == both.phase(name).parts["critic"] == pytest.approx(9 * 2.011e9, rel=0.01), name
    update = both.phase(CRITIC).parts
    assert update["critic"] == both.phase(UPDATE).parts["critic"]
    assert update["activations"] == both.phase(UPDATE).parts["activations"] and "logits" not in update
    assert both.host.checkpoint == pytest.approx(2 * plain.host.checkpoint, rel=1e-4)
    reason = gpu_misfit(job("qwen3_4b_1node", GAE), both, H100, "it has")
    assert reason is not None and "critic 16.9 GiB" in reason
    less = (GAE, f"{ROLLOUT_KEYS}.gpu_memory_utilization=0.35")
    assert gpu_misfit(job("qwen3_4b_1node", *less), need("qwen3_4b_1node", *less), H100, "it has") is None


def test_a_critic_leaves_the_gpu_where_the_policy_does() -> None:
    plain, both = need("qwen3_4b_1gpu"), need("qwen3_4b_1gpu", GAE)
    assert both.phase(ROLLOUT).total == plain.phase(ROLLOUT).total
    assert both.phase(CRITIC).parts["critic"] == pytest.approx(24.1e9, rel=0.01)  # Adam is on the host
    assert both.host.always - plain.host.always == pytest.approx((2 + 12 + 4) * 4.022e9, rel=0.01)
    assert both.host.saving - plain.host.saving == both.host.always - plain.host.always


def test_a_critic_has_one_row_for_an_output_layer() -> None:
    assert QWEN3_4B.critic == QWEN3_4B.parameters + QWEN3_4B.hidden
    untied = find_shape("qwen3-8b", "--model")
    assert untied.critic == untied.parameters - untied.embedding + untied.hidden
    layers = (18, 18)
    both = sum(QWEN3_4B.critic_stage(1, layers, stage) for stage in range(2))
    assert both == QWEN3_4B.critic
    assert QWEN3_4B.critic_stage(1, layers, 1) < QWEN3_4B.stage(1, layers, 1)


def test_a_critic_of_a_run_on_cpus_counts_too() -> None:
    from medserl.planning.cpus import bytes_on_cpus

    plain, both = (bytes_on_cpus(job_of(load_config("embedded", given)), QWEN3_06B) for given in ([], [GAE]))
    workers, own = 2, QWEN3_06B.critic_stage(2, (28,), 0)
    assert both["critic"] == pytest.approx(workers * (2 + 4 + 12) * own)
    assert "critic" not in plain and sum(both.values()) >= sum(plain.values()) + both["critic"]
