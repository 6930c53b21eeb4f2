"""Tiny random models of the families that can be trained, and what plain Hugging Face makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from engine_reference import SIZES, Plain, make_model

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LINEAR = {"rope_type": "linear", "rope_theta": 5e4, "factor": 4.0}


def configurations() -> dict[str, Callable[[], Any]]:
    """What makes each model's configuration, by the model's name."""
    from transformers import LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

    untied: dict[str, Any] = {"tie_word_embeddings": False}
    return {
        "qwen3_untied": lambda: Qwen3Config(**SIZES | untied, head_dim=32),
        "qwen2_tied": lambda: Qwen2Config(**SIZES),
        "qwen2_untied": lambda: Qwen2Config(**SIZES | untied),
        "llama_tied": lambda: LlamaConfig(**SIZES),
        "llama_untied_llama3": lambda: LlamaConfig(**SIZES | untied | {"rope_parameters": LLAMA3}, head_dim=32),
        "llama_tied_linear": lambda: LlamaConfig(**SIZES | {"rope_parameters": LINEAR}),
        "mistral_untied": lambda: MistralConfig(**SIZES | untied, head_dim=32, sliding_window=None),
    }


SHARDED = "llama_tied"


def shard(directory: Path) -> None:
    """Weights in two files whose index names the output layer of a tied model too, as some published models have it."""
    from safetensors.torch import load_file, save_file

    whole = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    whole["lm_head.weight"] = whole["model.embed_tokens.weight"].clone()
    names = sorted(whole)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, own in parts.items():
        save_file({name: whole[name] for name in own}, directory / file, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, own in parts.items() for name in own}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))


def family_references(directory: Path) -> None:
    """Writes each model and its weights, log-probabilities and gradients in float32."""
    for name, configuration in configurations().items():
        folder = directory / name
        make_model(folder, configuration())
        plain = Plain(folder, torch.float32)
        found: dict[str, Any] = {"log_probs": plain.log_probs()}
        found["loss"], found["gradients"] = plain.backward()
        found["start"] = {n: m.clone() for n, m in plain.masters.items()}
        torch.save(found, directory / f"family_{name}.pt")
        if name == SHARDED:
            shard(folder)
