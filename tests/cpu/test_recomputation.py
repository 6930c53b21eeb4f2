"""verl's own backward pass of recomputed layers, which it puts in place of megatron-core's on GPUs alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from medserl.bringup.machine import children_environment

SCRIPT = """
import sys
from pathlib import Path

import torch

import medserl.config.load as load
from medserl.bringup.child import Place

own = "++actor_rollout_ref.actor.megatron.override_transformer_config.recompute_"
words = [f"{own}granularity=full", f"{own}method=uniform", f"{own}num_layers=1"]
plain = load.load_config
load.load_config = lambda name, given: plain(name, [*given, *words])

from megatron.core.tensor_parallel import random
from medserl.bringup.engine import batch, lengths, loss, make_engine, model_with_weights, shape_of

place = Place("cpu", Path(sys.argv[1]))
folder = model_with_weights(place, 4)
engine = make_engine(place, folder, optimizer=False)
(module,) = engine.module
config = module.module.module.config if hasattr(module.module, "module") else module.module.config
assert config.recompute_granularity == "full"
calls = []


def gradients():
    module.train()
    module.zero_grad_buffer()
    engine.forward_backward_batch(batch(lengths(256, 96), shape_of(folder)["vocab_size"]), loss, forward_only=False)
    return torch.cat([p.main_grad.flatten().clone() for p in module.parameters()])


def counted(backward):
    def run(ctx, *args):
        calls.append(1)
        return backward(ctx, *args)

    return staticmethod(run)


random.CheckpointFunction.backward = counted(random.CheckpointFunction.backward)
megatrons = gradients()
assert len(calls) == config.num_layers, calls
from verl.models.mcore.patch import apply_patch_megatron_recomputation_backward

torch.cuda.current_stream = lambda *_: None
torch.Tensor.record_stream = lambda *_: None
apply_patch_megatron_recomputation_backward()
assert random.CheckpointFunction.backward.__name__ == "patch_backward"
verls = gradients()
config.recompute_granularity = None
whole = gradients()
assert megatrons.norm() > 0 and torch.equal(verls, megatrons), (verls - megatrons).norm() / megatrons.norm()
assert (whole - megatrons).norm() < 1e-5 * megatrons.norm(), (whole - megatrons).norm() / megatrons.norm()
print("equal")
"""


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_verls_recomputation_gives_megatrons_gradients(tmp_path: Path) -> None:
    """On CPUs, where a stream of CUDA's is nothing: the rest of it, the layers run again and what is freed after."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    environment = children_environment("cpu")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith("equal"), done.stderr[-800:]
