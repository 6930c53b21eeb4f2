"""Every known family between Hugging Face and megatron-core without Transformer Engine.

mbridge's bridges ask megatron-core for layers built from Transformer Engine, which exists
for GPUs only. These ask for megatron-core's own ("local") layers. They differ in two ways: the
norms are modules of their own, with weights of their own names, and attention is done by
``torch.nn.functional.scaled_dot_product_attention``, because the local one needs CUDA kernels or a
materialised mask.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.module import MegatronModule

from medserl.bridges import register


class SDPAttention(MegatronModule):
    """Causal self-attention in megatron's ``core_attention`` interface.

    ``forward``: query [s, b, h, d], key and value [s, b, g, d] with h a multiple of g (grouped
    queries), all of one floating dtype; returns [s, b, h*d]. Padding is on the right: a causal mask
    alone is right for every real token, and what padded rows hold is masked out by the caller.
    """

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: Any,
        attention_type: str,
        softmax_scale: float | None = None,
        **unused: Any,
    ) -> None:
        super().__init__(config=config)
        if config.attention_dropout:
            raise ValueError("attention_dropout is not supported on CPUs")
        if attention_type != "self":
            raise ValueError(f"only self-attention is supported on CPUs, not {attention_type!r}")
        self.scale = softmax_scale

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: Any = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> torch.Tensor:
        if packed_seq_params is not None or attention_bias is not None:
            raise ValueError("packed sequences and attention biases are not supported on CPUs")
        length, batch, heads, width = query.shape
        dtype = query.dtype
        # In float32: torch's bf16 attention takes four times as long here (131 against 35 ms for 40 rows of 160
        # tokens, forward and backward, one thread), and rounds more.
        query, key, value = (x.permute(1, 2, 0, 3).float() for x in (query, key, value))
        grouped = key.shape[1] != heads
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=self.scale, enable_gqa=grouped)
        return out.permute(2, 0, 1, 3).reshape(length, batch, heads * width).to(dtype)


class LocalLayers:
    """What a bridge on CPUs does otherwise than one of mbridge's, whichever family it is for. Importing this module
    registers one for each family."""

    config: Any
    has_vp_stage: bool

    _NORM_MAPPING: ClassVar = {
        "input_layernorm": "input_layernorm",
        "pre_mlp_layernorm": "post_attention_layernorm",
    }

    def _weight_name_mapping_mcore_to_hf(self, mcore_weights_name: str) -> list[str]:
        """Such as decoder.layers.3.input_layernorm.weight -> [model.layers.3.input_layernorm.weight]."""
        parts = mcore_weights_name.split(".")
        if len(parts) == 5 and parts[3] in self._NORM_MAPPING:
            return [f"model.layers.{parts[2]}.{self._NORM_MAPPING[parts[3]]}.weight"]
        found: list[str] = super()._weight_name_mapping_mcore_to_hf(mcore_weights_name)  # type: ignore[misc]
        return found

    def _get_transformer_layer_spec(self, vp_stage: int | None = None) -> Any:
        self.has_vp_stage = True  # read by mbridge's model provider
        spec = get_gpt_decoder_block_spec(self.config, use_transformer_engine=False, vp_stage=vp_stage)
        for layer in spec.layer_specs:
            layer.submodules.self_attention.submodules.core_attention = SDPAttention
        return spec


register(LocalLayers)
