"""What the GPU configurations resolve to: every setting that a GPU run would fail on, or waste half of itself with."""

import functools
import importlib.util
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from medserl.config.load import available_configs, configs_dir, is_sft_config, load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.planning.gpus import find_gpu
from medserl.planning.job import job_of
from medserl.planning.memory import ROLLOUT as ROLLOUT_PHASE
from medserl.planning.memory import need_of
from medserl.planning.shapes import find_shape
from medserl.preflight.devices import check_attention
from medserl.preflight.layout import check_layout

NOTES = "medserl.notes.path=notes.jsonl"
ROOT = Path(__file__).resolve().parents[2]
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"


@functools.cache
def resolved(name: str, *overrides: str) -> DictConfig:
    load = load_sft_config if is_sft_config(name) else load_config
    return load(name, [NOTES, *overrides])


TRAIN = ["embedded_gpu", "qwen3_0.6b_debug", "qwen3_4b_1gpu", "qwen3_4b_1node", "qwen3_4b_multinode"]
GPU = [*TRAIN, "sft_qwen3_4b"]


def engines(config: DictConfig) -> list[DictConfig]:
    """The Megatron sections of a configuration: actor and reference, or the warm start's."""
    if "engine" in config:
        return [config.engine]
    return [config.actor_rollout_ref.actor.megatron, config.actor_rollout_ref.ref.megatron]


def test_there_is_a_configuration_for_each_machine() -> None:
    on_gpus = [name for name in available_configs() if resolved(name).trainer.device == "cuda"]
    assert set(GPU) == set(on_gpus), "all of them are tested below"
    assert [name for name in GPU if not is_sft_config(name)] == TRAIN
    for name in ("qwen3_4b_1gpu", "qwen3_0.6b_debug", "embedded_gpu"):
        assert resolved(name).trainer.nnodes * resolved(name).trainer.n_gpus_per_node == 1


@pytest.mark.parametrize("name", GPU)
def test_transformer_engine_finds_an_attention(name: str) -> None:
    """verl's default, flash, switches all others off, and the package that it needs is not among the pins."""
    pins = (ROOT / "requirements" / "gpu.txt").read_text()
    assert "flash-attn==" not in pins
    backends = {engine.override_transformer_config.attention_backend for engine in engines(resolved(name))}
    assert len(backends) == 1 and backends <= {
        "fused",
        "auto",
    }  # actor and reference share a process, and Megatron asks
    check_attention(resolved(name))


@pytest.mark.parametrize("name", GPU)
def test_rope_and_swiglu_are_fused(name: str) -> None:
    for engine in engines(resolved(name)):
        own = engine.override_transformer_config
        assert own.apply_rope_fusion and own.bias_activation_fusion
        assert not own.get("gradient_accumulation_fusion")  # the output layer raises without apex


@pytest.mark.parametrize("name", available_configs())
def test_no_configuration_sets_what_has_no_effect(name: str) -> None:
    text = (configs_dir() / f"{name}.yaml").read_text()
    assert "betas" not in text and "enable_gradient_checkpointing:" not in text
    config = resolved(name)
    if "engine" not in config:
        assert not config.actor_rollout_ref.actor.calculate_entropy  # the old log-probs' pass reports it anyway
        if config.actor_rollout_ref.rollout.log_prob_use_dynamic_bsz:
            assert config.actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu is None


@pytest.mark.parametrize("name", TRAIN)
def test_a_rollout_takes_no_more_than_it_needs(name: str) -> None:
    config = resolved(name)
    check_layout(config)
    rollout = config.actor_rollout_ref.rollout
    assert rollout.max_model_len == config.data.max_prompt_length + config.data.max_response_length
    assert rollout.tensor_model_parallel_size == 1
    for engine in engines(config):
        assert engine.entropy_from_logits_with_chunking


