"""Model FLOPs of a decoder and what devices can do at most: what MFU is made of. Shapes and peaks are the planner's.

Not verl's counter (verl 0.9.1, utils/flops_counter.py): it counts the embedding's look-up as a product, 9 % of
Qwen3-4B, and every pair of a sequence's tokens where a causal mask leaves half of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medserl.planning.gpus import gpus_of_device
from medserl.planning.shapes import find_shape, shape_of

_SHAPE = find_shape("qwen3-4b", "bringup")
QWEN3_4B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": _SHAPE.hidden,
    "num_hidden_layers": _SHAPE.layers,
    "intermediate_size": _SHAPE.intermediate,
    "num_attention_heads": _SHAPE.heads,
    "num_key_value_heads": _SHAPE.groups,
    "head_dim": _SHAPE.head,
    "vocab_size": _SHAPE.vocab,
    "tie_word_embeddings": _SHAPE.tied,
    "max_position_embeddings": _SHAPE.context,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
}
PARAMETERS = _SHAPE.parameters


def peak(device: str) -> float | None:
    """Most FLOP/s that a device can do in dense bf16; None for one that the planner does not know, and for a
    part of a GPU (MIG).

    Args:
        device: As the driver calls it, "NVIDIA H100 80GB HBM3".
    """
    return next((gpu.flops for gpu in gpus_of_device(device)), None)


def training_flops(model: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Of one forward and one backward pass over sequences of these lengths; a forward pass alone is a third.

    A product of a token with a matrix takes two for each of its elements, a multiplication and an addition; backwards
    there are two such products, for the input's gradient and the matrix's: 6 N a token, N the elements of all matrices
    (the output layer among them, the embedding's look-up not). Attention has two more products in each layer and head,
    queries with keys and weights with values, of 2 Q a pair of tokens each, Q the elements of a head: forwards and
    backwards 3 * 4 L H Q a pair. That is PaLM's 6 N + 12 L H Q T a token (arXiv 2204.02311, appendix B), which counts
    T * T pairs of a sequence of T tokens; a causal mask leaves T (T + 1) / 2, which is what is counted here, so that
    an MFU by this count is not flattered by pairs that no kernel computes. Recomputation is not counted: it is no work
    that the model asks for.

    Args:
        model: A config.json.
        lengths: Tokens of each sequence.
    """
    shape = shape_of(model, "model")
    matrices = shape.layers * shape.matrices + shape.embedding
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    return 6.0 * matrices * sum(lengths) + 3.0 * shape.layers * shape.heads * 4.0 * shape.head * pairs
