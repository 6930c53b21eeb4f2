"""Checkpoints that are whole or absent: written beside, described by a manifest, renamed. No torch.

Layout, below ``RUN_DIR/checkpoints``: ``global_step_N/`` as verl writes it (``actor/``, ``data.pt``) plus
``medserl.json``, and ``latest_checkpointed_iteration.txt`` as verl and Megatron expect it. ``.saving``, ``.replaced``
and ``.removed`` are there while a checkpoint is saved, or were left by one that was interrupted.

Over 350 lines, because publishing, judging and removing a checkpoint rest on the same few rules.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError, UserError
from medserl.files import (
    PRIVATE_FOLDER,
    in_threads,
    read_json,
    replace_durably,
    sha256_of,
    sync,
    sync_tree,
    write_atomically,
)

logger = logging.getLogger("medserl.checkpoint")
STEP_PREFIX = "global_step_"
STAGING, REPLACED, REMOVED = ".saving", ".replaced", ".removed"
MANIFEST = "medserl.json"
TRACKER = "latest_checkpointed_iteration.txt"
BEST = "best.json"
EXPORT_RECORD = "medserl_export.json"
"""In an exported model directory: the checkpoint that it was, and how its run's validation judged it."""
_PROBE_BYTES = 65536


class CheckpointFailed(RuntimeError):
    """A checkpoint that could not be written; the ones before it are as they were."""


def staging_dir(root: Path) -> Path:
    """An empty folder for the checkpoint being written; what an interrupted save left there is removed."""
    staging = root / STAGING
    for left in (staging, root / REMOVED):
        shutil.rmtree(left, ignore_errors=True)
    root.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    staging.mkdir(mode=PRIVATE_FOLDER)
    return staging


@contextmanager
def saving(root: Path, step: int, unit: str = "round") -> Iterator[Path]:
    """The staging folder for the checkpoint of ``step``; when writing fails, all of it is removed again.

    Args:
        root: The folder of all checkpoints.
        step: Number of the checkpoint.
        unit: What people call what is numbered.

    Raises:
        CheckpointFailed: says why, which checkpoint is the last good one, and what to do.
    """
    try:
        yield staging_dir(root)
    except Exception as error:
        why = reason(error, root / STAGING)  # before it is emptied
        shutil.rmtree(root / STAGING, ignore_errors=True)
        before = latest_step(root, content=False)
        last = f"the one of {unit} {before} is whole" if before else "there is none before it"
        raise CheckpointFailed(
            f"the checkpoint of {unit} {step} could not be written to {root} ({why}); {last}: {_remedy(error)} "
            "and start again"
        ) from error


_NO_MEMORY = ("OutOfMemoryError", "MemoryError")
_WORKER_ENDED = ("ActorDiedError", "ActorUnavailableError", "RayActorError", "WorkerCrashedError")
"""Errors by name, of Ray 2.60 (ray/exceptions.py) where they are none of Python's: this room does not import Ray."""


def _remedy(error: BaseException) -> str:
    """What to do about a failed write: most fail for room on the disk, some for memory."""
    if _is(error, _NO_MEMORY):
        return "end other programs on the machine, or give it more memory,"
    if _is(error, _WORKER_ENDED):
        return "see the end of the workers' logs"
    return "make room there"


def _is(error: BaseException, names: tuple[str, ...]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)


