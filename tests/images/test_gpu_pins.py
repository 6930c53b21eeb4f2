"""requirements/gpu.txt: installed whole into an empty environment, compiled and imported as far as that goes here.

The compiler does not optimise (unoptimised-cxx.sh); everything on a GPU is left to docs/gpu.md's list.
"""

import json
from concurrent.futures import Future

import pytest

pytestmark = [pytest.mark.images, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def report(gpu_report_coming: "Future[str]") -> dict[str, dict[str, str]]:
    """What import_all.py found."""
    said = gpu_report_coming.result()
    print(said)
    (last,) = [line for line in said.splitlines() if line.startswith('{"wrong_versions"')]
    answer: dict[str, dict[str, str]] = json.loads(last)
    return answer


def test_every_package_is_there_in_its_pinned_version(report: dict[str, dict[str, str]]) -> None:
    assert report["wrong_versions"] == {}


def test_every_package_can_be_imported(report: dict[str, dict[str, str]]) -> None:
    assert report["import_failures"] == {}


def test_what_training_uses_can_be_imported(report: dict[str, dict[str, str]]) -> None:
    """Transformer Engine with its compiled torch half, verl's Megatron engine, vLLM's GPU worker."""
    assert report["module_failures"] == {}
    assert report["facts"]["torch_cuda"].startswith("13.")
    assert report["facts"]["transformer_engine_torch"].endswith(".so")
    assert "cuda" in report["facts"]["megatron_engine_devices"]


def test_vllms_native_libraries_load_beside_the_pinned_torch(report: dict[str, dict[str, str]]) -> None:
    """With a stand-in for the driver, whose library only a machine with a GPU has."""
    assert report["library_failures"] == {}
    assert report["facts"]["vllm_kernel"] == "True"
