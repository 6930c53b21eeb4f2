"""Estimates what a training job needs of each GPU's and each host's memory, from shapes alone. No torch.

Parameters are counted exactly, stage by stage, as megatron-core 0.16 lays them out (tests/slurm/test_memory.py counts
them in its own models). Bytes per parameter (distributed optimizer, bf16): weights 2, gradients 4 (float32
accumulation), and 12 for the float32 master copy and Adam's two moments, shared between data-parallel ranks.
Activations with full recomputation keep one hidden state per layer and token; without it, 34 bytes per token, layer and
hidden element (Korthikanti et al. 2022, "Reducing Activation Recomputation", equation 2 without the attention's part,
which flash attention does not keep). An estimate to refuse the hopeless with, not a promise:
nothing of it was measured on a GPU, and fragmentation comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.families import FAMILIES, family_of, head_width

GIB = 2**30
# A CUDA context each for the trainer and vLLM, NCCL's buffers, workspaces of cuBLAS and cuDNN.
_CONTEXTS = 3 * GIB
# vLLM's CUDA graphs: not in its share of the GPU (its new model runner counts them as 0), and sleep does not free them.
_GRAPHS = 1.5 * GIB
_WORLD = 12  # bytes per parameter of a checkpoint's optimizer: master copy and two moments, float32


@dataclass(frozen=True)
class Layout:
    """How a training is split and what it moves to the host: of verl's actor, or of its supervised trainer."""

    tp: int
    pp: int
    dp: int
    gpus_per_node: int
    tokens: int
    """Of one micro-batch."""
    split: int
    """By how much sequence parallelism divides a token's hidden states."""
    recomputes: bool
    entropy_copies: float
    """Float32 tensors of logits in the largest pass without gradients; 0 where there is none."""
    update_copies: float
    """The same in an update."""
    param_offload: bool = False
    optimizer_offload: bool = False
    cpu_adam: float = 0.0
    """Share of the optimizer that lives and computes on the host."""
    reference: bool = False
    reference_offload: bool = False
    reshardable: bool = False


def layout(config: DictConfig) -> Layout:
    """The layout of a resolved training or fine-tuning configuration."""
    return _sft_layout(config) if "engine" in config else _train_layout(config)


def _train_layout(config: DictConfig) -> Layout:
    actor, reference = config.actor_rollout_ref.actor, config.actor_rollout_ref.ref.megatron
    if actor.use_dynamic_bsz:
        tokens = actor.ppo_max_token_len_per_gpu
    else:
        longest = config.data.max_prompt_length + config.data.max_response_length
        tokens = (actor.ppo_micro_batch_size_per_gpu or 1) * longest
    entropy = bool(actor.calculate_entropy or actor.entropy_coeff)
    # verl 0.9.1, transformer_impl.py, logits_processor: the logits and, for the entropy, a clone of them and what its
    # formula makes of them; in pieces where it is chunked, which keeps them all for a backward pass. Half a tensor is
    # the bf16 output that the float32 logits are made of.
    chunked = bool(actor.entropy_from_logits_with_chunking)
    return Layout(
        **_split(config, actor.megatron, actor.optim),
        tokens=tokens,
        entropy_copies=2.5 if chunked else 3.5,
        update_copies=4.0 if entropy else 2.5,
        reference=bool(config.algorithm.use_kl_in_reward or actor.use_kl_loss),
        reference_offload=bool(reference.param_offload),
    )


def _sft_layout(config: DictConfig) -> Layout:
    data = config.data
    tokens = data.max_token_len_per_gpu if data.use_dynamic_bsz else data.micro_batch_size_per_gpu * data.max_length
    split = _split(config, config.engine, config.optim)
    return Layout(**split, tokens=tokens, entropy_copies=0.0, update_copies=2.5)


