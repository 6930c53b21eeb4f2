"""Prints what each pipeline stage of megatron-core's own models holds on a tensor-parallel rank, optimizer included.

Run by tests/planning/test_megatron.py in a process of its own: JSON cases in, JSON sizes out. Ranks are torch's fake
ones, and tensors have no memory (the meta device).
"""

import json
import sys
from typing import Any

import torch
from mbridge.utils.post_creation_callbacks import make_value_model
from megatron.core import parallel_state
from megatron.core.distributed import DistributedDataParallel, DistributedDataParallelConfig
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.testing._internal.distributed.fake_pg import FakeStore

from medserl.cpu.cuda_names import CudaToCPU


class MetaAsCuda(CudaToCPU):
    """A tensor without memory answers with the type that it would have on a GPU."""

    def __torch_function__(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().__torch_function__(*args, **kwargs)
        return answer.replace(".meta.", ".") if isinstance(answer, str) else answer


def build(case: dict[str, Any], stage: int) -> tuple[TransformerConfig, GPTModel]:
    """The model of a stage's first tensor-parallel rank."""
    shape, tp, pp = case["shape"], case["tp"], case["pp"]
    config = TransformerConfig(
        num_layers=shape["layers"],
        hidden_size=shape["hidden"],
        ffn_hidden_size=shape["intermediate"],
        num_attention_heads=shape["heads"],
        num_query_groups=shape["groups"],
        kv_channels=shape["head"],
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        num_layers_in_first_pipeline_stage=case.get("first"),
        num_layers_in_last_pipeline_stage=case.get("last"),
        pipeline_dtype=torch.bfloat16,
        params_dtype=torch.bfloat16,
        bf16=True,
        gated_linear_unit=True,
        activation_func=torch.nn.functional.silu,
        add_bias_linear=False,
        add_qkv_bias=shape["qkv_bias"],
        qk_layernorm=shape["qk_norm"],
        normalization="RMSNorm",
        use_cpu_initialization=True,
        perform_initialization=False,
    )
    with torch.device("meta"):
        model = GPTModel(
            config=config,
            transformer_layer_spec=get_gpt_layer_local_spec(qk_layernorm=shape["qk_norm"], normalization="RMSNorm"),
            vocab_size=shape["vocab"],
            max_sequence_length=64,
            pre_process=stage == 0,
            post_process=stage == pp - 1,
            share_embeddings_and_output_weights=shape["tied"] and not case.get("critic"),
            position_embedding_type="rope",
        )
        if case.get("critic"):
            make_value_model(model, stage == 0, stage == pp - 1, config, None)
    return config, model


def stage_size(case: dict[str, Any], stage: int) -> dict[str, float]:
    """Parameters, and, where ``dp`` says so, bytes of weights, gradients and the optimizer on data-parallel rank 0."""
    tp, pp, dp = case["tp"], case["pp"], case.get("dp", 1)
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=stage * tp * dp, world_size=tp * pp * dp)
    parallel_state.initialize_model_parallel(tp, pp, create_gloo_process_groups=False)
    assert parallel_state.get_pipeline_model_parallel_rank() == stage
    config, model = build(case, stage)
    found: dict[str, float] = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    if "dp" in case:
        found |= trained(config, model.bfloat16())
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()
    return found


def trained(config: TransformerConfig, model: GPTModel) -> dict[str, float]:
    """Bytes of the buffers of weights and gradients, and of one rank's master copy and moments."""
    ddp = DistributedDataParallelConfig(use_distributed_optimizer=True, grad_reduce_in_fp32=True)
    wrapped = DistributedDataParallel(config, ddp, model)
    options = OptimizerConfig(optimizer="adam", lr=1e-4, bf16=True, use_distributed_optimizer=True)
    with MetaAsCuda():
        optimizer = get_megatron_optimizer(options, [wrapped], use_gloo_process_groups=False)
    parts = getattr(optimizer, "chained_optimizers", [optimizer])
    master = sum(
        shard.numel()
        for part in parts
        for group in (*part.shard_fp32_from_float16_groups, *part.shard_fp32_groups)
        for shard in group
    )
    return {
        "weights": sum(buffer.param_data.nbytes for buffer in wrapped.buffers),
        "gradients": sum(buffer.grad_data.nbytes for buffer in wrapped.buffers),
        "optimizer": 12 * master,
    }


if __name__ == "__main__":
    torch.Tensor.cuda = lambda tensor, *_: tensor  # a tied embedding is moved there before ranks agree on it
    torch.cuda.current_device = lambda: "meta"
    torch.cuda.is_available = lambda: False
    torch.cuda.synchronize = lambda *_: None
    cases = json.loads(sys.argv[1])
    print(json.dumps([[stage_size(case, stage) for stage in range(case["pp"])] for case in cases]))
