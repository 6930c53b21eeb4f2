"""Imports every package of a compiled requirements file, in the environment that they are installed in; no GPU needed.

    PYTHON import_all.py requirements/gpu.txt

One line is a JSON object: what is not there, what does not import, what was found.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

# What a run on GPUs imports first of all, deeper than the packages' own names.
MODULES = (
    "torch.distributed",
    "transformer_engine.pytorch",
    "transformer_engine_torch",
    "megatron.core.extensions.transformer_engine",
    "megatron.core.models.gpt",
    "mbridge",
    "verl.workers.engine.megatron",
    "verl.trainer.main_ppo",
    "verl.trainer.ppo.v1",
    "vllm.v1.worker.gpu_worker",
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.qwen3",
)
# What vLLM's libraries want of the driver, which only a machine with a GPU has. A stand-in whose every function fails
# lets them load, against the pinned torch and CUDA libraries, and register their kernels.
DRIVER = """
cuCtxGetCurrent cuCtxSetCurrent cuDeviceGetAttribute cuDevicePrimaryCtxRetain cuGetErrorString cuGetProcAddress_v2
cuMemAddressFree cuMemAddressReserve cuMemCreate cuMemGetAllocationGranularity cuMemMap cuMemRelease cuMemSetAccess
cuMemUnmap cuPointerGetAttribute cuTensorMapEncodeTiled
"""
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
NOT_OURS = ("cpython-310", "cpython-311", "cpython-313", "cpython-314")  # builds for other Pythons, in one wheel


def pins(path: Path) -> dict[str, str]:
    """Name → version of a compiled requirements file."""
    lines = (line.split(";")[0].rstrip("\\ \n") for line in path.read_text().splitlines() if line[:1].isalnum())
    return dict(line.split("==", 1) for line in lines)


def top_modules(distribution: importlib.metadata.Distribution) -> set[str]:
    """Modules and ordinary packages that a distribution puts at the top; namespace packages and libraries have none."""
    found = set()
    for file in distribution.files or []:
        if file.parts[0].endswith((".dist-info", ".data")) or file.parts[0] == "..":
            continue
        if (len(file.parts) == 1 and file.suffix in (".py", ".so")) or file.parts[1:] == ("__init__.py",):
            found.add(file.parts[0].split(".")[0])
    return found


def failures(names: Iterable[str]) -> dict[str, str]:
    """Imports each; the reason of each that fails, whatever it raised."""
    found = {}
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:  # some packages exit
            found[name] = f"{type(error).__name__}: {error}"[:500]
    return found


def load_driver_stand_in() -> None:
    """Loads a library that goes by the name libcuda.so.1; later ones that need that find it there."""
    source = "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in DRIVER.split())
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "libcuda.so.1"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-Wl,-soname,libcuda.so.1", "-o", str(library)]
        subprocess.run(command, input=source, text=True, check=True)
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def library_failures(folder: Path) -> dict[str, str]:
    """Loads every shared library below a folder; the reason of each that does not load."""
    found = {}
    for path in sorted(folder.rglob("*.so")):
        if not any(word in path.name for word in NOT_OURS):
            try:
                ctypes.CDLL(str(path))
            except OSError as error:
                found[str(path.relative_to(folder))] = str(error)[:300]
    return found


def report(requirements: Path) -> dict[str, dict[str, str]]:
    """Everything that the line says."""
    wrong, modules = {}, set()
    for name, version in pins(requirements).items():
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            wrong[name] = "missing"
            continue
        if distribution.version.split("+")[0] != version.split("+")[0]:
            wrong[name] = f"{distribution.version} instead of {version}"
        modules |= top_modules(distribution)
    answer = {"wrong_versions": wrong, "import_failures": failures(sorted(modules))}
    answer["module_failures"] = failures(MODULES)

    import torch
    import transformer_engine_torch
    import vllm
    from verl.workers.engine import EngineRegistry

    load_driver_stand_in()
    answer["library_failures"] = library_failures(Path(vllm.__file__).parent)
    answer["facts"] = {
        "imported": str(len(modules)),
        "vllm_kernel": str(hasattr(torch.ops._C, "rms_norm")),
        "torch_cuda": str(torch.version.cuda),
        "transformer_engine_torch": str(transformer_engine_torch.__file__),
        "megatron_engine_devices": " ".join(sorted(_devices(EngineRegistry._engines))),
    }
    return answer


def _devices(engines: dict) -> set[str]:
    """Devices that verl's registry has a Megatron engine for: model → strategy → device → class."""
    return {device for strategies in engines.values() for device in strategies.get("megatron", {})}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # standard output is ours
        found = report(Path(sys.argv[1]))
    print(json.dumps(found))
