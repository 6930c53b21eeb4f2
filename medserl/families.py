"""The model families that MedSeRL trains: dense decoders that mbridge and vLLM both know. No torch.

What is trained is rebuilt in Megatron, so that a family is more than a name: which tensors a layer has, how positions
turn, and what a config.json may ask for that the rebuilt model would silently not do. Such a wish is an `obstacle`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Model = Mapping[str, Any]
"""Content of a model's config.json."""
LLAMA3_ROPE = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
"""megatron-core 0.16.1, rotary_pos_embedding.py, _apply_scaling: constants there."""


@dataclass(frozen=True)
class Family:
    """Dense decoders with one layout of layers: grouped queries, gated SiLU, RMSNorm, rotary positions."""

    architecture: str
    """As config.json and vLLM name it."""
    model_type: str
    """As transformers and mbridge name it."""
    qkv_bias: bool = False
    """Whether queries, keys and values have biases."""
    qk_norm: bool = False
    """Whether each head's queries and keys are normalised."""
    window: int | None = None
    """Sliding window that transformers takes where config.json names none; None: it takes none."""


FAMILIES = {
    family.architecture: family
    for family in (
        Family("Qwen3ForCausalLM", "qwen3", qk_norm=True),
        Family("Qwen2ForCausalLM", "qwen2", qkv_bias=True),
        Family("LlamaForCausalLM", "llama"),
        Family("MistralForCausalLM", "mistral", window=4096),
    )
}


def family_of(model: Model) -> Family | None:
    """The family of a model; None where it is of none that is known."""
    architectures = model.get("architectures")
    named = architectures if isinstance(architectures, list) else []
    return next((FAMILIES[name] for name in named if isinstance(name, str) and name in FAMILIES), None)


def head_width(model: Model) -> int:
    """Elements of one attention head."""
    return int(model.get("head_dim") or model["hidden_size"] // model["num_attention_heads"])


def rope(model: Model) -> tuple[str, dict[str, Any]]:
    """How positions are scaled: a name of transformers' (``default``: not at all) and its parameters.

    config.json has said so in ``rope_scaling`` beside ``rope_theta``, and says so in ``rope_parameters`` today. Where
    it has both, as a new file to which the lines of a model card were added, the former takes the latter's place
    (transformers 5.10, modeling_rope_utils.py, convert_rope_params_to_dict).
    """
    found = dict(model.get("rope_scaling") or model.get("rope_parameters") or {})
    name = found.get("rope_type") or found.get("type") or "default"
    return str(name), found


def obstacle(model: Model) -> str | None:
    """What a known family's config.json asks for and the model in Megatron would not do, in a phrase; else None."""
    family = family_of(model)
    if family is None:
        return None
    kind = model.get("model_type", family.model_type)
    if kind != family.model_type:
        return f"model_type {kind!r} is not that of {family.architecture}"
    if quantised := model.get("quantization_config"):
        method = (isinstance(quantised, dict) and quantised.get("quant_method")) or "quantization_config"
        return f"quantised weights ({method}) are not supported in training, those in bf16 are"
    if model.get("llama_4_scaling") is not None:
        return "llama_4_scaling is not supported in training"
    for key, wanted in (
        ("hidden_act", "silu"),
        ("mlp_bias", False),
        ("attention_dropout", 0),
        ("use_sliding_window", False),
    ):
        value = model.get(key)
        if value is not None and value != wanted:
            return f"{key} {value!r} is not supported in training"
    if model.get("attention_bias") and not family.qkv_bias:
        return "attention_bias true is not supported in training"
    head = model.get("head_dim")
    if isinstance(head, int) and not isinstance(head, bool) and head > 0 and head % 2:  # positions turn pairs of it
        return f"head_dim {head} is not an even number"
    return _window_obstacle(model, family) or _rope_obstacle(model)


def _window_obstacle(model: Model, family: Family) -> str | None:
    """A window as wide as the context is none. Qwen's has a switch of its own, which is off."""
    window = model.get("sliding_window", family.window)
    if family.window is None or window is None:
        return None
    if isinstance(window, int) and window >= model.get("max_position_embeddings", math.inf):
        return None
    told = f"sliding_window {window!r}" if "sliding_window" in model else f"the sliding window of {window} by default"
    return (
        f'{told} is not supported in training, unless config.json says "sliding_window": null, which changes '
        "nothing for sequences up to that length"
    )


def _rope_obstacle(model: Model) -> str | None:
    for key in ("rope_scaling", "rope_parameters"):
        if not isinstance(model.get(key) or {}, dict):
            return f"{key} is not a mapping"
    name, found = rope(model)
    if nested := next((key for key, value in found.items() if isinstance(value, dict)), None):
        return f"rotary positions that differ by layer ({nested}) are not supported in training"
    if not _positive(theta := found.get("rope_theta", model.get("rope_theta", 1.0))):  # 1: the family's own is taken
        return f"rope_theta {theta!r} is not a number above 0"
    if name not in ("default", "linear", "llama3"):
        return f"rotary positions of type {name!r} are not supported in training (default, linear and llama3 are)"
    if name != "default" and not _positive(found.get("factor")):
        return f"rotary positions of type {name!r} need a factor above 0"
    if name == "llama3":
        for key, wanted in LLAMA3_ROPE.items():
            if (told := _llama3(model, found, key)) not in (None, wanted):
                return f"llama3 rotary positions with {key} {told!r} are not supported ({wanted:g} is)"
    for key in ("partial_rotary_factor",):
        if found.get(key, model.get(key)) not in (None, 1, 1.0):
            return f"{key} {found.get(key, model.get(key))!r} is not supported in training"
    return None


def _llama3(model: Model, found: Mapping[str, Any], key: str) -> Any:
    """A parameter of llama3's positions; the length of pretraining is the context where nothing says otherwise."""
    if key != "original_max_position_embeddings":
        return found.get(key)
    return model.get(key, found.get(key, model.get("max_position_embeddings")))


def _positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
