"""What all tests share: marks `quick` and `nightly`, the skip of `medec` tests without MEDEC, session fixtures, and
that a run with CI=true fails on any other skip."""

import functools
import gc
import os
import pickle
from typing import Any

import omegaconf.base
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
NO_MEDEC = f"{MEDEC_VARIABLE} names no folder with the MEDEC files"
NO_CHECKOUT = "not a git checkout"  # tests/packaging/test_scripts.py, in a source archive


def allowed_skips() -> tuple[str, ...]:
    """Reasons for which a test may be skipped where CI=true; MEDEC only where nobody said where it is."""
    return (NO_CHECKOUT,) if os.environ.get(MEDEC_VARIABLE) else (NO_CHECKOUT, NO_MEDEC)


class UnexpectedSkips:
    """Fails a run that skipped a test for a reason nobody allowed: in CI a skip looks like a success."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def _see(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if not report.skipped or hasattr(report, "wasxfail"):
            return
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if reason not in allowed_skips():
            self.found[report.nodeid] = reason

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._see(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._see(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.found and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.found:
            terminalreporter.section("skipped, which CI=true does not allow", red=True)
        for test, reason in self.found.items():
            terminalreporter.line(f"{test}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("CI") == "true":
        config.pluginmanager.register(UnexpectedSkips())


def remember_parsed_configurations() -> None:
    """Each configuration that a test composes has the same files and interpolations, parsed in pure Python: once will
    do. tests/config/test_load.py composes one with nothing remembered."""
    parse, parsed = yaml.load, dict[str, bytes]()

    def load(stream: Any, Loader: Any) -> Any:
        if Loader.__name__ != "OmegaConfLoader" or not hasattr(stream, "read"):
            return parse(stream, Loader=Loader)
        text = stream.read()
        if text not in parsed:
            parsed[text] = pickle.dumps(parse(text, Loader=Loader))
        return pickle.loads(parsed[text])

    yaml.load = load
    omegaconf.base.parse = functools.cache(omegaconf.base.parse)  # trees are read, never changed


remember_parsed_configurations()
gc.disable()  # until the tests are collected: what is imported for them stays


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported is looked through no more, and the rest seldom: a sixth of the time went there."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(20_000, 20, 50)


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
            item.add_marker(pytest.mark.skip(reason=NO_MEDEC))