def reason(error: BaseException, folder: Path) -> str:
    """What went wrong while ``folder`` was written, in a phrase: the system's words where a worker's traceback has
    them.

    A worker may fail only because another one did, and then does not know why (megatron-core 0.16.1,
    dist_checkpointing/strategies/state_dict_saver.py: the failures reach the first rank only): so the system is asked
    again.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if _is(error, _NO_MEMORY):
        return "the memory ran out while it was written"
    text = str(error).strip()
    if found := re.search(r"\[Errno \d+\] ([^:\n]+)", text):
        return found[1].strip()
    if (refused := refusal(folder)) is not None:
        return refused
    if _is(error, _WORKER_ENDED):
        return "a worker ended while it was written"
    return (text.splitlines() or [type(error).__name__])[-1].strip()[:200]


def refusal(folder: Path) -> str | None:
    """What the system says to a small file in ``folder``; None where it takes it."""
    probe = folder / ".probe"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return error.strerror
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def publish(root: Path, step: int, state: dict[str, Any], keep: int | None) -> Path:
    """Turn the staged checkpoint of ``step`` into the latest one.

    Whatever is interrupted, and wherever, a whole checkpoint is found afterwards if there was one before: files are on
    the disk before the manifest describes them, the manifest before the folder gets its name, and only then does an
    older folder lose its own, in one rename, and is emptied.

    Args:
        root: The folder of all checkpoints.
        step: Round number of the checkpoint.
        state: What the trainer needs beside verl's own state; JSON.
        keep: How many checkpoints to keep, the one that is marked best beside them; None keeps all. Never removes the
            one of ``step``; of the others those go first that are damaged, then those of later rounds, which a run
            that went back has given up, then the oldest.

    Returns:
        The folder of the checkpoint.
    """
    staged = root / STAGING / f"{STEP_PREFIX}{step}"
    _settle(root)
    files = sorted(path for path in staged.rglob("*") if path.is_file())
    names = [str(path.relative_to(staged)) for path in files]
    sync_tree(staged)
    manifest = {
        "step": step,
        "order": 1 + max((_order(place) or 0 for place in _places(root)), default=0),
        "state": state,
        "files": dict(zip(names, (path.stat().st_size for path in files), strict=True)),
        "sha256": dict(zip(names, in_threads(sha256_of, files), strict=True)),
    }
    write_atomically(staged / MANIFEST, json.dumps(manifest, indent=1))
    final = root / f"{STEP_PREFIX}{step}"
    _put_in_place(root, staged, final)
    shutil.rmtree(root / STAGING, ignore_errors=True)
    write_atomically(root / TRACKER, str(step))
    _clear_old(root, final, keep)
    return final


def _put_in_place(root: Path, staged: Path, final: Path) -> None:
    """An earlier checkpoint of the same round steps aside, where it is still found, until the new one is in place."""
    aside = root / REPLACED / final.name
    if final.exists():
        aside.parent.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
        os.rename(final, aside)
        sync(aside.parent)
    try:
        replace_durably(staged, final)
    except Exception:
        if aside.exists():
            os.rename(aside, final)
        raise


def _settle(root: Path) -> None:
    """Finish what an interrupted ``publish`` left: of two checkpoints of one round the newer whole one stays."""
    for aside in sorted((root / REPLACED).glob(f"{STEP_PREFIX}*")):
        final = root / aside.name
        if final.exists() and (damage(final) is None or damage(aside) is not None):
            _remove(root, aside)
            continue
        if final.exists():
            _remove(root, final)
        replace_durably(aside, final)


def _clear_old(root: Path, new: Path, keep: int | None) -> None:
    """Remove what ``publish`` made superfluous; a disk that refuses that is no reason to end the run."""
    try:
        if (aside := root / REPLACED / new.name).exists():
            _remove(root, aside)
        if keep is not None:
            spared = best(root)
            others = sorted((place for place in _places(root) if place != new), key=_worth(new), reverse=True)
            for place in others[max(keep, 1) - 1 :]:
                if spared is None or step_of(place) != spared["step"]:
                    _remove(root, place)
        for folder in (REPLACED, REMOVED):
            shutil.rmtree(root / folder, ignore_errors=True)
    except OSError as error:
        logger.warning("an old checkpoint in %s could not be removed (%s)", root, error.strerror or error)


def _worth(new: Path) -> Callable[[Path], tuple[bool, bool, int, int]]:
    def worth(place: Path) -> tuple[bool, bool, int, int]:
        whole = damage(place, content=False) is None
        return whole, step_of(place) < step_of(new), _order(place) or 0, step_of(place)

    return worth


def _remove(root: Path, place: Path) -> None:
    """Take a checkpoint's name in one step, so that no half of it is ever found, then empty it."""
    bin_ = root / REMOVED
    bin_.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
    gone = Path(tempfile.mkdtemp(dir=bin_)) / place.name
    os.rename(place, gone)
    sync(place.parent)
    shutil.rmtree(gone)


def mark_best(root: Path, step: int, metric: str, value: float) -> None:
    """Say that the checkpoint of ``step`` is the best so far; retention spares it."""
    write_atomically(root / BEST, json.dumps({"step": step, "metric": metric, "value": value}) + "\n")


def best(root: Path) -> dict[str, Any] | None:
    """``step``, ``metric`` and ``value`` of the best checkpoint; None where none was marked."""
    try:
        marked: dict[str, Any] = read_json(root / BEST)
        step, metric, value = marked["step"], marked["metric"], marked["value"]
        usable = isinstance(step, int) and isinstance(metric, str) and isinstance(value, int | float)
        return {"step": step, "metric": metric, "value": float(value)} if usable else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None  # whoever validates next, or resumes, sets it anew


def told_best(root: Path) -> dict[str, Any] | None:
    """``best``, for whoever asks for the best checkpoint and shall not be given another one.

    Raises:
        UserError: one was marked, and the mark is damaged.
    """
    marked = best(root)
    if marked is None and os.path.lexists(root / BEST):
        raise UserError(
            f"{root / BEST}: does not say which checkpoint is the best; restore it, or remove it: a run that is "
            "validated once more writes it anew"
        )
    return marked


def unmark_best(root: Path) -> None:
    """No checkpoint is known to be the best."""
    (root / BEST).unlink(missing_ok=True)


def folder(root: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies, or would lie."""
    return next((place for place in _places(root) if step_of(place) == step), root / f"{STEP_PREFIX}{step}")


def steps(root: Path) -> list[int]:
    """Rounds that have a checkpoint folder, ascending."""
    return sorted({step_of(place) for place in _places(root)})


def step_of(checkpoint: Path) -> int:
    """The round of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix(STEP_PREFIX))


