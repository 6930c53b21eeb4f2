"""Estimates what a training job needs of each GPU's memory, from shapes alone. No torch.

Bytes per parameter as megatron-core keeps them (distributed optimizer, bf16): weights 2, gradients 4 (float32
accumulation), and 12 for the float32 master copy and Adam's two moments, shared between data-parallel ranks.
Activations with full recomputation keep one hidden state per layer and token; without it, 34 bytes per token, layer and
hidden element (Korthikanti et al. 2022, "Reducing Activation Recomputation", equation 2 without the attention's part,
which flash attention does not keep). An estimate to refuse the hopeless with, not a promise: fragmentation and
NCCL's buffers come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

GIB = 2**30
_OVERHEAD = 2 * GIB  # CUDA context, NCCL's buffers, allocator


@dataclass(frozen=True)
class Estimate:
    """Bytes on one GPU."""

    parameters: int
    """Of the whole model, not bytes."""
    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float

    @property
    def training(self) -> float:
        """All that is there while the update runs."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.activations + _OVERHEAD

    @property
    def checkpoint(self) -> float:
        """Bytes of one checkpoint on disk: weights in bf16 and the optimizer's state."""
        return 14.0 * self.parameters


def parameter_count(model: Mapping[str, Any]) -> int:
    """Parameters of a Qwen3 model from its config.json."""
    hidden, layers, inner = model["hidden_size"], model["num_hidden_layers"], model["intermediate_size"]
    heads, groups = model["num_attention_heads"], model["num_key_value_heads"]
    head = model.get("head_dim") or hidden // heads
    attention = 2 * hidden * heads * head + 2 * hidden * groups * head + 2 * head
    embeddings = model["vocab_size"] * hidden * (1 if model.get("tie_word_embeddings") else 2)
    return int(layers * (attention + 3 * hidden * inner + 2 * hidden) + hidden + embeddings)


def estimate(config: DictConfig, model: Mapping[str, Any]) -> Estimate:
    """What the actor's and the reference's workers hold on one GPU, vLLM asleep.

    Args:
        config: A training configuration, resolved.
        model: The model's config.json.
    """
    actor = config.actor_rollout_ref.actor
    tp, pp = actor.megatron.tensor_model_parallel_size, actor.megatron.pipeline_model_parallel_size
    world = config.trainer.nnodes * config.trainer.n_gpus_per_node
    dp = max(1, world // (tp * pp * actor.megatron.context_parallel_size))
    total = parameter_count(model)
    share = total / (tp * pp)
    offloaded = OmegaConf.select(config, "actor_rollout_ref.ref.megatron.param_offload")
    return Estimate(
        parameters=total,
        weights=2 * share,
        gradients=4 * share,
        optimizer=12 * share / dp,
        reference=0 if offloaded else 2 * share,
        activations=_activations(config, model),
    )


def _activations(config: DictConfig, model: Mapping[str, Any]) -> float:
    actor = config.actor_rollout_ref.actor
    tp, pp = actor.megatron.tensor_model_parallel_size, actor.megatron.pipeline_model_parallel_size
    if actor.use_dynamic_bsz:
        tokens = actor.ppo_max_token_len_per_gpu
    else:
        longest = config.data.max_prompt_length + config.data.max_response_length
        tokens = (actor.ppo_micro_batch_size_per_gpu or 1) * longest
    hidden, layers = model["hidden_size"], model["num_hidden_layers"] / pp
    split = tp if actor.megatron.sequence_parallel else 1
    per_layer = 34 * tokens * hidden / split
    recomputes = OmegaConf.select(actor.megatron, "override_transformer_config.recompute_granularity") == "full"
    kept = 2 * tokens * hidden / split * layers + per_layer if recomputes else per_layer * layers
    logits = 2 * 4 * tokens * model["vocab_size"] / tp  # float32, and their gradient
    return float(kept + logits)
