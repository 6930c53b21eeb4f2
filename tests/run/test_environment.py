"""What the processes of a run find in their environment: on GPUs where the driver's own machine has none, on CPUs."""

import os

import pytest

from medserl.config.load import load_config
from medserl.run.launch import MEMORY_VARIABLE, prepare_environment
from medserl.run.surroundings import environment_kept

NAME = "CUDA_DEVICE_MAX_CONNECTIONS"
CLUSTER = ["medserl.notes.path=x", "+ray_kwargs.ray_init.address=10.0.0.1:6379"]


def variables(monkeypatch: pytest.MonkeyPatch, gpus: int, *overrides: str) -> dict[str, str]:
    monkeypatch.setattr("medserl.cpu.environment.choose_device", lambda asked="auto": "cuda")
    monkeypatch.setattr("medserl.cpu.environment.gpus_here", lambda: gpus)
    with environment_kept():
        return prepare_environment(load_config("qwen3_4b_multinode", [*CLUSTER, *overrides]))


def test_tensor_parallelism_overlaps_where_the_head_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    assert variables(monkeypatch, 0)[NAME] == "1"
    assert NAME not in variables(monkeypatch, 8)  # verl looks at the GPU that is here
    assert NAME not in variables(monkeypatch, 0, "model_engine=dp")
    monkeypatch.setenv(NAME, "32")
    assert NAME not in variables(monkeypatch, 0) and os.environ[NAME] == "32"


@pytest.mark.parametrize(("given", "expected"), [([], "0.98"), (CLUSTER[1:], None)])
def test_ray_leaves_a_run_on_cpus_more_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, given: list[str], expected: str | None
) -> None:
    monkeypatch.delenv(MEMORY_VARIABLE, raising=False)
    with environment_kept():
        assert prepare_environment(load_config("embedded", given)).get(MEMORY_VARIABLE) == expected
        os.environ[MEMORY_VARIABLE] = "0.9"
        assert MEMORY_VARIABLE not in prepare_environment(load_config("embedded", given))  # the user's own stays


def test_verl_still_decides_by_the_drivers_own_gpu() -> None:
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("verl")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "trainer" / "constants_ppo.py").read_text()
    assert "_is_hopper_or_ampere = (_major or 0) in (8, 9)" in text
    assert "if _is_hopper_or_ampere and _uses_megatron(config):" in text
