"""Files and folders that are private, and whole or absent: written beside, made sure on the disk, renamed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from medserl.errors import ConfigError

PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700
PRIVATE_UMASK = 0o077
THREADS = min(8, os.cpu_count() or 1)
"""For hashing and syncing many files: both wait for a disk, and hashlib lets other threads run."""

_NO_UTF8 = "backslashreplace"  # of a file name that is no UTF-8; in JSON its proper escape


# ------------------------------------------------------------------------------------------------ one file


def write_atomically(path: Path, text: str, mode: int = PRIVATE_FILE) -> None:
    """Write ``text`` so that a reader sees the old file or the new one, never half of either, and so that the new one
    is still there after a power cut."""
    with replacing(path, mode) as file:
        file.write(text.encode("utf-8", _NO_UTF8))


def write_all_atomically(texts: Mapping[Path, str], mode: int = PRIVATE_FILE) -> None:
    """``write_atomically`` of several files: none is replaced before every one is written."""
    with ExitStack() as stack:
        for path, text in texts.items():
            file = stack.enter_context(replacing(path, mode))
            file.write(text.encode("utf-8", _NO_UTF8))
            file.flush()


@contextmanager
def replacing(path: Path, mode: int = PRIVATE_FILE) -> Iterator[BinaryIO]:
    """A binary file beside ``path`` that takes its place when the block ends, and is removed when the block fails.

    Raises:
        OSError: it cannot be written, or ``path`` is something else than a file: a device or a pipe has no content
            to replace, and root would put a file in its place.
    """
    path = pointed_to(path)
    with suppress(FileNotFoundError):
        regular(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with _named(path, temporary):
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            replace_durably(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """An OSError of the block names the file that was asked for: a full disk's names none, others the temporary one."""
    try:
        yield
    except OSError as error:
        given = error.filename2 or error.filename
        if given is None:
            error.filename = str(path)
        elif os.fsdecode(given).startswith(str(temporary)):
            error.filename = str(path) + os.fsdecode(given).removeprefix(str(temporary))
            error.filename2 = None
        raise


def open_private(path: Path) -> TextIO:
    """Open for appending, readable by the owner only; OSError for a pipe, whose reader would be waited for."""
    with suppress(FileNotFoundError):
        if stat.S_ISFIFO(os.stat(path).st_mode):
            regular(path)
    return open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PRIVATE_FILE), "a", encoding="utf-8", errors=_NO_UTF8
    )


def create_private(path: Path) -> TextIO:
    """Open a new file for writing, readable by the owner only; ``FileExistsError`` where there is one."""
    return open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "w", encoding="utf-8", errors=_NO_UTF8
    )


# ------------------------------------------------------------------------------------------------ the disk


