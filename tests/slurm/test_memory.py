"""The memory estimate against models whose size is known."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.config.load import load_config, load_sft_config
from medserl.slurm.memory import GIB, estimate, parameter_count, stage_parameters
from medserl.ward import model_dir

from .test_jobs import QWEN3_4B

NOTES = "medserl.notes.path=x"
QWEN3_06B = {
    **QWEN3_4B,
    **{"hidden_size": 1024, "num_hidden_layers": 28, "intermediate_size": 3072, "num_attention_heads": 16},
}
WARD = json.loads((model_dir() / "config.json").read_text())
SHIPPED = (
    ("qwen3_4b_1node", QWEN3_4B, 80),
    ("qwen3_4b_multinode", QWEN3_4B, 80),
    ("qwen3_4b_1gpu", QWEN3_4B, 80),
    ("qwen3_0.6b_debug", QWEN3_06B, 24),
    ("embedded_gpu", WARD, 16),
)


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
        sizes[pipeline] = estimate(load_config("qwen3_4b_multinode", [NOTES, override]), QWEN3_4B)
    assert sizes[1].weights > sizes[2].weights > sizes[4].weights
    assert sizes[1].training > sizes[2].training > sizes[4].training
    assert sizes[2].checkpoint == pytest.approx(14 * 4.02e9, rel=0.01)


def test_the_stages_of_qwen3_4b() -> None:
    """First and last stage have the embedding, which is tied: its average would be 1.006e9."""
    assert stage_parameters(QWEN3_4B, 2, 2, 0) == pytest.approx(1.103e9, rel=1e-3)
    assert stage_parameters(QWEN3_4B, 2, 2, 1) == pytest.approx(1.103e9, rel=1e-3)
    assert stage_parameters(QWEN3_4B, 1, 4, 1) == pytest.approx(0.908e9, rel=1e-3)
    assert stage_parameters(QWEN3_4B, 1, 1, 0) == parameter_count(QWEN3_4B)


@pytest.mark.engine
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_parameters_of_each_rank_are_megatrons_own(tied: bool) -> None:
    """megatron-core's own model, built without memory on every rank of several layouts."""
    shape = {
        **{"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 96, "num_attention_heads": 8},
        **{"num_key_value_heads": 4, "head_dim": 16, "vocab_size": 512, "tie_word_embeddings": tied},
    }
    layouts = [(1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4), (2, 4)]
    script = Path(__file__).with_name("megatron_sizes.py")
    command = [sys.executable, str(script), json.dumps(shape), json.dumps(layouts)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    counted = json.loads(answer.stdout.strip().splitlines()[-1])
    assert len(counted) == sum(pp for _, pp in layouts)
    for (tp, pp, stage), count in counted:
        assert stage_parameters(shape, tp, pp, stage) == count, (tp, pp, stage)


def test_the_shipped_configurations_fit_their_gpus() -> None:
    for name, model, gigabytes in SHIPPED:
        config = load_config(name, [NOTES])
        need = estimate(config, model)
        total = gigabytes * GIB
        assert need.training < 0.95 * total, name
        rollout = config.actor_rollout_ref.rollout
        assert need.rollout(rollout.gpu_memory_utilization * total, not rollout.enforce_eager) < 0.97 * total, name


def test_the_warm_start_fits_its_gpus() -> None:
    need = estimate(load_sft_config("sft_qwen3_4b", [NOTES]), QWEN3_4B)
    assert need.resident == pytest.approx(18.1e9, rel=0.01)
    assert need.training < 0.7 * 80 * GIB


def test_one_gpu_needs_its_optimizer_on_the_host() -> None:
    one = estimate(load_config("qwen3_4b_1gpu", [NOTES]), QWEN3_4B)
    assert one.optimizer == one.resident == one.reference == 0
    assert one.weights + one.gradients == pytest.approx(24.1e9, rel=0.01)
    assert one.host_saving < 256 * GIB
    without = "actor_rollout_ref.actor.optim.override_optimizer_config.optimizer_cpu_offload=false"
    assert estimate(load_config("qwen3_4b_1gpu", [NOTES, without]), QWEN3_4B).training > 80 * GIB
    assert estimate(load_config("qwen3_4b_1node", [NOTES, "trainer.n_gpus_per_node=2"]), QWEN3_4B).resident > 40e9


def test_entropy_costs_logits() -> None:
    actor = "actor_rollout_ref.actor"
    plain = estimate(load_config("qwen3_4b_1node", [NOTES]), QWEN3_4B)
    wasted = estimate(load_config("qwen3_4b_1node", [NOTES, f"{actor}.calculate_entropy=true"]), QWEN3_4B)
    logits = 4 * 24576 * 151936 / 2
    assert wasted.activations - plain.activations == pytest.approx(1.5 * logits)
    whole = load_config("qwen3_4b_1node", [NOTES, f"{actor}.entropy_from_logits_with_chunking=false"])
    assert estimate(whole, QWEN3_4B).log_probs - plain.log_probs == pytest.approx(logits)


def test_host_memory_of_a_checkpoint() -> None:
    """World tensors on one rank of each share at a save, on every rank at a load; none of them in the other form."""
    node = estimate(load_config("qwen3_4b_1node", [NOTES]), QWEN3_4B)
    assert node.host_saving == pytest.approx(2 * 24 * 2.01e9 + 8 * 12 * 2.01e9 / 4, rel=0.01)
    assert node.host_loading == pytest.approx(8 * 24 * 2.01e9, rel=0.01)
    key = "actor_rollout_ref.actor.megatron.dist_ckpt_optim_fully_reshardable=false"
    assert estimate(load_config("qwen3_4b_1node", [NOTES, key]), QWEN3_4B).host_loading == pytest.approx(48e9, rel=0.01)
