"""What verl names and MedSeRL does not train: every estimator, rollout engine, trainer mode and engine of verl's own
lists, read from its sources, so that one that verl adds is refused too."""

import ast
import copy
import functools
import importlib.util
import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from medserl.config.load import load_config, load_sft_config
from medserl.config.refused import SFT_ONLY, TRAIN_ONLY, Only, check_supported
from medserl.errors import ConfigError

SPEC = importlib.util.find_spec("verl")
assert SPEC is not None and SPEC.origin is not None
VERL = Path(SPEC.origin).parent


def estimators() -> set[str]:
    tree = ast.parse((VERL / "trainer/ppo/core_algos.py").read_text())
    (names,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "AdvantageEstimator"]
    values = [node.value for node in names.body if isinstance(node, ast.Assign)]
    return {value.value for value in values if isinstance(value, ast.Constant)}


def found(pattern: str, files: str) -> set[str]:
    return {name for path in VERL.glob(files) for name in re.findall(pattern, path.read_text())}


NAMES = {
    "algorithm.adv_estimator": (estimators(), {"reinforce_plus_plus", "gae"}),
    "actor_rollout_ref.rollout.name": (
        found(r'RolloutReplicaRegistry\.register\("(\w+)"', "workers/rollout/replica.py"),
        {"vllm"},
    ),
    "trainer.v1.trainer_mode": (found(r'@register_trainer\("(\w+)"\)', "trainer/ppo/v1/*.py"), {"sync"}),
    "model_engine": ({path.stem for path in (VERL / "trainer/config/model_engine").glob("*.yaml")}, {"megatron", "dp"}),
}


@functools.cache
def whole() -> DictConfig:
    return load_config("embedded")


def one_key(key: str, value: object) -> DictConfig:
    """A configuration of nothing else: what is not there is not looked at."""
    config = OmegaConf.create({})
    OmegaConf.update(config, key, value)
    return config


@pytest.mark.parametrize("key", NAMES)
def test_everything_else_of_verls_is_refused_with_its_reason(key: str) -> None:
    names, ours = NAMES[key]
    assert ours < names, names
    config = copy.deepcopy(whole())
    for name in names:
        OmegaConf.update(config, key, name)
        if name in ours:
            check_supported(config, TRAIN_ONLY[False])
            continue
        with pytest.raises(ConfigError) as error:
            check_supported(config, TRAIN_ONLY[False])
        told = str(error.value)
        assert told.startswith(f"{key}: {name!r} is not supported, only ") and "; " in told and "\n" not in told


WHOLE = ("lora_rank=8", "lora.rank=8", "mtp.enable=true", "use_fused_kernels=true", "use_liger=true")
WHOLE += ("tiled_mlp.enabled=true",)
ROLLOUT = ("data_parallel_size=2", "pipeline_model_parallel_size=2", "expert_parallel_size=2", "quantization=fp8")
ROLLOUT += ("nnodes=1", "multi_turn.enable=true", "enable_rollout_routing_replay=true")
ROLLOUT += ("checkpoint_engine.backend=nccl", "load_format=auto", "load_format=safetensors", "prometheus.enable=true")
ROLLOUT += ("disaggregation.enabled=true",)
OTHERS = ("algorithm.use_pf_ppo=true", "algorithm.filter_groups.enable=true", "distillation.enabled=true")
OTHERS += ("actor_rollout_ref.hybrid_engine=false", "actor_rollout_ref.actor.policy_loss.loss_mode=gspo")
OTHERS += ("algorithm.rollout_correction.rollout_is=token", "algorithm.rollout_correction.rollout_rs=token")
OTHERS += ("algorithm.rollout_correction.bypass_mode=true", "actor_rollout_ref.actor.qat.enable=true")
OTHERS += tuple(f"actor_rollout_ref.rollout.{word}" for word in ROLLOUT)
MEGATRON = ("dynamic_context_parallel=true", "router_replay.mode=R2")
CORE = ("dtype=float32", "dtype=float16", "use_dist_checkpointing=true", "use_distributed_optimizer=false")
CORE += ("qat.enable=true",)
SHARDS = ("model_dtype=fp16", "model_dtype=bf16", "dtype=float16", "fsdp_size=1", "reshard_after_forward=false")
SHARDS += ("param_offload=true", "optimizer_offload=true", "offload_policy=true", "full_determinism=true")
SHARDS += ("use_no_sync_for_gradient_accumulation=true", "qat.enable=true")
ADAMW = ("optimizer=Foo", "optimizer=_AdamW", "optimizer_impl=torchao.optim", "warmup_style=cosine")
FOLLOWED = ("pad_to_length=true", "entropy_checkpointing=true")
ROLES = ("actor_rollout_ref.actor", "actor_rollout_ref.ref")


