"""What all tests share: the mark `quick`, and the skip of `medec` tests where no MEDEC folder is given."""

import os

import pytest
from hypothesis import settings

# Times depend on what else the machine does; a slow example is no failure.
settings.register_profile("medserl", deadline=None)
settings.load_profile("medserl")

SLOW_MARKS = frozenset({"engine", "e2e", "cluster", "images"})
MEDEC_VARIABLE = "MEDSERL_MEDEC_DIR"


@pytest.hookimpl(tryfirst=True)  # before pytest itself selects by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    medec_is_here = os.path.isdir(os.environ.get(MEDEC_VARIABLE, ""))
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        if not marks & SLOW_MARKS:
            item.add_marker(pytest.mark.quick)
        if "medec" in marks and not medec_is_here:
            item.add_marker(pytest.mark.skip(reason=f"{MEDEC_VARIABLE} names no folder with the MEDEC files"))
