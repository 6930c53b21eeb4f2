"""Start weights in which the tiny model can already copy.

Rewriting one word of a sentence is copying the others. What copies in a transformer is a pair of heads (Olsson
et al. 2022, arXiv 2209.11895): one in layer 0 that tells every position which token came before it, and one in
layer 1, the induction head, that looks for positions whose predecessor is the present token and repeats what
stands there. From random weights they had not formed after 700 steps of demonstrations; written in by hand, and
sharpened by 150 steps of practice, they copy random words. All other weights stay random, and training may
change every weight.
"""

from __future__ import annotations

import torch
from transformers import Qwen3ForCausalLM

_CONSTANT = 0
"""Residual dimension that is the same for all tokens: what position alone can be read from."""

_SHARPNESS = 2.0
"""Weight of the query and key norms in both layers: logits reach sharpness² · sqrt(head_dim)."""

_FAST_PAIRS = 3
"""Rotary pairs that the previous-token head uses: the fastest ones tell neighbouring positions apart."""

_SLOW = 0.01
"""Radians per position below which a rotary pair hardly turns over a note, so that it can carry content."""


def wire_copying_heads(model: Qwen3ForCausalLM, seed: int) -> None:
    """Write the two heads into layers 0 and 1 of ``model``, in place.

    Raises ValueError where the model has one layer only, or is too narrow for two codes of ``head_dim``.
    """
    config = model.config
    size, half = config.head_dim, config.head_dim // 2
    if config.num_hidden_layers < 2 or 2 * size > config.hidden_size - 1:
        raise ValueError(f"hidden_size {config.hidden_size} and {config.num_hidden_layers} layers are too few to wire")
    turning = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    slow = torch.nonzero(turning < _SLOW).flatten()
    generator = torch.Generator().manual_seed(seed)
    directions = torch.zeros(config.hidden_size - 1, config.hidden_size)
    directions[:, 1:] = _orthogonal(config.hidden_size - 1, generator)
    read, write, copied = directions[:size], directions[size : 2 * size], directions[-size:]
    content = torch.zeros(size, size)
    carriers = torch.cat([slow, slow + half])
    content[carriers] = _orthogonal(size, generator)[: len(carriers)]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, _CONSTANT] = 3 * config.initializer_range
        _wire_previous_token(model.model.layers[0].self_attn, turning, read, write)
        _wire_induction(model.model.layers[1].self_attn, content, read, write, copied)


def _orthogonal(size: int, generator: torch.Generator) -> torch.Tensor:
    rotation: torch.Tensor = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    return rotation


def _wire_previous_token(
    attention: torch.nn.Module, turning: torch.Tensor, read: torch.Tensor, write: torch.Tensor
) -> None:
    """Head 0: a constant query, turned back by one position against a constant key, so that the score peaks one
    position back; it carries the ``read`` code of the token there into the ``write`` directions."""
    size, half = read.shape[0], read.shape[0] // 2
    key, query = torch.zeros(size), torch.zeros(size)
    key[:_FAST_PAIRS] = 1.0
    query[:_FAST_PAIRS] = torch.cos(turning[:_FAST_PAIRS])
    query[half : half + _FAST_PAIRS] = -torch.sin(turning[:_FAST_PAIRS])
    for weight, vector in ((attention.k_proj.weight, key), (attention.q_proj.weight, query)):
        weight[:size] = 0.0
        weight[:size, _CONSTANT] = vector
    attention.v_proj.weight[:size] = read
    attention.o_proj.weight[:, :size] = write.T
    _sharpen(attention)


def _wire_induction(
    attention: torch.nn.Module, content: torch.Tensor, read: torch.Tensor, write: torch.Tensor, copied: torch.Tensor
) -> None:
    """Head 0: the present token's code as the query, the predecessor's as the key; adds the token found there.

    Head 1 shares key and value (grouped queries) and asks the same; its output starts at zero.
    """
    size = read.shape[0]
    for head in (0, 1):
        attention.q_proj.weight[head * size : (head + 1) * size] = content @ read
    attention.k_proj.weight[:size] = content @ write
    attention.v_proj.weight[:size] = copied
    attention.o_proj.weight[:, :size] = copied.T
    attention.o_proj.weight[:, size : 2 * size] = 0.0
    _sharpen(attention)


def _sharpen(attention: torch.nn.Module) -> None:
    attention.q_norm.weight.fill_(_SHARPNESS)
    attention.k_norm.weight.fill_(_SHARPNESS)