@pytest.mark.parametrize("engine", ["megatron", "dp"])
def test_what_else_verl_can_do_with_a_model_is_refused(engine: str) -> None:
    config = load_config("embedded", [f"model_engine={engine}"])
    words = [*OTHERS, *(f"actor_rollout_ref.model.{word}" for word in WHOLE)]
    if engine == "megatron":
        words += [f"actor_rollout_ref.actor.megatron.{word}" for word in MEGATRON]
        words += [f"{role}.megatron.{word}" for role in ROLES for word in CORE]
    else:
        words += [f"{role}.fsdp_config.{word}" for role in ROLES for word in SHARDS]
        words += [f"{role}.{word}" for role in ROLES for word in FOLLOWED]
        words += [f"actor_rollout_ref.actor.optim.{word}" for word in ADAMW]
    for word in words:
        assert_refused(config, word, TRAIN_ONLY[engine == "dp"])


def assert_refused(config: DictConfig, word: str, only: Only) -> None:
    """A key that is there, with another value; then as before."""
    key, _, value = word.partition("=")
    before = OmegaConf.select(config, key, throw_on_missing=True)
    OmegaConf.update(config, key, OmegaConf.create(f"value: {value}").value)
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: .* is not supported, only .*; ") as error:
        check_supported(config, only)
    assert "\n" not in str(error.value)
    OmegaConf.update(config, key, before)
    check_supported(config, only)


def test_a_warm_start_refuses_them_too() -> None:
    config = load_sft_config("sft_embedded")
    engine = ("dynamic_context_parallel=true", "use_mbridge=false", "use_megatron_fsdp=true", *CORE)
    for word in (*(f"model.{word}" for word in WHOLE), *(f"engine.{word}" for word in engine)):
        assert_refused(config, word, SFT_ONLY)


@pytest.mark.parametrize("name", ["fsdp", "automodel", "'no such'", ""])
def test_an_engine_that_is_none_is_told_as_others_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^model_engine: '.*' is not supported, only 'megatron' or 'dp'; "):
        load_config("embedded", [f"model_engine={name}"])


def test_each_estimator_is_refused_for_a_reason_of_its_own() -> None:
    with pytest.raises(ConfigError, match="compares several answers to one prompt, of"):
        load_config("embedded", ["algorithm.adv_estimator=grpo"])
    with pytest.raises(ConfigError, match="loads a critic for FSDP with flash-attn"):
        load_config("embedded", ["algorithm.adv_estimator=gae", "model_engine=dp"])


@pytest.mark.parametrize("key", [key for key, works, _ in TRAIN_ONLY[False] if works and "." in key])
def test_null_is_no_value_of_what_has_one_only(key: str) -> None:
    config = one_key(key, None)
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: None is not supported, only "):
        check_supported(config, TRAIN_ONLY[False])


@pytest.mark.parametrize("override", ["critic=null", "critic=3", "model_engine=null", "reward=1.5"])
def test_what_chooses_a_file_takes_a_name(override: str) -> None:
    with pytest.raises(ConfigError, match=rf"^override '{re.escape(override)}': \w+ takes a name, or is a section"):
        load_config("embedded", [override])
