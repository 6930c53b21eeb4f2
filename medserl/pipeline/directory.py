"""The directory of a pipeline: whose it is, whether what is marked done is there, and that a refusal leaves nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medserl.errors import ConfigError
from medserl.files import read_object
from medserl.pipeline.plan import AGAIN, DONE, RECORDED, SETTINGS, WRITTEN, Folders, Request, differing
from medserl.preflight.host import check_writable


def check_directory(folders: Folders, request: Request) -> None:
    """Raise ConfigError where ``--out`` cannot be this request's: another's, damaged, or not to be written."""
    out = folders.out
    if os.path.lexists(out / SETTINGS):
        found = differing(read_object(out / SETTINGS, AGAIN), request.record())
        if found:
            raise ConfigError(f"--out {out}: belongs to another pipeline ({'; '.join(found)}); give another --out")
    elif os.path.lexists(out) and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out}: already exists and is not a pipeline's; give another --out")
    check_writable(out, "--out", "--out")
    for stage in request.stages:
        if os.path.lexists(folders.done(stage)):
            _check_done(out, stage)


def _check_done(out: Path, stage: str) -> None:
    """What a stage that is marked done has written must still be there."""
    read_object(out / stage / DONE, AGAIN, RECORDED[stage])
    if gone := [name for name in WRITTEN[stage] if not (out / stage / name).is_file()]:
        raise ConfigError(
            f"--out {out}: the stage {stage} is marked done, but {stage}/{gone[0]} is gone; put it back, or remove "
            f"{stage}/{DONE} to have the stage done again"
        )


@contextmanager
def removed_on_failure(out: Path) -> Iterator[None]:
    """A directory that is not there yet, or empty, is so again when the block fails, and the folders above it too: what
    was refused leaves nothing, so that the corrected command can have the place. One with something in it stays."""
    missing = [folder for folder in (out, *out.parents) if not folder.exists()]
    ours = not missing and not any(out.iterdir())
    try:
        yield
    except BaseException:
        if missing:
            shutil.rmtree(missing[-1], ignore_errors=True)
        elif ours:
            empty(out)
        raise


def empty(folder: Path) -> None:
    """Remove everything in a folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
