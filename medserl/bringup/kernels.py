"""(a) One kernel of each library against plain torch: does this driver take what is installed?"""

from __future__ import annotations

import importlib
from typing import Any

import torch

from medserl.bringup.checks import CUDA, NotRun, Unexpected
from medserl.bringup.child import Place

HIDDEN = 2560
HEADS, GROUPS, HEAD = 32, 8, 128
TRAINER = ("megatron.core", "mbridge", "verl.workers.engine", "tensordict")


def torch_product(place: Place) -> dict[str, Any]:
    """A product that cuBLAS, or oneDNN, does in bf16."""
    a, b = (torch.randn(*shape, device=place.device) for shape in ((512, HIDDEN), (HIDDEN, 512)))
    want = a @ b
    error = _largest(a.bfloat16() @ b.bfloat16(), want) / want.abs().max().item()
    return _within(error, 0.01, "product")


def group_sum(place: Place) -> dict[str, Any]:
    """An all-reduce in a group of one, which loads the communication library."""
    from medserl.bringup.engine import join_group

    join_group(place)
    x = torch.arange(1024.0, device=place.device)
    torch.distributed.all_reduce(x)
    if not torch.equal(x.cpu(), torch.arange(1024.0)):
        raise Unexpected("different numbers came back", {})
    return {"backend": "nccl " + ".".join(map(str, torch.cuda.nccl.version())) if place.device == CUDA else "gloo"}


def triton_sum(place: Place) -> dict[str, Any]:
    """A kernel that Triton compiles here: it needs a C compiler and Python's headers for its launcher."""
    from medserl.bringup.triton_kernel import add

    x, y = (torch.randn(10_000, device=place.device) for _ in range(2))
    if not torch.equal(add(x, y), x + y):
        raise Unexpected("the sum differs from torch's", {})
    return {}


def transformer_engine_norm(place: Place) -> dict[str, Any]:
    """Its RMSNorm, a kernel of its own library."""
    import transformer_engine.pytorch as te

    norm = te.RMSNorm(HIDDEN, eps=1e-6, device=place.device, params_dtype=torch.bfloat16)
    x = torch.randn(256, HIDDEN, device=place.device, dtype=torch.bfloat16)
    want = torch.nn.functional.rms_norm(x.float(), (HIDDEN,), norm.weight.float(), 1e-6)
    return _within(_largest(norm(x), want), 0.05, "RMSNorm")


def transformer_engine_fusions(place: Place) -> dict[str, Any]:
    """What `apply_rope_fusion` and `bias_activation_fusion` call for packed sequences."""
    from megatron.core.extensions.transformer_engine import fused_apply_rotary_pos_emb_thd
    from megatron.core.fusions.fused_bias_swiglu import bias_swiglu_impl

    starts = torch.tensor([0, 100, 256], device=place.device, dtype=torch.int32)
    x = torch.randn(256, HEADS, HEAD, device=place.device, dtype=torch.bfloat16)
    angles = torch.outer(torch.arange(256.0), 1e6 ** (-torch.arange(0, HEAD, 2) / HEAD))
    freqs = torch.cat([angles, angles], dim=-1)[:, None, None].to(place.device)
    got = fused_apply_rotary_pos_emb_thd(x, starts, freqs)
    places = torch.cat([torch.arange(100), torch.arange(156)]).to(place.device)
    turn = freqs[places, 0]
    half = torch.cat([-x.float()[..., HEAD // 2 :], x.float()[..., : HEAD // 2]], dim=-1)
    rope = _largest(got, x.float() * turn.cos() + half * turn.sin())
    y = torch.randn(256, 1, 512, device=place.device, dtype=torch.bfloat16).clamp(-3, 3)  # bf16 rounds 9 by 0.03
    gate, up = y.float().chunk(2, dim=-1)
    swiglu = _largest(bias_swiglu_impl(y, None), torch.nn.functional.silu(gate) * up)
    found = {"RoPE_error": round(rope, 5), "SwiGLU_error": round(swiglu, 5)}
    if max(rope, swiglu) >= 0.05:
        raise Unexpected("a fused kernel differs from float32", found)
    return found


def vllm_kernels(place: Place) -> dict[str, Any]:
    """vLLM's norm, and on GPUs the attention that it decodes with."""
    import vllm._custom_ops as ops

    dtype = torch.bfloat16
    x, weight = (torch.randn(*shape, device=place.device, dtype=dtype) for shape in ((64, HIDDEN), (HIDDEN,)))
    out = torch.empty_like(x)
    ops.rms_norm(out, x, weight, 1e-6)
    want = torch.nn.functional.rms_norm(x.float(), (HIDDEN,), weight.float(), 1e-6)
    found = _within(_largest(out, want), 0.1, "RMSNorm")
    return found | (_flash_attention() if place.device == CUDA else {})


def imports(place: Place) -> dict[str, Any]:
    """What a worker of the trainer imports."""
    for name in TRAINER:
        importlib.import_module(name)
    from verl.workers.engine import EngineRegistry

    if place.device not in EngineRegistry._engines["language_model"].get("megatron", {}):
        raise Unexpected("verl has no Megatron engine for this device; its own imports failed", {})
    return {"packages": ", ".join(TRAINER)}


def _flash_attention() -> dict[str, Any]:
    from vllm.vllm_flash_attn.flash_attn_interface import flash_attn_varlen_func

    version = 3 if torch.cuda.get_device_capability()[0] == 9 else 2
    if torch.cuda.get_device_capability()[0] < 8:
        raise NotRun("flash attention needs compute capability 8.0")
    q, k, v = (torch.randn(128, n, HEAD, device="cuda", dtype=torch.bfloat16) for n in (HEADS, GROUPS, GROUPS))
    starts = torch.tensor([0, 128], device="cuda", dtype=torch.int32)
    got = flash_attn_varlen_func(
        q,
        k,
        v,
        max_seqlen_q=128,
        cu_seqlens_q=starts,
        max_seqlen_k=128,
        cu_seqlens_k=starts,
        causal=True,
        fa_version=version,
    )
    want = torch.nn.functional.scaled_dot_product_attention(
        *(t.float().transpose(0, 1)[None] for t in (q, k, v)), is_causal=True, enable_gqa=True
    )[0].transpose(0, 1)
    return {"flash_attention": version, **_within(_largest(got, want), 0.1, "attention")}


def _largest(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got.float() - want.float()).abs().max().item())


def _within(error: float, bound: float, name: str) -> dict[str, Any]:
    found = {f"{name}_error": round(error, 6)}
    if not error < bound:
        raise Unexpected(f"{name} differs from float32 by {error:.4g}, {bound} is allowed", found)
    return found
