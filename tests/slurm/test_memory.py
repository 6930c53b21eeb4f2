"""The memory estimate against models whose size is known."""

import json
import struct

import pytest

from medserl.config.load import load_config
from medserl.slurm.memory import estimate, parameter_count
from medserl.ward import model_dir

from .test_jobs import QWEN3_4B


def test_parameters_of_qwen3_4b() -> None:
    assert parameter_count(QWEN3_4B) == 4_022_468_096  # transformers, Qwen3ForCausalLM on the meta device


def test_parameters_of_the_models_own_weights() -> None:
    """Counted in the headers of the safetensors that lie in the package."""
    total = 0
    for path in model_dir().glob("*.safetensors"):
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for dimension in tensor["shape"]:
                    size *= dimension
                total += size
    assert parameter_count(json.loads((model_dir() / "config.json").read_text())) == total


def test_estimate_shrinks_with_the_layout() -> None:
    sizes = {}
    for pipeline in (1, 2, 4):
        override = f"actor_rollout_ref.actor.megatron.pipeline_model_parallel_size={pipeline}"
        config = load_config("qwen3_4b_multinode", ["medserl.notes.path=x", override])
        sizes[pipeline] = estimate(config, QWEN3_4B)
    assert sizes[1].weights == 2 * sizes[2].weights == 4 * sizes[4].weights
    assert sizes[1].optimizer == pytest.approx(sizes[2].optimizer)  # half the share, half the replicas to share it
    assert sizes[1].training > sizes[2].training > sizes[4].training
    assert sizes[2].checkpoint == pytest.approx(14 * 4.02e9, rel=0.01)