def _split(config: DictConfig, megatron: DictConfig, optim: DictConfig) -> dict[str, Any]:
    tp, pp = megatron.tensor_model_parallel_size, megatron.pipeline_model_parallel_size
    own = optim.get("override_optimizer_config") or {}
    return {
        "tp": tp,
        "pp": pp,
        "dp": max(1, config.trainer.nnodes * config.trainer.n_gpus_per_node // (tp * pp)),
        "gpus_per_node": config.trainer.n_gpus_per_node,
        "split": tp if megatron.sequence_parallel else 1,
        "recomputes": OmegaConf.select(megatron, "override_transformer_config.recompute_granularity") == "full",
        "param_offload": bool(megatron.param_offload),
        "optimizer_offload": bool(megatron.optimizer_offload),
        "cpu_adam": float(own.get("optimizer_offload_fraction", 0.0)) if own.get("optimizer_cpu_offload") else 0.0,
        "reshardable": bool(megatron.get("dist_ckpt_optim_fully_reshardable")),
    }


@dataclass(frozen=True)
class Estimate:
    """Bytes on the fullest GPU, and on one host."""

    parameters: int
    """Of the whole model, not bytes."""
    weights: float
    gradients: float
    optimizer: float
    reference: float
    activations: float
    """Of an update, logits included."""
    log_probs: float
    """Logits of the pass before it, which has no gradients."""
    resident: float
    """What of all these stays on the GPU while vLLM generates."""
    host_saving: float
    """Host memory of one node's training processes while a checkpoint is written."""
    host_loading: float
    """The same while one is read."""

    @property
    def training(self) -> float:
        """All that is there at the fullest moment of training, vLLM asleep."""
        model = self.weights + self.gradients + self.optimizer + self.reference
        return model + max(self.activations, self.log_probs) + _CONTEXTS + _GRAPHS

    @property
    def checkpoint(self) -> float:
        """Bytes of one checkpoint on disk: weights in bf16 and the optimizer's state."""
        return 14.0 * self.parameters

    def rollout(self, vllm: float, graphs: bool) -> float:
        """All that is there while vLLM, with ``vllm`` bytes of its own, generates."""
        return self.resident + vllm + _CONTEXTS + (_GRAPHS if graphs else 0)


def parameter_count(model: Mapping[str, Any]) -> int:
    """Parameters of a model of a known family from its config.json."""
    embeddings = model["vocab_size"] * model["hidden_size"] * (1 if model.get("tie_word_embeddings") else 2)
    return int(model["num_hidden_layers"] * _layer(model, 1) + model["hidden_size"] + embeddings)


def _layer(model: Mapping[str, Any], tp: int) -> int:
    """Parameters of one layer on one of ``tp`` ranks: matrices and biases are divided, norms are on each of them."""
    family = family_of(model) or FAMILIES["Qwen3ForCausalLM"]
    hidden, heads, groups = model["hidden_size"], model["num_attention_heads"], model["num_key_value_heads"]
    head = head_width(model)
    matrices = 2 * hidden * heads * head + 2 * hidden * groups * head + 3 * hidden * model["intermediate_size"]
    biases = (heads + 2 * groups) * head if family.qkv_bias else 0
    return int((matrices + biases) // tp + (2 * head if family.qk_norm else 0) + 2 * hidden)


def stage_parameters(model: Mapping[str, Any], tp: int, pp: int, stage: int) -> int:
    """Parameters that one tensor-parallel rank of a pipeline stage holds.

    The first stage has the embedding, the last one the final norm and the output layer: a matrix of its own, or, where
    the two are tied, the embedding once more unless the first stage is the last.
    """
    embedding = model["vocab_size"] * model["hidden_size"] // tp
    count = model["num_hidden_layers"] // pp * _layer(model, tp)
    if stage == 0:
        count += embedding
    if stage == pp - 1:
        count += model["hidden_size"]
        if pp > 1 or not model.get("tie_word_embeddings"):
            count += embedding
    return int(count)


def estimate(config: DictConfig, model: Mapping[str, Any]) -> Estimate:
    """What a training or fine-tuning holds on its fullest GPU and on a host.

    Args:
        config: A configuration of ``load_config`` or ``load_sft_config``.
        model: The model's config.json.
    """
    split = layout(config)
    stages = [_stage(split, model, stage) for stage in range(split.pp)]
    return max(stages, key=lambda stage: stage.training)


def _stage(split: Layout, model: Mapping[str, Any], stage: int) -> Estimate:
    share = stage_parameters(model, split.tp, split.pp, stage)
    last = stage == split.pp - 1
    logits = 4.0 * split.tokens * model["vocab_size"] / split.tp if last else 0.0
    weights, gradients = 2.0 * share, 4.0 * share
    optimizer = _WORLD * share / split.dp * (1 - split.cpu_adam)
    reference = 2.0 * share if split.reference else 0.0
    kept = 0.0 if split.reference_offload else reference
    resident = kept + (0.0 if split.param_offload else weights + gradients)
    saving, loading = _host(split, share)
    return Estimate(
        parameters=parameter_count(model),
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        reference=kept,
        activations=_layers(split, model, split.pp - stage) + split.update_copies * logits,
        log_probs=split.entropy_copies * logits,
        resident=resident + (0.0 if split.optimizer_offload else optimizer),
        host_saving=saving,
        host_loading=loading,
    )


def _layers(split: Layout, model: Mapping[str, Any], under_way: int) -> float:
    """Kept for the backward pass of ``under_way`` micro-batches, as many as a pipeline's stage has begun at once."""
    layers = model["num_hidden_layers"] / split.pp
    hidden = split.tokens * model["hidden_size"] / split.split
    return float(
        2 * hidden * layers * under_way + 34 * hidden if split.recomputes else 34 * hidden * layers * under_way
    )


def _host(split: Layout, share: int) -> tuple[float, float]:
    """Host bytes of a node at a save and at a load (megatron-core 0.16.1: distrib_optimizer.py, filesystem_async.py).

    Every rank has its own part of the optimizer's state there to be written. In the reshardable form, the first
    data-parallel rank of each share gathers all of that share, and clones it for the writer; at a load, each rank does.
    """
    ranks = split.gpus_per_node
    own = _WORLD * share / split.dp
    # What lives on the host all along: Adam's share of it with copies of its gradients, weights that were moved there.
    always = ranks * split.cpu_adam * (own + 4.0 * share / split.dp)
    always += ranks * 2.0 * share * (split.param_offload + (split.reference and split.reference_offload))
    always += ranks * own * (1 - split.cpu_adam) * split.optimizer_offload
    if not split.reshardable:
        return always + ranks * own, always + ranks * own
    gathering = min(ranks, split.tp * split.pp)
    return always + ranks * own + gathering * 2.0 * _WORLD * share, always + ranks * 2.0 * _WORLD * share
