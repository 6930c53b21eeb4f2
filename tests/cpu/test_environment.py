"""Which device is chosen, what goes into the environment, and that none of it imports torch."""

import glob
import importlib.metadata
import logging
import subprocess
import sys

import pytest

from medserl.cpu import environment
from medserl.cpu.environment import PLUGIN_MODULE, choose_device, cpu_environment
from medserl.cpu.probe import ProbeResult
from medserl.errors import ConfigError


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an NVIDIA GPU and the packages for it."""
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/nvidia0"] if "nvidia" in pattern else [])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.24.0")


@pytest.mark.usefixtures("gpu_machine")
def test_auto_takes_the_gpu() -> None:
    assert choose_device("auto", {}) == "cuda"
    assert choose_device("auto", {"CUDA_VISIBLE_DEVICES": "1,0"}) == "cuda"


@pytest.mark.usefixtures("gpu_machine")
@pytest.mark.parametrize("hidden", ["", " ", "-1", "-1,0", "NoDevFiles", "none", "all", "void", "GPU", "x0", ",0"])
def test_auto_respects_hidden_gpus(hidden: str) -> None:
    assert choose_device("auto", {"CUDA_VISIBLE_DEVICES": hidden}) == "cpu"


@pytest.mark.usefixtures("gpu_machine")
@pytest.mark.parametrize(
    "shown", ["0", " 1,0", "GPU-8932f937", "MIG-8932f937", "MIG-GPU-8932f937/1/0", "0,-1", "0,none"]
)
def test_auto_takes_the_devices_that_cuda_reads(shown: str) -> None:
    assert choose_device("auto", {"CUDA_VISIBLE_DEVICES": shown}) == "cuda"
    assert environment.gpus_here({"CUDA_VISIBLE_DEVICES": shown}) == 1


@pytest.mark.usefixtures("gpu_machine")
def test_auto_with_cpu_packages_says_so(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.24.0+cpu")
    with caplog.at_level(logging.WARNING):
        assert choose_device("auto", {}) == "cpu"
    assert "Install the GPU requirements" in caplog.text


def test_auto_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_has_nvidia_device", lambda: False)
    assert choose_device("auto", {}) == "cpu"


def test_explicit_choice_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_has_nvidia_device", lambda: pytest.fail("looked"))
    assert choose_device("cuda", {"CUDA_VISIBLE_DEVICES": ""}) == "cuda"
    assert choose_device("cpu", {}) == "cpu"


def test_unknown_device() -> None:
    with pytest.raises(ConfigError, match="'gpu' is unknown; choose one of auto, cpu, cuda"):
        choose_device("gpu")


def test_cap_only_where_the_probe_says_so() -> None:
    assert "ONEDNN_MAX_CPU_ISA" not in cpu_environment(ProbeResult(), environ={})
    capped = cpu_environment(ProbeResult("AVX2", "SIGILL"), environ={})
    assert capped["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_users_cap_is_kept_and_nothing_is_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "probe", lambda: pytest.fail("probed"))
    assert cpu_environment(environ={"ONEDNN_MAX_CPU_ISA": "AVX2"})["ONEDNN_MAX_CPU_ISA"] == "AVX2"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, PLUGIN_MODULE),
        ({"VERL_USE_EXTERNAL_MODULES": "mine,other"}, f"mine,other,{PLUGIN_MODULE}"),
        ({"VERL_USE_EXTERNAL_MODULES": PLUGIN_MODULE}, PLUGIN_MODULE),
    ],
)
def test_users_verl_modules_are_kept(before: dict[str, str], after: str) -> None:
    assert cpu_environment(ProbeResult(), environ=before)["VERL_USE_EXTERNAL_MODULES"] == after


def test_values_are_what_os_environ_takes() -> None:
    variables = cpu_environment(ProbeResult("AVX2"), threads=3, environ={})
    assert all(isinstance(k, str) and isinstance(v, str) and v for k, v in variables.items())
    assert variables["OMP_NUM_THREADS"] == "3"
    assert variables["VERL_PLATFORM"] == "cpu"
    assert variables.items() >= environment.common_environment().items()


@pytest.mark.parametrize("threads", [0, -2])
def test_threads_must_be_positive(threads: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        cpu_environment(ProbeResult(), threads=threads, environ={})


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, medserl.cpu, medserl.cpu.environment, medserl.cpu.probe, medserl.cpu.patches, "
        "medserl.cpu.vllm_plugin as plugin\n"
        "plugin.register()\n"  # no VERL_PLATFORM: on GPUs vLLM calls it, too
        "heavy = {'torch', 'verl', 'vllm', 'megatron', 'ray', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
