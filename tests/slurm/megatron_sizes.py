"""Prints what each pipeline stage of megatron-core's own Qwen3-shaped model holds on a tensor-parallel rank.

Run by tests/slurm/test_memory.py in a process of its own: SHAPE LAYOUTS, both JSON. Ranks are torch's fake ones, and
tensors have no memory (the meta device).
"""

import json
import sys

import torch
from megatron.core import parallel_state
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.transformer.transformer_config import TransformerConfig
from torch.testing._internal.distributed.fake_pg import FakeStore


def count(shape: dict[str, int], tp: int, pp: int, stage: int) -> int:
    """Parameters on the first tensor-parallel rank of a stage."""
    torch.distributed.init_process_group("fake", store=FakeStore(), rank=stage * tp, world_size=tp * pp)
    parallel_state.initialize_model_parallel(tp, pp, create_gloo_process_groups=False)
    assert parallel_state.get_pipeline_model_parallel_rank() == stage
    config = TransformerConfig(
        num_layers=shape["num_hidden_layers"],
        hidden_size=shape["hidden_size"],
        ffn_hidden_size=shape["intermediate_size"],
        num_attention_heads=shape["num_attention_heads"],
        num_query_groups=shape["num_key_value_heads"],
        kv_channels=shape["head_dim"],
        tensor_model_parallel_size=tp,
        pipeline_model_parallel_size=pp,
        pipeline_dtype=torch.bfloat16,
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
            pre_process=stage == 0,
            post_process=stage == pp - 1,
            share_embeddings_and_output_weights=bool(shape["tie_word_embeddings"]),
            position_embedding_type="rope",
        )
    total = sum(parameter.numel() for parameter in model.parameters())
    parallel_state.destroy_model_parallel()
    torch.distributed.destroy_process_group()
    return total


if __name__ == "__main__":
    shape, layouts = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    torch.Tensor.cuda = lambda tensor, *_: tensor  # a tied embedding is moved there before ranks agree on it
    print(json.dumps([((tp, pp, s), count(shape, tp, pp, s)) for tp, pp in layouts for s in range(pp)]))
