"""vLLM's linear layers keep their weight, and take a new one; on GPUs the plug-in does nothing."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.cpu.environment import cpu_environment
from medserl.cpu.probe import ProbeResult
from medserl.cpu.vllm_plugin import below_amx

CODE = """
import os, torch
from vllm.model_executor.layers import utils
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.plugins import load_general_plugins

def packed_layer():
    layer = torch.nn.Linear(64, 48, bias=False).requires_grad_(False)
    method.process_weights_after_loading(layer)
    return layer

method = UnquantizedLinearMethod()
upstream = utils.dispatch_cpu_unquantized_gemm
platform = os.environ.pop("VERL_PLATFORM")
from medserl.cpu import vllm_plugin
vllm_plugin.register()
assert utils.dispatch_cpu_unquantized_gemm is upstream, "the plug-in acts without VERL_PLATFORM=cpu"
assert packed_layer().weight.numel() == 0, "vLLM keeps the weight by itself now: the patch can go"

os.environ["VERL_PLATFORM"] = platform
load_general_plugins()
ours = utils.dispatch_cpu_unquantized_gemm
assert ours is not upstream
vllm_plugin.register()  # vLLM may call it again in the same process
assert utils.dispatch_cpu_unquantized_gemm is ours

layer, x = packed_layer(), torch.randn(5, 64)
for _ in range(3):
    layer.weight.copy_(torch.randn(48, 64))  # as verl loads what the trainer sends
    method.process_weights_after_loading(layer)
    torch.testing.assert_close(method.apply(layer, x), x @ layer.weight.T, rtol=1e-4, atol=1e-4)
"""


FORK = """
import os, sys
from pathlib import Path
from engine_reference import SIZES, make_model
from transformers import Qwen3Config
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.system_utils import get_mp_context

model = Path(sys.argv[1])
make_model(model, Qwen3Config(**SIZES, head_dim=32))
for threads, method in (("2", "spawn"), ("1", "fork")):
    os.environ["OMP_NUM_THREADS"] = threads
    arguments = EngineArgs(model=str(model), dtype="float32", enforce_eager=True)  # loads the plug-ins
    arguments.create_engine_config()
    assert get_mp_context().get_start_method() == method, (threads, method)
    from medserl.cpu import vllm_plugin
    os.environ["OMP_NUM_THREADS"] = "1"
    vllm_plugin.register()
"""


def run(code: str, *arguments: str) -> None:
    here = Path(__file__).parent
    environment = {**os.environ, **cpu_environment(ProbeResult()), "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**environment, "PYTHONPATH": os.pathsep.join([str(here.parents[1]), str(here)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_new_weights_take_effect() -> None:
    run(CODE)


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_processes_are_forked_where_there_is_no_pool_of_threads(tmp_path: Path) -> None:
    run(FORK, str(tmp_path))


def test_vllm_finds_it() -> None:
    found = importlib.metadata.entry_points(group="vllm.general_plugins", name="medserl_cpu")
    assert [entry.value for entry in found] == ["medserl.cpu.vllm_plugin:register"]


@pytest.mark.parametrize("isa", ["AVX512_CORE_BF16", "avx2", "SSE41", " AVX512_CORE "])
def test_caps_below_amx(isa: str) -> None:
    assert below_amx(isa)


@pytest.mark.parametrize("isa", ["", "ALL", "DEFAULT", "AVX512_CORE_AMX", "avx512_core_amx_fp16"])
def test_no_cap_below_amx(isa: str) -> None:
    assert not below_amx(isa)
