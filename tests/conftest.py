"""What all tests share: marks `quick` and `nightly`, the skip of `medec` tests without MEDEC, session fixtures."""

import copy
import os
from typing import Any

import pytest
import yaml
from hypothesis import settings

# Here, because a session fixture is one for all folders only in a conftest.py above them: an image that was built once
# is tested by itself and on the cluster.
from tests.cluster.slurm import slurm, slurm_session  # noqa: F401
from tests.images.machine import (  # noqa: F401
    apptainer,
    apptainer_coming,
    background,
    cpu_image,
    cpu_image_coming,
    docker,
    gpu_packages,
    gpu_report_coming,
    scratch,
    sif,
    sif_coming,
)

# Times depend on what else the machine does; a slow example is no failure.
settings.register_profile("medserl", deadline=None)
settings.load_profile("medserl")

SLOW_MARKS = frozenset({"engine", "e2e", "cluster", "images"})
MEDEC_VARIABLE = "MEDSERL_MEDEC_DIR"


def remember_parsed_configurations() -> None:
    """Hydra parses the same thirty files, in pure Python, for each configuration that a test composes: once will do."""
    parse, parsed = yaml.load, {}

    def load(stream: Any, Loader: Any) -> Any:
        if Loader.__name__ != "OmegaConfLoader" or not hasattr(stream, "read"):
            return parse(stream, Loader=Loader)
        text = stream.read()
        if text not in parsed:
            parsed[text] = parse(text, Loader=Loader)
        return copy.deepcopy(parsed[text])

    yaml.load = load


remember_parsed_configurations()


@pytest.hookimpl(tryfirst=True)  # before pytest itself selects by -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "nightly" not in config.getoption("markexpr"):
        nightly = [item for item in items if item.get_closest_marker("nightly")]
        if nightly:
            config.hook.pytest_deselected(items=nightly)
            items[:] = [item for item in items if item not in nightly]
    medec_is_here = os.path.isdir(os.environ.get(MEDEC_VARIABLE, ""))
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if not marks & SLOW_MARKS:
            item.add_marker(pytest.mark.quick)
        if "medec" in marks and not medec_is_here:
            item.add_marker(pytest.mark.skip(reason=f"{MEDEC_VARIABLE} names no folder with the MEDEC files"))
