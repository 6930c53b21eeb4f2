"""Model FLOPs of Qwen3 and what devices can do at most; what MFU is made of.

Not verl's counter (verl 0.9.1, utils/flops_counter.py): it counts the embedding's look-up as a product, 9 % of
Qwen3-4B, and every pair of a sequence's tokens where a causal mask leaves half of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

QWEN3_4B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 2560,
    "num_hidden_layers": 36,
    "intermediate_size": 9728,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000,
    "max_position_embeddings": 40960,
    "hidden_act": "silu",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "bos_token_id": None,
    "eos_token_id": 151645,
}
PARAMETERS = 4_022_468_096
"""Of that shape (transformers, Qwen3ForCausalLM on the meta device)."""
# Dense bf16 with float32 accumulation, from NVIDIA's data sheets; the first name that a device's name holds counts.
PEAKS: tuple[tuple[str, float], ...] = (
    ("B200", 2250e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("GH200", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("A40", 149.7e12),
    ("RTX 4090", 165e12),
)


def peak(device: str) -> float | None:
    """Most FLOPs a second that a device of this name can do in bf16; None for one that is not in the list."""
    return next((flops for name, flops in PEAKS if name in device), None)


def training_flops(model: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Of one forward and one backward pass over sequences of these lengths; a forward pass alone is a third.

    Two for each parameter of a matrix and token, forwards, and twice that backwards; attention the same for each pair
    of tokens that the mask leaves. Recomputation is not counted: it is no work that the model asks for.

    Args:
        model: The config.json of a Qwen3 model.
        lengths: Tokens of each sequence.
    """
    hidden, head = model["hidden_size"], model["head_dim"]
    heads, groups, layers = model["num_attention_heads"], model["num_key_value_heads"], model["num_hidden_layers"]
    layer = 2 * hidden * heads * head + 2 * hidden * groups * head + 3 * hidden * model["intermediate_size"]
    matrices = layers * layer + hidden * model["vocab_size"]
    pairs = sum(length * (length + 1) / 2 for length in lengths)
    return 6.0 * matrices * sum(lengths) + 3.0 * layers * heads * 4.0 * head * pairs
