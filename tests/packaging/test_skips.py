"""A run with CI=true fails on a skip that nobody allowed, and names the test: seen at runs within this one."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import __name__ as PLUGIN

ALLOWED = "@pytest.mark.medec\ndef test_medec(): pass\n"
CASES = {
    "skipped": "@pytest.mark.skip(reason='no tool')\ndef test_it(): pass\n",
    "skipped inside": "def test_it(): pytest.skip('no tool')\n",
    "skipped in a fixture": "@pytest.fixture\ndef tool(): pytest.skip('no tool')\ndef test_it(tool): pass\n",
    "skipped by condition": "@pytest.mark.skipif(True, reason='no tool')\ndef test_it(): pass\n",
    "a whole module": "pytest.importorskip('no_such_module_at_all')\ndef test_it(): pass\n",
    "a whole module, by hand": "pytest.skip('no tool', allow_module_level=True)\n",
    "a reason that begins like an allowed one": "def test_it(): pytest.skip('not a git checkout, perhaps')\n",
}
FINE = {
    "passed": "def test_it(): pass\n",
    "expected failure": "@pytest.mark.xfail(reason='known')\ndef test_it(): assert False\n",
    "expected failure, not run": "@pytest.mark.xfail(run=False, reason='known')\ndef test_it(): assert False\n",
    "expected failure, inside": "def test_it(): pytest.xfail('known')\n",
    "MEDEC": ALLOWED,
}
PASSED = "def test_other(): pass\n"
NUMBER = itertools.count()  # no two files of the same name, because Python imports a name once


class Done(NamedTuple):
    code: int
    shown: str


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs a file of tests with the project's conftest.py and an environment."""

    def run(body: str, **environment: str) -> Done:
        file = tmp_path / f"test_made_{next(NUMBER)}.py"
        file.write_text("import pytest\n" + body + PASSED)
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = medec\n  quick\n")
        for key in ("CI", "MEDSERL_MEDEC_DIR"):
            monkeypatch.delenv(key, raising=False)
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        # The outer run watches over output and time.
        plugins = ("no:cacheprovider", "no:faulthandler", "no:timeout", "no:xdist", PLUGIN)
        options = ["-q", "-s", "--import-mode=importlib", "--rootdir", str(tmp_path)]
        code = pytest.main([*options, *(f"-p{plugin}" for plugin in plugins), str(file)])
        return Done(int(code), "".join(capsys.readouterr()))

    return run


@pytest.mark.parametrize("case", CASES)
def test_a_skip_fails_ci_and_is_named(run: Callable[..., Done], case: str) -> None:
    done = run(CASES[case], CI="true")
    assert done.code == 1, done.shown
    told = done.shown.partition("CI=true does not allow")[2]
    assert "test_made_" in told and "test_other" not in told, done.shown


@pytest.mark.parametrize("case", FINE)
def test_what_is_no_skip_or_allowed_passes_ci(run: Callable[..., Done], case: str) -> None:
    done = run(FINE[case], CI="true")
    assert done.code == 0 and "does not allow" not in done.shown, done.shown


def test_elsewhere_a_skip_is_a_skip(run: Callable[..., Done]) -> None:
    done = run(CASES["skipped"])
    assert done.code == 0 and "1 skipped" in done.shown, done.shown


def test_medec_named_but_not_there_fails_ci(run: Callable[..., Done], tmp_path: Path) -> None:
    done = run(ALLOWED, CI="true", MEDSERL_MEDEC_DIR=str(tmp_path / "nothing"))
    assert done.code == 1 and ".py::test_medec" in done.shown, done.shown
