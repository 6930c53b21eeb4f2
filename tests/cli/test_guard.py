"""What a user, a disk or a terminal causes ends in a sentence; the program's own faults keep their traceback."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medserl.cli.guard import guarded
from medserl.cli.main import main
from medserl.errors import ConfigError

ROOT = Path(__file__).parents[2]


def raising(error: BaseException) -> int:
    def command() -> int:
        raise error

    return guarded(command)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("a: b"), 2, "a: b"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/y"), 2, "/x/y: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), 2, "d: Is a directory"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "n"), 2, "n: No such file"),
        (OSError(errno.EROFS, "Read-only file system", b"r"), 2, "r: Read-only"),
        (OSError(errno.ENOSPC, "No space left on device", "full"), 1, "full: No space left on device; make room"),
        (OSError(errno.EFBIG, "File too large"), 1, "File too large"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 1, "Disk quota exceeded"),
        (MemoryError(), 1, "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 1, "libtorch_cpu.so"),
    ],
)
def test_what_a_user_can_cause_is_one_sentence(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert raising(error) == code
    printed = capsys.readouterr().err
    assert told in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a fault"),
        ImportError("no module"),
        OSError(errno.ENOENT, "no file name"),
        ConnectionRefusedError(111, "x"),
    ],
)
def test_faults_of_the_program_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        raising(error)


def medserl(*words: str, shell: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = " ".join((sys.executable, "-m", "medserl", *words))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    return subprocess.run(["bash", "-c", shell.replace("MEDSERL", command)], capture_output=True, env=environment)


def test_a_reader_that_has_gone_is_no_error(tmp_path: Path) -> None:
    notes = tmp_path / "n.jsonl"
    notes.write_text('{"note_id": "a", "text": "He is well."}\n')
    done = medserl(
        "data", "prepare", "--split", f"train={notes}", "--out", str(tmp_path / "p"),
        shell="{ MEDSERL; echo rc=$? >&2; } | exec 0<&-",
    )  # fmt: skip
    assert b"Traceback" not in done.stderr and b"BrokenPipe" not in done.stderr
    assert b"rc=0" in done.stderr or b"rc=141" in done.stderr
    assert (tmp_path / "p" / "train.parquet").is_file()


def test_help_into_a_closed_pipe_is_no_error() -> None:
    done = medserl("train", "--help", shell="MEDSERL | exec 0<&-")
    assert done.stderr == b""


def test_a_full_standard_output_is_told() -> None:
    done = medserl("config", "--list", shell="MEDSERL > /dev/full")
    assert done.returncode == 1
    assert (
        done.stderr
        == b"medserl: error: No space left on device; make room, or raise the limit, and run the command again\n"
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_without_unicode_shows_what_it_can(encoding: str, tmp_path: Path) -> None:
    done = medserl("slurm", "attach", "--help", shell="MEDSERL", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"attach" in done.stdout
    out = tmp_path / "w\u0142rd"
    done = medserl("data", "ward", "--out", str(out), "--count", "4", shell="MEDSERL", PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and b"Error" not in done.stderr and any(out.iterdir())


def test_a_current_directory_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for words in (["config", "--section", "medserl.seed"], ["data", "ward", "--out", "o"], ["train", "--dry-run"]):
        assert main(words) == 2
        told = capsys.readouterr().err
        assert told.startswith("medserl: error: the current directory is gone") and told.count("\n") == 1
    monkeypatch.chdir(tmp_path)


def test_an_umask_that_shuts_the_owner_out_does_not(tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        assert main(["data", "ward", "--out", str(tmp_path / "o"), "--count", "4"]) == 0
        assert (tmp_path / "o" / "WARD-TestSet.csv").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "o").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)
