"""(c) Qwen3-4B's shape through verl's engine: log-probs, forward and backward; on CPUs the same with the tiny model.

No optimizer: its 48 GB do not fit beside the rest on one GPU of 80 GB, and it is no part of tokens/s. (d) has one.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from medserl.bringup.checks import Unexpected
from medserl.bringup.child import Place
from medserl.bringup.engine import (
    LONGEST,
    TOKENS,
    batch,
    device_name,
    flops_of,
    join_group,
    lengths,
    loss,
    make_engine,
    model_folder,
    shape_of,
    timed,
)
from medserl.bringup.flops import PARAMETERS, QWEN3_4B

MFU_AIM = 0.45
MEAN = "mean_log_probs"
"""File that hands the mean from one check to another."""
ROUNDING = 0.01
"""Of the mean over thousands of tokens in bf16."""


def parameters(place: Place) -> dict[str, Any]:
    """Megatron's own model in Qwen3-4B's shape, without memory."""
    from megatron.core import parallel_state
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.models.gpt.gpt_model import GPTModel
    from megatron.core.transformer.transformer_config import TransformerConfig

    join_group(Place("cpu", place.folder))
    parallel_state.initialize_model_parallel(create_gloo_process_groups=False)
    shape = QWEN3_4B
    config = TransformerConfig(
        num_layers=shape["num_hidden_layers"],
        hidden_size=shape["hidden_size"],
        ffn_hidden_size=shape["intermediate_size"],
        num_attention_heads=shape["num_attention_heads"],
        num_query_groups=shape["num_key_value_heads"],
        kv_channels=shape["head_dim"],
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        qk_layernorm=True,
        normalization="RMSNorm",
        use_cpu_initialization=True,
        perform_initialization=False,
    )
    with torch.device("meta"):
        model = GPTModel(
            config=config,
            transformer_layer_spec=get_gpt_layer_local_spec(qk_layernorm=True, normalization="RMSNorm"),
            vocab_size=shape["vocab_size"],
            max_sequence_length=64,
            share_embeddings_and_output_weights=True,
            position_embedding_type="rope",
        )
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != PARAMETERS:
        raise Unexpected(f"{count} parameters instead of {PARAMETERS}", {"parameters": count})
    return {"parameters": count, "on": "meta device"}


def log_probs(place: Place) -> dict[str, Any]:
    """The pass that gives the old log-probs and the reference's."""
    found = _log_probs(place, _engine(place), entropy=False)
    (place.folder / MEAN).write_text(str(found["mean_log_probs"]))
    return found


def log_probs_with_entropy(place: Place) -> dict[str, Any]:
    """The pass that gives the old log-probs and what the report calls entropy."""
    return _log_probs(place, _engine(place), entropy=True)


def update(place: Place) -> dict[str, Any]:
    """Forward and backward over one full micro-batch, with full recomputation as the configuration says."""
    found = _update(place, _engine(place), TOKENS[place.device], entropy=False)
    if found["mfu"] is not None:
        found["aim_mfu"], found["aim_met"] = MFU_AIM, found["mfu"] >= MFU_AIM
    return found


def update_with_entropy(place: Place) -> dict[str, Any]:
    """What `actor.calculate_entropy` would cost in the update: half the tokens, so that its logits fit."""
    tokens = TOKENS[place.device] // 2
    engine = _engine(place)
    return {
        "without": _update(place, engine, tokens, entropy=False),
        "with_entropy": _update(place, engine, tokens, entropy=True),
    }


def without_fusions(place: Place) -> dict[str, Any]:
    """The same passes with RoPE and SwiGLU in PyTorch's own operations."""
    engine = _make(place, fusions=False)
    found = {
        "log_probs": _log_probs(place, engine, entropy=False),
        "update": _update(place, engine, TOKENS[place.device], entropy=False),
    }
    with_fusions = place.folder / MEAN
    if with_fusions.exists():
        difference = abs(found["log_probs"]["mean_log_probs"] - float(with_fusions.read_text()))
        found["difference"] = round(difference, 5)
        if not difference < ROUNDING:
            raise Unexpected("fused kernels give other log-probs", found)
    return found


@functools.cache
def _folder(place: Place) -> Path:
    return model_folder(place)


@functools.cache
def _engine(place: Place) -> Any:
    """One for all checks of this process: it takes a minute to make."""
    return _make(place, fusions=True)


def _make(place: Place, fusions: bool) -> Any:
    return make_engine(place, _folder(place), optimizer=False, fusions=fusions)


def _model(place: Place) -> dict[str, Any]:
    return {"model": "Qwen3-4B's shape" if place.device == "cuda" else "the tiny model"}


def _sizes(place: Place, tokens: int) -> list[int]:
    return lengths(tokens, LONGEST[place.device])


def _log_probs(place: Place, engine: Any, entropy: bool) -> dict[str, Any]:
    shape, sizes = shape_of(_folder(place)), _sizes(place, TOKENS[place.device])

    def work() -> Any:
        with engine.eval_mode():
            return engine.infer_batch(batch(sizes, shape["vocab_size"], entropy=entropy))["model_output"]

    passed = timed(place, work, flops_of(shape, sizes, backward=False), sum(sizes))
    found = _model(place) | passed.measured(device_name(place))
    (output,) = passed.outputs
    for name in ("log_probs", "entropy") if entropy else ("log_probs",):
        values = output[name].values().float()
        found[f"mean_{name}"] = round(values.mean().item(), 5)
        if not torch.isfinite(values).all():
            raise Unexpected(f"{name} that are not finite", found)
    return found


def _update(place: Place, engine: Any, tokens: int, entropy: bool) -> dict[str, Any]:
    shape, sizes = shape_of(_folder(place)), _sizes(place, tokens)

    def work() -> Any:
        for module in engine.module:
            module.train()
            module.zero_grad_buffer()
        return engine.forward_backward_batch(
            batch(sizes, shape["vocab_size"], entropy=entropy), loss, forward_only=False
        )

    passed = timed(place, work, flops_of(shape, sizes, backward=True), sum(sizes))
    found = _model(place) | passed.measured(device_name(place))
    (output,) = passed.outputs
    gradients = [p.main_grad for module in engine.module for p in module.parameters()]
    norm = torch.stack([gradient.norm().float() for gradient in gradients]).norm().item()
    found |= {"loss": round(float(torch.tensor(output["loss"]).mean()), 5), "gradient_norm": round(norm, 5)}
    if not (torch.isfinite(torch.tensor([found["loss"], norm])).all() and norm > 0):
        raise Unexpected("a loss or gradients that are not finite, or no gradients", found)
    return found
