"""Checkpoints that are whole or absent: written beside, described by a manifest, renamed. No torch.

Layout, below ``RUN_DIR/checkpoints``: ``global_step_N/`` as verl writes it (``actor/``, ``data.pt``) plus
``medserl.json``, and ``latest_checkpointed_iteration.txt`` as verl and Megatron expect it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from medserl.files import write_atomically

STEP_PREFIX = "global_step_"
STAGING = ".saving"
MANIFEST = "medserl.json"
TRACKER = "latest_checkpointed_iteration.txt"
BEST = "best.json"
_PROBE_BYTES = 65536


class CheckpointFailed(RuntimeError):
    """A checkpoint that could not be written; the ones before it are as they were."""


def staging_dir(root: Path) -> Path:
    """An empty folder for the checkpoint being written; what an interrupted save left there is removed."""
    staging = root / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True, mode=0o700)
    return staging


@contextmanager
def saving(root: Path, step: int) -> Iterator[Path]:
    """The staging folder for the checkpoint of ``step``; when writing fails, all of it is removed again.

    Raises:
        CheckpointFailed: says why, which checkpoint is the last good one, and what to do.
    """
    try:
        yield staging_dir(root)
    except Exception as error:
        why = reason(error, root / STAGING)  # before it is emptied
        shutil.rmtree(root / STAGING, ignore_errors=True)
        before = latest_step(root)
        last = f"the one of round {before} is whole" if before else "there is none before it"
        raise CheckpointFailed(
            f"the checkpoint of round {step} could not be written to {root} ({why}); {last}: make room there "
            "and start again"
        ) from error


def reason(error: BaseException, folder: Path) -> str:
    """What went wrong while ``folder`` was written, in a phrase: the system's words where a worker's traceback has
    them.

    A worker may fail only because another one did, and then does not know why (megatron-core 0.16.1,
    dist_checkpointing/strategies/state_dict_saver.py: the failures reach the first rank only): so the system is asked
    again.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    if found := re.search(r"\[Errno \d+\] ([^:\n]+)", text):
        return found[1].strip()
    return refusal(folder) or (text.splitlines() or [type(error).__name__])[-1].strip()[:200]


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

    Args:
        root: The folder of all checkpoints.
        step: Round number of the checkpoint.
        state: What the trainer needs beside verl's own state; JSON.
        keep: How many checkpoints to keep; None keeps all.

    Returns:
        The folder of the checkpoint.
    """
    staged = root / STAGING / f"{STEP_PREFIX}{step}"
    sizes = {str(p.relative_to(staged)): p.stat().st_size for p in sorted(staged.rglob("*")) if p.is_file()}
    write_atomically(staged / MANIFEST, json.dumps({"step": step, "state": state, "files": sizes}, indent=1))
    final = root / f"{STEP_PREFIX}{step}"
    if final.exists():
        shutil.rmtree(final)
    os.replace(staged, final)
    shutil.rmtree(root / STAGING, ignore_errors=True)
    write_atomically(root / TRACKER, str(step))
    if keep is not None:
        spared = best(root)
        for old in steps(root)[: -max(keep, 1)]:
            if spared is None or old != spared["step"]:
                shutil.rmtree(root / f"{STEP_PREFIX}{old}")
    return final


def mark_best(root: Path, step: int, metric: str, value: float) -> None:
    """Say that the checkpoint of ``step`` is the best so far; retention spares it."""
    write_atomically(root / BEST, json.dumps({"step": step, "metric": metric, "value": value}) + "\n")


def best(root: Path) -> dict[str, Any] | None:
    """``step``, ``metric`` and ``value`` of the best checkpoint; None where none was marked."""
    try:
        marked: dict[str, Any] = json.loads((root / BEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return marked


def unmark_best(root: Path) -> None:
    """No checkpoint is known to be the best."""
    (root / BEST).unlink(missing_ok=True)


def folder(root: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` lies."""
    return root / f"{STEP_PREFIX}{step}"


def steps(root: Path) -> list[int]:
    """Rounds that have a checkpoint folder, ascending."""
    names = (p.name.removeprefix(STEP_PREFIX) for p in root.glob(f"{STEP_PREFIX}*"))
    return sorted(int(name) for name in names if name.isdigit())


def damage(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used, or None when every file of its manifest is there in full."""
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        files: dict[str, int] = manifest["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"no readable {MANIFEST} ({type(error).__name__})"
    for name, size in files.items():
        try:
            found = (checkpoint / name).stat().st_size
        except OSError:
            return f"{name} is missing"
        if found != size:
            return f"{name} has {found} bytes instead of {size}"
    return None


def latest_usable(root: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint, and one sentence for each newer one that had to be passed over."""
    complaints: list[str] = []
    for step in reversed(steps(root)):
        checkpoint = root / f"{STEP_PREFIX}{step}"
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint, complaints
        complaints.append(f"checkpoint {checkpoint} is damaged: {reason}; using an earlier one")
    return None, complaints


def tracked_step(root: Path) -> int:
    """The step that verl's tracker file names; 0 where there is none."""
    try:
        return int((root / TRACKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return 0


def latest_step(root: Path) -> int:
    """Round of the newest usable checkpoint; 0 where there is none."""
    latest, _ = latest_usable(root)
    return 0 if latest is None else int(latest.name.removeprefix(STEP_PREFIX))


def load_state(checkpoint: Path) -> dict[str, Any]:
    """The trainer's own state of a checkpoint."""
    state: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["state"]
    return state
