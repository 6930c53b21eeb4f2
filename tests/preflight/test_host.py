"""What a machine lacks is told before a start, in one sentence, and nothing is left behind."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import pytest

from medserl.cli.main import main
from medserl.config.load import load_config
from medserl.cpu import environment
from medserl.cpu.environment import LONGEST_TMPDIR, socket_environment, user_environment
from medserl.cpu.probe import cache_path
from medserl.errors import ConfigError
from medserl.preflight import host
from medserl.preflight.host import check_machine, check_writable, shared_memory_problem
from medserl.preflight.node_checks import model_problem
from medserl.preflight.stack_checks import environment_checks

SMALL = ("medserl.notes.count=64", "medserl.validation.count=4")
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def nameless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user id without an entry in the user database, as in a container with --user."""

    def none(_: int) -> NoReturn:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr(pwd, "getpwuid", none)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("broken", ["in_a_file", "through_a_link", "on_proc", "below_a_link"])
def test_a_run_directory_that_cannot_be_written_is_refused(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "purged" / "gone")
    run = {
        "in_a_file": tmp_path / "file" / "run",
        "through_a_link": tmp_path / "link",
        "on_proc": Path("/proc/nowhere/run"),
        "below_a_link": tmp_path / "link" / "x",
    }[broken]
    before = sorted(tmp_path.rglob("*"))
    assert main(["train", "--dry-run", "--run-dir", str(run), *SMALL]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"medserl: error: run directory {run}: ") and told.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    code = "from pathlib import Path; from medserl.preflight.host import check_writable; check_writable(Path('run'))"
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.getuid() == 0 else []
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([*prefix, sys.executable, "-c", code], cwd=closed, env=environment, capture_output=True)
    assert b"run directory run: cannot be written (Permission denied)" in done.stderr


def test_a_directory_that_can_be_made_stays_unmade(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not any(tmp_path.iterdir())


def test_small_shared_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"total": 64 * 2**20, "free": 64 * 2**20, "used": 0})
    config = load_config("embedded", [])
    check_machine(config)
    monkeypatch.setattr(host.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConfigError, match="/dev/shm: only 64 MiB.*--shm-size=8g"):
        check_machine(config)
    check_machine(load_config("embedded", ["+ray_kwargs.ray_init.address=auto"]))  # that Ray is not ours
    usage.total = 2**33
    with pytest.raises(ConfigError, match="/dev/shm: only 64 MiB of 8192 are free"):
        check_machine(config)
    monkeypatch.undo()
    assert "no shared memory" in str(shared_memory_problem(tmp_path / "none"))
    monkeypatch.setattr(host.os, "access", lambda *_: False)
    assert "nothing can be written there" in str(shared_memory_problem())


def test_a_full_temporary_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, real = load_config("embedded", []), shutil.disk_usage
    full = type("Usage", (), {"total": 2**30, "free": 3 * 2**20, "used": 0})
    monkeypatch.setattr(
        host.shutil, "disk_usage", lambda folder: full if str(folder) == str(tmp_path) else real(folder)
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigError, match=f"TMPDIR: only 3 MiB are free in {tmp_path}, a run needs 64; make room"):
        check_machine(config)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="TMPDIR: there is no temporary folder"):
        check_machine(config)


def test_a_long_temporary_folder_gives_way_to_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * LONGEST_TMPDIR)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert socket_environment() == {"TMPDIR": "/tmp"}
    assert environment.common_environment()["TMPDIR"] == "/tmp"
    check_machine(load_config("embedded", []))
    assert next(c for c in environment_checks(long, {}) if c.name == "TMPDIR").value.startswith("/tmp for sockets")
    monkeypatch.setattr(environment, "SHORT_FOLDERS", (tmp_path / "none",))
    with pytest.raises(ConfigError, match="TMPDIR: .* is too long"):
        check_machine(load_config("embedded", []))
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert socket_environment() == {}


def test_a_user_without_a_name_gets_one(nameless: Any) -> None:
    assert user_environment() == {"USER": "medserl"}


def test_a_user_with_a_name_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "any")
    assert user_environment() == {}


def test_without_a_home_nothing_is_made_here(nameless: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_path().is_absolute() and "~" not in str(cache_path())
    assert "is not a directory here" in str(model_problem("Some/Model"))
