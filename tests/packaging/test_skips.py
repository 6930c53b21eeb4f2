"""A run with CI=true fails on a skip that nobody allowed, and names the test. In subprocesses: exit codes count."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
# By hand, because an installed package may be called `tests`, too.
CONFTEST = """
import sys, types
sys.modules["tests"] = tests = types.ModuleType("tests")
tests.__path__ = [{folder!r}]
pytest_plugins = ["tests.conftest"]
"""
PASSED = "def test_other(): pass\n"


def run(folder: Path, root: Path, body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_made.py").write_text("import pytest\n" + body + PASSED)
    (folder / "conftest.py").write_text(CONFTEST.format(folder=str(root / "tests")))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = medec\n  quick\n")
    env = {key: value for key, value in os.environ.items() if key not in ("CI", "MEDSERL_MEDEC_DIR")}
    env |= {"PYTHONPATH": str(root), **environment}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize("case", CASES)
def test_a_skip_fails_ci_and_is_named(tmp_path: Path, root: Path, case: str) -> None:
    done = run(tmp_path, root, CASES[case], CI="true")
    assert done.returncode == 1, done.stdout + done.stderr
    told = done.stdout.partition("CI=true does not allow")[2]
    assert "test_made.py" in told and "test_other" not in told, done.stdout


@pytest.mark.parametrize("case", FINE)
def test_what_is_no_skip_or_allowed_passes_ci(tmp_path: Path, root: Path, case: str) -> None:
    done = run(tmp_path, root, FINE[case], CI="true")
    assert done.returncode == 0 and "does not allow" not in done.stdout, done.stdout + done.stderr


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path, root: Path) -> None:
    done = run(tmp_path, root, CASES["skipped"])
    assert done.returncode == 0 and "1 skipped" in done.stdout, done.stdout + done.stderr


def test_medec_named_but_not_there_fails_ci(tmp_path: Path, root: Path) -> None:
    done = run(tmp_path, root, ALLOWED, CI="true", MEDSERL_MEDEC_DIR=str(tmp_path / "nothing"))
    assert done.returncode == 1 and "test_made.py::test_medec" in done.stdout, done.stdout + done.stderr