def _places(root: Path) -> list[Path]:
    """Every checkpoint folder; one that was about to be replaced comes behind the one that replaced it."""
    found = (place for parent in (root, root / REPLACED) for place in parent.glob(f"{STEP_PREFIX}*"))
    return [place for place in found if place.name.removeprefix(STEP_PREFIX).isdecimal() and place.is_dir()]


def _manifest(checkpoint: Path) -> dict[str, Any]:
    """The manifest; raises OSError, ValueError, KeyError or TypeError where it is none."""
    manifest: dict[str, Any] = read_json(checkpoint / MANIFEST)
    for name in ("files", "state"):
        if not isinstance(manifest[name], dict):
            raise TypeError(name)
    return manifest


def _order(checkpoint: Path) -> int | None:
    """Which of all publications in its folder a checkpoint was; 0: an earlier version's; None: there is no saying."""
    try:
        return int(_manifest(checkpoint).get("order", 0))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def enclosing(path: Path) -> Path | None:
    """The checkpoint that a path lies in or is; None where it is of none."""
    return next((place for place in (path, *path.absolute().parents) if (place / MANIFEST).is_file()), None)


def damage(checkpoint: Path, content: bool = True, below: Path | None = None) -> str | None:
    """Why a checkpoint cannot be used, or None when every file of its manifest is there in full.

    Args:
        checkpoint: Its folder.
        content: Read every file and compare its checksum (seconds for tens of gigabytes that are in memory, else as
            long as reading takes); otherwise sizes only. A manifest of an earlier version holds no checksums:
            sizes, then.
        below: Look at the files below this folder of it only; None: at all.
    """
    try:
        manifest = _manifest(checkpoint)
        files: dict[str, int] = manifest["files"]
        sums: dict[str, str] = dict(manifest.get("sha256") or {}) if content else {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"no readable {MANIFEST} ({type(error).__name__})"
    if below is not None:
        part = below.absolute().relative_to(checkpoint.absolute())
        files = {name: size for name, size in files.items() if Path(name).is_relative_to(part)}
        sums = {name: value for name, value in sums.items() if name in files}
    if checkpoint.name.startswith(STEP_PREFIX) and checkpoint.name != f"{STEP_PREFIX}{manifest.get('step')}":
        return f"its {MANIFEST} is that of round {manifest.get('step')}"
    for name, size in files.items():
        try:
            found = (checkpoint / name).stat().st_size
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    try:
        present = in_threads(sha256_of, [checkpoint / name for name in sums])
    except OSError as error:
        return f"{Path(str(error.filename)).name} cannot be read ({error.strerror})"
    changed = [name for name, now in zip(sums, present, strict=True) if now != sums[name]]
    return f"{changed[0]} does not hold what was written to it (checksum)" if changed else None


def latest_usable(root: Path, content: bool = True) -> tuple[Path | None, list[str]]:
    """The undamaged checkpoint that was published last, and one sentence for each that had to be passed over.

    Args:
        root: The folder of all checkpoints.
        content: As for ``damage``.
    """
    complaints: list[str] = []
    for checkpoint in _latest_first(root):
        reason = damage(checkpoint, content)
        if reason is None:
            return checkpoint, complaints
        complaints.append(f"checkpoint {checkpoint} is damaged: {reason}; using an earlier one")
    return None, complaints


def to_go_on_from(root: Path, content: bool = True) -> tuple[Path | None, list[str]]:
    """`latest_usable` for a start, which would begin anew in the place of checkpoints none of which is whole.

    Raises:
        ConfigError: there are checkpoints, and none is whole.
    """
    found, complaints = latest_usable(root, content)
    if found is None and complaints:
        newest = _latest_first(root)[0]
        raise ConfigError(
            f"run directory {root.parent}: none of its checkpoints ({', '.join(map(str, steps(root)))}) is whole "
            f"({newest.name}: {damage(newest, content)}), and a start would begin anew in their place; restore one of "
            "them, or give another --run-dir to begin anew"
        )
    return found, complaints


def _latest_first(root: Path) -> list[Path]:
    """By publication. One without a readable manifest comes before those of earlier rounds, so that it is named."""
    order = {place: _order(place) for place in _places(root)}
    readable = (place for place, number in order.items() if number is not None)
    found = sorted(readable, key=lambda place: (order[place], step_of(place)), reverse=True)
    for place in sorted((place for place, number in order.items() if number is None), key=step_of):
        found.insert(next((i for i, other in enumerate(found) if step_of(other) < step_of(place)), len(found)), place)
    return found


def latest_step(root: Path, content: bool = True) -> int:
    """Round of the newest usable checkpoint, as ``latest_usable`` finds it; 0 where there is none."""
    latest, _ = latest_usable(root, content)
    return 0 if latest is None else step_of(latest)


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's own state of a checkpoint."""
    state: dict[str, Any] = read_json(checkpoint / MANIFEST)["state"]
    return state
