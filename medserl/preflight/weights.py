"""Whether a model directory's weights are whole and of its config.json's shape, from their headers alone. No torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError

INDEX = "model.safetensors.index.json"
_LONGEST_HEADER = 100_000_000  # safetensors' own limit, in bytes


def check_weights(path: Path, key: str, model: Mapping[str, Any]) -> None:
    """Every tensor of a Qwen3 model must be there in its shape, and every file as long as its header says.

    Raises:
        ConfigError: names ``key``, the file and what is wrong with it.
    """
    found: dict[str, list[int]] = {}
    for file in _files(path, key):
        found |= _shapes(file, key)
    for name, shape in expected(model).items():
        if name not in found:
            raise ConfigError(f"{key}: {path}: the weights have no {name}, which config.json asks for; copy them anew")
        if found[name] != shape:
            raise ConfigError(
                f"{key}: {path}: {name} is {found[name]} in the weights and {shape} by config.json; they are of two "
                "models"
            )
    layers = model["num_hidden_layers"]
    if f"model.layers.{layers}.input_layernorm.weight" in found:
        raise ConfigError(f"{key}: {path}: the weights have more layers than config.json's num_hidden_layers {layers}")


def expected(model: Mapping[str, Any]) -> dict[str, list[int]]:
    """Names and shapes of a Qwen3 model's tensors, as transformers names them."""
    hidden, inner, words = model["hidden_size"], model["intermediate_size"], model["vocab_size"]
    heads, groups = model["num_attention_heads"], model["num_key_value_heads"]
    head = model.get("head_dim") or hidden // heads
    shapes = {"model.embed_tokens.weight": [words, hidden], "model.norm.weight": [hidden]}
    if not model.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = [words, hidden]
    for layer in range(model["num_hidden_layers"]):
        for name, shape in (
            ("input_layernorm", [hidden]),
            ("post_attention_layernorm", [hidden]),
            ("self_attn.q_proj", [heads * head, hidden]),
            ("self_attn.k_proj", [groups * head, hidden]),
            ("self_attn.v_proj", [groups * head, hidden]),
            ("self_attn.o_proj", [hidden, heads * head]),
            ("self_attn.q_norm", [head]),
            ("self_attn.k_norm", [head]),
            ("mlp.gate_proj", [inner, hidden]),
            ("mlp.up_proj", [inner, hidden]),
            ("mlp.down_proj", [hidden, inner]),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes


def _files(path: Path, key: str) -> list[Path]:
    index = path / INDEX
    if not index.is_file():
        return sorted(file for file in path.glob("*.safetensors") if file.is_file())
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except OSError as error:
        raise ConfigError(f"{key}: {index} cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(f"{key}: {index} is no index of weights; copy the model anew") from None
    return [path / str(name) for name in names]


def _shapes(file: Path, key: str) -> dict[str, list[int]]:
    """Names and shapes in a file of safetensors: 8 bytes of length, a header in JSON, the tensors one by one."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("no header")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        shapes = {name: [int(size) for size in tensor["shape"]] for name, tensor in header.items()}
        end = max((int(tensor["data_offsets"][1]) for tensor in header.values()), default=0)
        size = file.stat().st_size
    except FileNotFoundError:
        raise ConfigError(
            f"{key}: {file} is not there, though the model's index names it; copy the model anew"
        ) from None
    except OSError as error:
        raise ConfigError(f"{key}: {file} cannot be read ({error.strerror})") from None
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(
            f"{key}: {file} holds no weights (empty, damaged, or a pointer of Git LFS); copy the model anew"
        ) from None
    if size != 8 + length + end:
        raise ConfigError(f"{key}: {file} has {size} bytes, its header says {8 + length + end}; copy the model anew")
    return shapes
