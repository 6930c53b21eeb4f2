"""The SIF, built from the Docker image and run by `medserl image`."""

import json
import re
from pathlib import Path

import pytest

from medserl import __version__
from tests.images.machine import REVISION, medserl_image
from tests.images.test_docker import PASSED

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]


def test_inspect_shows_the_docker_images_labels(sif: Path, apptainer: dict[str, str]) -> None:
    said = medserl_image(apptainer, "inspect", sif)
    assert f"org.opencontainers.image.version: {__version__}" in said
    assert f"org.opencontainers.image.revision: {REVISION}" in said
    assert 'exec tini -s -g -- medserl "$@"' in said
    attributes = json.loads(medserl_image(apptainer, "inspect", "--json", sif))
    assert "HF_HUB_OFFLINE=1" in json.dumps(attributes["environment"])


def test_the_images_own_test_passes(sif: Path, apptainer: dict[str, str]) -> None:
    said = medserl_image(apptainer, "test", "--userns", sif)
    assert re.search(rf"^medserl {re.escape(__version__)} vllm ", said, re.MULTILINE)


def test_run_keeps_this_shells_python_out(sif: Path, apptainer: dict[str, str], tmp_path: Path) -> None:
    """What this shell has in PYTHONPATH does not get in; the folder that is bound does."""
    (tmp_path / "omegaconf.py").write_text("raise SystemExit('the host got in')")  # `medserl image` does without it
    env = {**apptainer, "PYTHONPATH": str(tmp_path), "MEDSERL_CACHE": str(tmp_path / "cache")}
    words = ("train", "--dry-run", "--run-dir", tmp_path / "run")
    said = medserl_image(env, "run", "--userns", "--bind", tmp_path, sif, *words)
    assert "dry run: everything checked, nothing started" in said


@pytest.mark.nightly
def test_selftest_passes_in_the_sif(sif: Path, apptainer: dict[str, str], tmp_path: Path) -> None:
    """By day a training of two rounds on the cluster (test_training_in_apptainer) says the same of the SIF."""
    env = {**apptainer, "MEDSERL_CACHE": str(tmp_path / "cache")}
    run = ("run", "--userns", "--bind", tmp_path, sif, "selftest", "--run-dir", tmp_path / "run")
    said = medserl_image(env, *run, timeout=1200)
    assert re.fullmatch(PASSED, said.strip().splitlines()[-1]), said
    assert (tmp_path / "run" / "metrics.jsonl").is_file()
