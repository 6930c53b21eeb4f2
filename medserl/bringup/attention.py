"""(b) The trainer's attention against plain float32, and the backend that must be refused before a start."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from typing import Any

import torch

from medserl.bringup.checks import CUDA, Unexpected
from medserl.bringup.child import Place

LENGTHS = {"cuda": (512, 768, 1024, 1536), "cpu": (24, 40)}
HEADS, GROUPS, HEAD = 32, 8, 128
BOUND = 0.02
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""query [t, h, d], key and value [t, g, d], sequences packed one behind the other -> [t, h, d]."""


def against_plain(place: Place) -> dict[str, Any]:
    """Outputs and gradients of query, key and value, bf16 against a plain softmax in float32."""
    sizes = LENGTHS[place.device]
    torch.manual_seed(3)
    shapes = [(sum(sizes), n, HEAD) for n in (HEADS, GROUPS, GROUPS)]
    leaves = [torch.randn(*shape, device=place.device, dtype=torch.bfloat16, requires_grad=True) for shape in shapes]
    weight = torch.randn(sum(sizes), HEADS, HEAD, device=place.device)
    attention, name = _fused(sizes) if place.device == CUDA else _on_cpus(sizes)
    got = _with_gradients(attention, leaves, weight)
    want = _with_gradients(lambda q, k, v: plain(q, k, v, sizes), [x.detach().float() for x in leaves], weight)
    errors = {
        part: round(((a.float() - b).norm() / b.norm()).item(), 5)
        for part, a, b in zip(("output", "query", "key", "value"), got, want, strict=True)
    }
    found = {"attention": name, "error": errors}
    if not max(errors.values()) < BOUND:
        raise Unexpected(f"attention differs from plain float32 by more than {BOUND:.0%}", found)
    return found


def plain(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """Softmax over the written-out scores of each sequence; shapes as in `Attention`."""
    outputs = []
    repeats = query.shape[1] // key.shape[1]
    for q, k, v in zip(*(x.split(list(sizes)) for x in (query, key, value)), strict=True):
        k, v = (x.repeat_interleave(repeats, dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool, device=q.device).triu(1)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.masked_fill(hidden, float("-inf")).softmax(-1), v))
    return torch.cat(outputs)


def _with_gradients(attention: Attention, leaves: list[torch.Tensor], weight: torch.Tensor) -> list[torch.Tensor]:
    own = [leaf.detach().requires_grad_() for leaf in leaves]
    out = attention(*own)
    (out.float() * weight).sum().backward()
    return [out.detach(), *(leaf.grad for leaf in own if leaf.grad is not None)]


def _fused(sizes: tuple[int, ...]) -> tuple[Attention, str]:
    """Transformer Engine as Megatron sets it up for ``attention_backend: fused`` and packed sequences."""
    os.environ.update(NVTE_FLASH_ATTN="0", NVTE_FUSED_ATTN="1", NVTE_UNFUSED_ATTN="0")
    import transformer_engine.pytorch as te

    module = te.DotProductAttention(
        HEADS, HEAD, num_gqa_groups=GROUPS, attention_dropout=0.0, qkv_format="thd", attn_mask_type="padding_causal"
    )
    starts = torch.tensor([0, *sizes], device="cuda").cumsum(0).to(torch.int32)

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = module(
            q,
            k,
            v,
            cu_seqlens_q=starts,
            cu_seqlens_kv=starts,
            max_seqlen_q=max(sizes),
            max_seqlen_kv=max(sizes),
        )
        return out.view(q.shape)

    return attention, "Transformer Engine, fused (cuDNN), packed"


def _on_cpus(sizes: tuple[int, ...]) -> tuple[Attention, str]:
    """The attention of medserl.cpu, one sequence after the other: it takes no packed ones."""
    from megatron.core.transformer.transformer_config import TransformerConfig

    from medserl.cpu.bridge import SDPAttention

    config = TransformerConfig(num_layers=1, hidden_size=HEADS * HEAD, num_attention_heads=HEADS, attention_dropout=0.0)
    module = SDPAttention(config, 1, None, "self")

    def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        parts = zip(*(x.split(list(sizes)) for x in (q, k, v)), strict=True)
        outputs = [module(*(x.unsqueeze(1) for x in part), None)[:, 0] for part in parts]
        return torch.cat(outputs).view(q.shape)

    return attention, "medserl.cpu, scaled_dot_product_attention"


def flash_is_refused(place: Place) -> dict[str, Any]:
    """With `flash`, Megatron switches every other attention off; without flash-attn none is left."""
    del place
    from medserl.config.load import load_config
    from medserl.errors import ConfigError
    from medserl.preflight.devices import check_attention

    key = "actor_rollout_ref.actor.megatron.override_transformer_config.attention_backend"
    shipped = load_config("qwen3_4b_1node", ["medserl.notes.path=notes.jsonl"])
    check_attention(shipped)
    try:
        check_attention(load_config("qwen3_4b_1node", ["medserl.notes.path=notes.jsonl", f"++{key}=flash"]))
    except ConfigError as error:
        return {"sentence": str(error)}
    installed = [name for name in ("flash-attn", "flash-attn-3", "flash-attn-4") if _installed(name)]
    if not installed:
        raise Unexpected("flash was accepted, and flash-attn is not installed", {})
    return {"installed": ", ".join(installed)}


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
