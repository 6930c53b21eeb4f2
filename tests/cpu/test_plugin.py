"""The verl platform and its hooks, each in a process of its own: verl decides once per process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.cpu.environment import cpu_environment
from medserl.cpu.probe import ProbeResult

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]

ACTIVE = """
import gc, sys, torch
import verl
assert gc.get_threshold()[0] == 50_000
from medserl.cpu import plugin
assert "megatron.core" not in sys.modules, "the plug-in loaded Megatron"
plugin.assert_active()
plugin.activate()  # the second time nothing happens

from verl.utils import device
assert device.get_device_name() == "cpu" and device.get_nccl_backend() == "gloo"
assert torch.zeros(1).to(device.get_device_id()).device.type == "cpu"
assert device.get_resource_name() == "GPU" and not device.is_support_ipc()
module = device.get_torch_device()
assert module.memory_allocated() == module.max_memory_reserved() == 0
free, total = module.mem_get_info()
assert 0 < free <= total
module.empty_cache(); module.synchronize(); module.set_device(0)
torch.manual_seed(5)
saved = module.get_rng_state()
first = torch.rand(3)
module.set_rng_state(saved)
assert torch.equal(first, torch.rand(3))
from verl.plugin.platform import get_platform
with get_platform().nvtx_range("round"):
    get_platform().profiler_start(); get_platform().profiler_stop()
from verl.utils.flops_counter import get_device_flops
assert 0 < get_device_flops() < float("inf")

available, tensor_cuda = torch.cuda.is_available, torch.Tensor.cuda
import verl.workers.engine_workers as workers
assert workers.initialize_global_process_group_ray.keywords == {"backend": "gloo"}
from verl.workers.engine import EngineRegistry
from medserl.cpu.megatron import CPUMegatronEngineWithLMHead
assert EngineRegistry.get_engine_cls("language_model", "megatron") is CPUMegatronEngineWithLMHead
assert (torch.cuda.is_available, torch.Tensor.cuda) == (available, tensor_cuda), "stand-ins without an engine"
"""

INACTIVE = """
import gc, os, sys
import verl
from medserl.cpu import plugin
from verl.plugin.platform import PlatformRegistry, get_platform
assert "cpu" not in PlatformRegistry.registered_names()
assert gc.get_threshold()[0] < 50_000
assert not any(type(finder).__module__ == plugin.__name__ for finder in sys.meta_path)

def refusal():
    try:
        plugin.assert_active()
    except RuntimeError as error:
        return str(error)
assert "VERL_PLATFORM" in refusal(), refusal()
os.environ["VERL_PLATFORM"] = "cpu"  # too late
assert "before the environment" in refusal(), refusal()
del os.environ["VERL_PLATFORM"]
get_platform()
os.environ["VERL_PLATFORM"] = "cpu"
plugin.activate()
assert "'cuda'" in refusal(), refusal()
"""


def run(code: str, **variables: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VERL_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **variables, "PYTHONWARNINGS": "ignore"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_platform_and_hooks_where_verl_is_told_to_use_the_cpu() -> None:
    run(ACTIVE, **cpu_environment(ProbeResult()))


def test_nothing_happens_without_verl_platform() -> None:
    run(INACTIVE, VERL_USE_EXTERNAL_MODULES="medserl.cpu.plugin", CUDA_VISIBLE_DEVICES="")