def replace_durably(source: Path, target: Path) -> None:
    """``os.replace`` that a power cut does not undo: the folders of both names are synced too."""
    os.replace(source, target)
    sync(target.parent)
    if source.parent != target.parent:
        sync(source.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk. Nothing where a file system cannot do it for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """``sync`` every file of a folder, then every folder, itself last."""
    files, folders = [], []
    for place, _, names in os.walk(folder):
        folders.append(Path(place))
        files += [path for name in names if not (path := Path(place, name)).is_symlink()]
    in_threads(sync, files)
    for place_ in reversed(folders):
        sync(place_)


# ------------------------------------------------------------------------------------------------ whole folders


def check_new_folder(path: Path, option: str) -> None:
    """A folder that a command is to make must not be there, unless it is empty, and it must be possible to make it.

    Args:
        path: The folder.
        option: What the user gave it with, for the sentence.

    Raises:
        ConfigError: says what is in the way.
    """
    path = pointed_to(path)
    try:
        if os.path.ismount(path):
            raise ConfigError(f"{option} {path}: is a mount point; give a new folder in it")
        if path.is_dir() and not any(path.iterdir()):
            return
        if os.path.lexists(path):
            raise ConfigError(f"{option} {path}: already exists; give another one")
        above = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
        if not above.is_dir():
            raise ConfigError(f"{option} {path}: {above} is not a folder; give another one")
        if not os.access(above, os.W_OK | os.X_OK):
            raise ConfigError(f"{option} {path}: nothing can be written in {above}; give another one")
    except OSError as error:
        raise ConfigError(f"{option} {path}: cannot be created ({error.strerror}); give another one") from None


def pointed_to(path: Path) -> Path:
    """Where a link leads, there or not; any other path as it is. What is written goes there, and the link stays."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


@contextmanager
def made_folder(folder: Path, mode: int = 0o777) -> Iterator[None]:
    """A folder that is there while the block runs; of it and those above it, what was made for a block that fails goes
    again where it is empty."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        yield
    except BaseException:
        with suppress(OSError):
            for path in missing:
                path.rmdir()
        raise


@contextmanager
def whole_folder(out: Path, mode: int = PRIVATE_FOLDER, overwrite: bool = False) -> Iterator[Path]:
    """A new folder beside ``out`` that takes its place when the block ends, and is removed when the block fails.

    Args:
        out: The folder to make; folders above it are made too.
        mode: Of the new folder; the umask applies.
        overwrite: Replace a folder that is there, which goes only when the new one is whole; otherwise only an
            empty one may be there.

    Raises:
        OSError: ``out`` is there and not to be replaced, or cannot be written.
    """
    out = pointed_to(out)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    with made_folder(out.parent), _named(out, beside):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(mode=mode)
        try:
            yield beside
            put_in_place(beside, out, overwrite)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            raise


def put_in_place(beside: Path, out: Path, overwrite: bool = False) -> None:
    """Sync a finished folder and rename it to ``out``; with ``overwrite`` an earlier one goes after that, and comes
    back where the new one cannot take its place."""
    sync_tree(beside)
    if not overwrite or not out.exists():
        replace_durably(beside, out)
        return
    old = out.with_name(f".{out.name}.old.{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(out, old)
    try:
        replace_durably(beside, out)
    except BaseException:
        os.rename(old, out)
        raise
    shutil.rmtree(old)


def close_to_others(folder: Path) -> int:
    """Take the rights of group and others from a folder and everything of this user's below it.

    Returns:
        How many files and folders others could have reached into.
    """
    closed = 0
    for place, _, names in os.walk(folder):
        for path in (Path(place), *(Path(place, name) for name in names)):
            with suppress(FileNotFoundError):
                status = path.lstat()
                if status.st_mode & PRIVATE_UMASK and not path.is_symlink() and status.st_uid == os.geteuid():
                    path.chmod(status.st_mode & 0o700)
                    closed += 1
    return closed


# ------------------------------------------------------------------------------------------------ contents


def regular(path: Path) -> Path:
    """The path of a file that can be read to its end: a pipe would be waited for, a device never ends.

    Raises:
        OSError: it is not there, or something else.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "Is not a regular file", str(path))
    return path


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: it cannot be read, or is something else than a file.
        ValueError: it is no UTF-8 text, no JSON, or nested deeper than a program can follow.
    """
    text = regular(path).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except RecursionError:
        raise json.JSONDecodeError("is nested too deeply", text, 0) from None


def read_object(path: Path, mend: str, needed: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The object that a JSON file of the project's own making holds.

    Args:
        path: The file.
        mend: What to do about a damaged one; ends the sentence.
        needed: Keys that it must have, with the type of their values.

    Raises:
        ConfigError: it cannot be read, is damaged (the line is named), or holds something else.
    """
    try:
        found = read_json(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {mend}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}: is not JSON ({error.msg}); {mend}") from None
    except ValueError:
        raise ConfigError(f"{path}: is not UTF-8 text; {mend}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: is not a JSON object; {mend}")
    for key, kind in (needed or {}).items():
        if not isinstance(found.get(key), kind):
            raise ConfigError(f"{path}: {key!r} is missing or damaged; {mend}")
    return found


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_folder(folder: Path, suffixes: Sequence[str]) -> str:
    """SHA-256 over names and contents of the files right below a folder that end in one of ``suffixes``."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in suffixes)
    lines = (f"{path.name} {value}\n" for path, value in zip(files, in_threads(sha256_of, files), strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def in_threads[T](work: Callable[[Path], T], paths: Iterable[Path]) -> list[T]:
    """``work`` of each path, in their order; the first error is raised."""
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return list(pool.map(work, paths))
