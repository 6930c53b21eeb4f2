"""Which models can be trained; the rest is refused with a reason. mbridge is as its mends were written for."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest

from medserl.errors import ConfigError
from medserl.families import FAMILIES, family_of, obstacle, rope
from medserl.planning.shapes import shape_of
from medserl.preflight.model_files import read_model_config
from medserl.run.weights import expected, misfit

SIZES = {
    "num_hidden_layers": 4,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}
KEY = "actor_rollout_ref.model.path"
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def model(architecture: str, **more: Any) -> dict[str, Any]:
    return {**SIZES, "architectures": [architecture], "model_type": FAMILIES[architecture].model_type, **more}


# layers, hidden, intermediate, heads, key-value heads, vocabulary; the published number of parameters
PUBLISHED = {
    "Qwen2.5-0.5B": ("Qwen2ForCausalLM", (24, 896, 4864, 14, 2, 151936), 494_032_768),
    "SmolLM2-135M": ("LlamaForCausalLM", (30, 576, 1536, 9, 3, 49152), 134_515_008),
    "Llama-3.2-1B": ("LlamaForCausalLM", (16, 2048, 8192, 32, 8, 128256), 1_235_814_400),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_counted_as_published(name: str) -> None:
    architecture, sizes, published = PUBLISHED[name]
    config = model(architecture, tie_word_embeddings=True, **dict(zip(SIZES, sizes, strict=True)))
    assert shape_of(config, name).parameters == published
    assert sum(math.prod(shape) for shape in expected(config).values()) == published
    untied = {**config, "tie_word_embeddings": False}
    assert shape_of(untied, name).parameters == sum(math.prod(shape) for shape in expected(untied).values())


@pytest.mark.parametrize("architecture", FAMILIES)
def test_another_familys_weights_are_a_misfit(architecture: str) -> None:
    others = [name for name in FAMILIES if name != architecture and FAMILIES[name] != FAMILIES[architecture]]
    config = model(architecture)
    wrong = [misfit(expected(model(other)), config) for other in others]
    if architecture in ("LlamaForCausalLM", "MistralForCausalLM"):  # the Qwens have tensors beyond theirs
        assert wrong == [None] * 3
    else:
        assert all(wrong)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "'dynamic'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "need a factor"),
        ({"rope_scaling": {**LLAMA3, "low_freq_factor": 2.0}}, "low_freq_factor 2.0"),
        ({"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 4096}}, "embeddings 4096"),
        ({"rope_scaling": [1]}, "not a mapping"),
        *(
            ({"rope_scaling": {"type": name, "factor": 4.0}, "rope_parameters": DEFAULT}, f"'{name}'")
            for name in ("yarn", "dynamic", "longrope", "mrope")
        ),
        ({"rope_scaling": LLAMA3, "max_position_embeddings": 131072}, "embeddings 131072"),
        ({"rope_parameters": {"full_attention": DEFAULT}}, "differ by layer (full_attention)"),
        ({"rope_parameters": {**DEFAULT, "rope_theta": "big"}}, "rope_theta 'big' is not a number"),
        ({"rope_theta": True}, "rope_theta True is not a number"),
        ({"rope_theta": 0}, "rope_theta 0 is not a number"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor 0.5"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"attention_bias": True}, "attention_bias"),
        ({"attention_dropout": 0.1}, "attention_dropout 0.1"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantised weights (fp8)"),
        ({"llama_4_scaling": {"beta": 0.1}}, "llama_4_scaling"),
        ({"model_type": "mistral"}, "model_type 'mistral'"),
        ({"head_dim": 15}, "head_dim 15 is not an even number"),
    ],
)
def test_what_megatron_would_not_do_is_an_obstacle(change: dict[str, Any], told: str) -> None:
    reason = obstacle(model("LlamaForCausalLM", **change))
    assert reason is not None and told in reason


def test_positions_of_both_kinds_are_those_that_transformers_takes() -> None:
    from transformers import LlamaConfig

    linear = {"type": "linear", "factor": 2.0}
    for told in (
        {"rope_scaling": linear, "rope_parameters": DEFAULT},
        {"rope_scaling": {}, "rope_parameters": DEFAULT},
    ):
        name, found = rope(told)
        taken = LlamaConfig(**told).rope_parameters
        assert (name, found.get("factor")) == (taken["rope_type"], taken.get("factor"))


def test_a_sliding_window_is_an_obstacle() -> None:
    assert "use_sliding_window" in (obstacle(model("Qwen2ForCausalLM", use_sliding_window=True)) or "")


@pytest.mark.parametrize("window", [4096, None, 8192, "missing"])
def test_a_mistral_has_a_window_unless_it_says_not(window: Any) -> None:
    told = {} if window == "missing" else {"sliding_window": window}
    reason = obstacle(model("MistralForCausalLM", max_position_embeddings=8192, **told))
    assert (reason is None) == (window in (None, 8192))
    assert reason is None or ("4096" in reason and "null" in reason)
    assert obstacle(model("LlamaForCausalLM", max_position_embeddings=8192, **told)) is None  # it has none


@pytest.mark.parametrize("rope", [None, LLAMA3, {"type": "linear", "factor": 2}, {"rope_type": "default"}])
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_usual_positions_are_none(key: str, rope: dict[str, Any] | None) -> None:
    told = {"attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", key: rope}
    assert obstacle(model("LlamaForCausalLM", **told)) is None


@pytest.mark.parametrize("name", ["SmolLM3ForCausalLM", "Gemma3ForCausalLM", "Qwen3MoeForCausalLM", "GPT2LMHeadModel"])
def test_an_unknown_family_is_refused_with_the_known_ones(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "architectures": [name]}))
    with pytest.raises(ConfigError) as error:
        read_model_config(tmp_path, KEY)
    assert name in str(error.value) and all(known in str(error.value) for known in FAMILIES)
    assert family_of({"architectures": [name]}) is None


@pytest.mark.parametrize(
    ("file", "construct"),
    [
        ("models/llama.py", "class LLaMABridge(LLMBridge):"),
        ("models/llama.py", 'if "rope_scaling" in self.hf_config:'),
        ("models/qwen2.py", 'self._DIRECT_MAPPING["output_layer.weight"] = "model.embed_tokens.weight"'),
        ("models/qwen3.py", "class Qwen3Bridge(Qwen2Bridge):"),
        ("core/llm_bridge.py", "**gptmodel_args,"),
        ("core/bridge.py", "self.safetensor_io = self._get_safetensor_io(weights_path)"),
        ("core/bridge.py", "_MODEL_REGISTRY[model_type] = cls"),
        ("core/bridge.py", "local_to_global_map = self._weight_name_mapping_mcore_local_to_global(model)"),
        ("core/bridge.py", "if param.shape[0] == 1 and ("),
        ("core/bridge.py", "for k in model.state_dict().keys() if"),
        ("utils/post_creation_callbacks.py", "output_size=1,"),
        ("core/safetensor_io.py", 'self.index = origin_index["weight_map"]'),
        ("core/safetensor_io.py", "if keys_for_file.issubset(states.keys()):"),
    ],
)
def test_mbridge_is_as_its_mends_were_written_for(file: str, construct: str) -> None:
    spec = importlib.util.find_spec("mbridge")
    assert spec is not None and spec.submodule_search_locations
    assert construct in (Path(next(iter(spec.submodule_search_locations))) / file).read_text()


def test_verl_makes_a_critic_as_its_mend_was_written_for() -> None:
    """From an untied configuration, with micro-batches of tokens in values and update, by a number of one name."""
    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.submodule_search_locations
    verl = Path(next(iter(spec.submodule_search_locations)))
    engine = (verl / "workers/engine/megatron/transformer_impl.py").read_text()
    assert "self.model_config.hf_config.tie_word_embeddings = False" in engine
    assert "self.bridge.load_weights(module, self.model_config.local_path)" in engine
    trainer = (verl / "trainer/ppo/v1/trainer_base.py").read_text()
    for kind in ("infer_max_token_len_per_gpu", "max_token_len_per_gpu"):
        assert f"critic_cfg.engine.{kind} = critic_cfg.ppo_infer_max_token_len_per_gpu" in trainer
    assert "critic_cfg.engine.use_dynamic_bsz" not in trainer
    engines = (verl / "workers/config/engine.py").read_text()
    assert "use_dynamic_bsz: bool = True" in engines
