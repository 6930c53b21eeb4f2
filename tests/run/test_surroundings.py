"""What a start changes of its process is the caller's again when it is over, however it ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import logging, os, sys
import medserl.training.api as api
before = dict(os.environ)
logging.getLogger("medserl").setLevel(logging.ERROR)
def state():
    fds = sorted((fd, os.readlink(f"/proc/self/fd/{fd}")) for fd in os.listdir("/proc/self/fd") if int(fd) < 3)
    umask = os.umask(0); os.umask(umask)
    log = logging.getLogger("medserl")
    return fds, umask, log.level, log.propagate, list(log.handlers)
def no_ray(config, variables, *_):
    assert os.environ["VERL_USE_EXTERNAL_MODULES"] and variables
    os.write(1, b"a library's print\\n")
    os.environ["SET_BY_A_LIBRARY"] = "1"
    raise RuntimeError("no Ray here")
api.Cluster = no_ray
trainer = api.MedSeRLTrainer("embedded", ["medserl.run_dir=r"], verbose=VERBOSE)
held = state()
for _ in range(2):
    try:
        trainer.start()
    except RuntimeError as error:
        assert str(error) == "no Ray here"
    else:
        raise AssertionError
    assert state() == held, (state(), held)
    assert not trainer.started
changed = {name for name in os.environ.keys() | before.keys() if os.environ.get(name) != before.get(name)}
assert not changed, changed
print("a line of the user's own program")
"""


@pytest.mark.engine  # imports Ray and torch in a process of its own
@pytest.mark.parametrize("verbose", [False, True])
def test_a_start_that_failed_gives_everything_back(tmp_path: Path, verbose: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("VERBOSE", str(verbose))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "a line of the user's own program"
    assert ("a library's print" in done.stdout) is verbose
    if not verbose:
        log = (tmp_path / "r/logs/2/driver.log").read_text()
        assert "a library's print" in log and "RuntimeError: no Ray here" in log


def test_what_the_caller_sets_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from medserl.run.surroundings import KeptEnvironment

    monkeypatch.setenv("KEPT", "before")
    monkeypatch.setenv("GONE", "before")
    kept = KeptEnvironment()
    os.environ["KEPT"] = os.environ["NEW"] = os.environ["ANOTHER"] = "of the run"
    del os.environ["GONE"]
    kept.changed()
    os.environ["ANOTHER"] = os.environ["LATER"] = "the caller's"
    try:
        kept.close()
        assert os.environ["KEPT"] == "before" and "NEW" not in os.environ and os.environ["GONE"] == "before"
        assert os.environ["ANOTHER"] == os.environ["LATER"] == "the caller's"
    finally:
        del os.environ["ANOTHER"], os.environ["LATER"]
