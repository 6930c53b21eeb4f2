"""Files and folders are private, and whole or absent, whatever fails while they are written."""

import errno
import os
import socket
from pathlib import Path

import pytest

from medserl.errors import ConfigError
from medserl.files import (
    close_to_others,
    in_threads,
    open_private,
    put_in_place,
    read_json,
    read_object,
    replacing,
    sha256_of_folder,
    sync,
    whole_folder,
    write_atomically,
)


@pytest.mark.parametrize("fails", ["fsync", "replace", None])
def test_a_file_is_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str | None
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if fails is not None:
        monkeypatch.setattr(os, fails, full)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "new")
    else:
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == ("old" if fails else "new")
    assert list(tmp_path.iterdir()) == [path] and path.stat().st_mode & 0o777 == 0o600


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write(place: Path) -> None:
        with replacing(tmp_path / "file") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "folder") as made:
        (made / "half").write_text("")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("there", ["nothing", "empty", "full"])
def test_a_folder_takes_the_place_of_another_only_where_it_may(tmp_path: Path, overwrite: bool, there: str) -> None:
    out = tmp_path / "deep/out"
    if there != "nothing":
        out.mkdir(parents=True)
    if there == "full":
        (out / "old").write_text("precious")
    refused = there == "full" and not overwrite
    try:
        with whole_folder(out, overwrite=overwrite) as made:
            (made / "inner").mkdir()
            (made / "inner/new").write_text("new")
    except OSError:
        assert refused
    assert sorted(p.name for p in out.rglob("*")) == (["old"] if refused else ["inner", "new"])
    assert [p.name for p in out.parent.iterdir()] == ["out"]
    assert refused or out.stat().st_mode & 0o777 == 0o700


def test_an_earlier_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("new", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("")

    def refused(*_: object) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="no"):
        put_in_place(tmp_path / "new", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/out").exists() and not (tmp_path / "out/new").exists()


def test_a_file_system_that_cannot_sync_folders_is_no_fault_but_one_that_cannot_sync_files_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")

    def unable(_: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unable)
    sync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        sync(tmp_path / "file")


def test_closing_counts_what_was_open(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("")
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "private").write_text("")
    (tmp_path / "private").chmod(0o600)
    tmp_path.chmod(0o700)
    assert close_to_others(tmp_path) == 1 and close_to_others(tmp_path) == 0
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o700


def test_a_folders_checksum_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("1")
    (tmp_path / "other.txt").write_text("1")
    first = sha256_of_folder(tmp_path, (".json",))
    (tmp_path / "other.txt").write_text("2")
    assert sha256_of_folder(tmp_path, (".json",)) == first
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert sha256_of_folder(tmp_path, (".json",)) != first


def test_the_first_error_of_a_thread_is_raised() -> None:
    with pytest.raises(FileNotFoundError):
        in_threads(lambda path: path.stat().st_size, [Path("/"), Path("/nothing/there")])


@pytest.fixture(params=["pipe", "socket", "folder", "link to a pipe", "device"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Something with a name that is not a file."""
    path = tmp_path / "there"
    match request.param:
        case "pipe":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        case "folder":
            path.mkdir()
        case "link to a pipe":
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to("pipe")
        case _:
            path.symlink_to("/dev/full")  # by a link: root would replace the device itself
    return path


def test_what_is_no_file_is_neither_replaced_nor_waited_for(no_file: Path) -> None:
    held = {path: path.lstat().st_ino for path in no_file.parent.iterdir()}
    with pytest.raises(OSError, match="Is not a regular file|Is a directory"):
        write_atomically(no_file, "text")
    with pytest.raises(OSError, match="Is not a regular file|Is a directory"):
        read_json(no_file)
    assert held == {path: path.lstat().st_ino for path in no_file.parent.iterdir()}
    if no_file.is_fifo():
        with pytest.raises(OSError, match="Is not a regular file"):
            open_private(no_file)


def test_what_a_link_points_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    for text in ("made", "replaced"):
        write_atomically(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere").read_text() == text


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": ' * 100_000, "\xff", "nul", "1 2"])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "file").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"."):
        read_json(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{\n"a": 1,\n!', "f.json, line 3: is not JSON"),
        (b"\xff", "f.json: is not UTF-8 text; mend it"),
        (b"[1]", "f.json: is not a JSON object; mend it"),
        (b"{}", "f.json: 'a' is missing or damaged; mend it"),
        (b'{"a": "1"}', "f.json: 'a' is missing or damaged; mend it"),
        (b"[" * 100_000, "f.json, line 1: is not JSON .is nested too deeply"),
        (None, "f.json: cannot be read .Is a directory.; mend it"),
    ],
)
def test_a_damaged_object_is_told_with_file_and_line(tmp_path: Path, content: bytes | None, told: str) -> None:
    path = tmp_path / "f.json"
    path.write_bytes(content) if content is not None else path.mkdir()
    with pytest.raises(ConfigError, match=told):
        read_object(path, "mend it", {"a": int})