def test_vllms_new_runner_is_still_what_qwen3_gets_and_its_graphs_are_counted() -> None:
    """It counts its CUDA graphs as none, so that they come on top of its share of the GPU."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "config" / "vllm.py").read_text()
    assert '"Qwen3ForCausalLM"' in text.partition("DEFAULT_V2_MODEL_RUNNER_ARCHITECTURES = ")[2].partition(")")[0]
    gpu, shape = find_gpu("h100-80gb").memory, find_shape("qwen3-4b", "test")
    awake = need_of(job_of(resolved("qwen3_4b_1node")), shape, gpu).phase(ROLLOUT_PHASE).parts
    share = sum(awake[part] for part in ("vLLM weights", "vLLM workspace", "KV cache"))
    assert share == pytest.approx(0.6 * gpu) and awake["CUDA graphs"] > 2**30
    assert awake["CUDA graphs"] + awake["contexts"] > 3.5 * 2**30  # contexts of two processes, NCCL, workspaces
    eager = job_of(resolved("qwen3_4b_1node", f"{ROLLOUT}.enforce_eager=true"))
    assert "CUDA graphs" not in need_of(eager, shape, gpu).phase(ROLLOUT_PHASE).parts


@pytest.mark.parametrize("name", [name for name in TRAIN if name.startswith("qwen3_4b")])
def test_long_responses_are_recomputed_where_megatron_reads_it(name: str) -> None:
    own = resolved(name).actor_rollout_ref.actor.megatron.override_transformer_config
    assert (own.recompute_granularity, own.recompute_method, own.recompute_num_layers) == ("full", "uniform", 1)


@pytest.mark.parametrize("key", ["enable_gradient_checkpointing=false", "enable_activation_offload=true"])
def test_what_verls_other_engine_reads_is_refused_beside_megatron(key: str) -> None:
    for load, name, model in (
        (load_config, "embedded", "actor_rollout_ref.model"),
        (load_sft_config, "sft_embedded", "model"),
    ):
        with pytest.raises(ConfigError, match=rf"^{model}\.{key.partition('=')[0]}: .* has no effect; Megatron reads "):
            load(name, [f"{model}.{key}"])
    load_config("embedded", ["model_engine=dp", f"actor_rollout_ref.model.{key}"])


def test_the_tiny_model_does_not_take_the_whole_gpu() -> None:
    rollout = resolved("embedded_gpu").actor_rollout_ref.rollout
    assert rollout.engine_kwargs.vllm.kv_cache_memory_bytes == 2**30
    assert rollout.checkpoint_engine.update_weights_bucket_megabytes <= 64


def test_a_longer_answer_makes_vllms_context_longer() -> None:
    config = load_config("qwen3_4b_1node", [NOTES, "data.max_response_length=4096"])
    assert config.actor_rollout_ref.rollout.max_model_len == 1536 + 4096
    assert load_config("embedded", [f"{ROLLOUT}.max_model_len=512"]).actor_rollout_ref.rollout.max_model_len == 512


@pytest.mark.parametrize("part", ["actor", "ref"])
def test_flash_without_its_package_is_refused(part: str) -> None:
    key = f"actor_rollout_ref.{part}.megatron.override_transformer_config.attention_backend"
    with pytest.raises(ConfigError, match=r"attention_backend: flash needs the package flash-attn"):
        check_attention(resolved("qwen3_4b_1node", f"++{key}=flash"))
    with pytest.raises(ConfigError, match="'flsh' is not one of auto, fused"):
        check_attention(resolved("qwen3_4b_1node", f"++{key}=flsh"))


def test_betas_are_refused_and_what_works_reaches_megatron() -> None:
    for load, prefix, extra in (
        (load_config, f"{ACTOR}.optim", "embedded"),
        (load_sft_config, "optim", "sft_embedded"),
    ):
        with pytest.raises(ConfigError, match=rf"{prefix}\.betas: \[0\.9, 0\.95\] has no effect; .*adam_beta1"):
            load(extra, [f"{prefix}.betas=[0.9,0.95]"])
        config = load(extra, [f"+{prefix}.override_optimizer_config.adam_beta2=0.95"])
        assert OmegaConf.select(config, f"{prefix}.override_optimizer_config.adam_beta2") == 0.95
