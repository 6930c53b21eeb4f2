"""Checkpoints are whole or absent, and a damaged one is passed over with a sentence."""

import errno
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.run import checkpoint


def stage(root: Path, step: int, files: dict[str, bytes]) -> None:
    folder = checkpoint.staging_dir(root) / f"global_step_{step}"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def saved(root: Path, step: int, keep: int | None = None) -> Path:
    stage(root, step, {"actor/weights": b"w" * (10 + step), "data.pt": b"d"})
    return checkpoint.publish(root, step, {"baselines": {"assessor": 0.5}}, keep)


def test_a_published_checkpoint_is_usable_and_carries_its_state(tmp_path: Path) -> None:
    path = saved(tmp_path, 3)
    assert checkpoint.latest_usable(tmp_path) == (path, [])
    assert checkpoint.load_state(path) == {"baselines": {"assessor": 0.5}}
    assert (tmp_path / checkpoint.TRACKER).read_text() == "3"


def test_what_an_interrupted_save_left_is_never_used(tmp_path: Path) -> None:
    first = saved(tmp_path, 1)
    stage(tmp_path, 2, {"actor/weights": b"half"})
    assert checkpoint.latest_usable(tmp_path) == (first, [])
    second = saved(tmp_path, 2)
    assert checkpoint.latest_usable(tmp_path) == (second, [])


@pytest.mark.parametrize("harm", ["truncate", "remove", "no manifest", "manifest is not JSON"])
def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path: Path, harm: str) -> None:
    first, second = saved(tmp_path, 1), saved(tmp_path, 2)
    weights = second / "actor/weights"
    if harm == "truncate":
        weights.write_bytes(b"w")
    elif harm == "remove":
        weights.unlink()
    elif harm == "no manifest":
        (second / checkpoint.MANIFEST).unlink()
    else:
        (second / checkpoint.MANIFEST).write_text("{")
    path, complaints = checkpoint.latest_usable(tmp_path)
    assert path == first
    assert len(complaints) == 1 and str(second) in complaints[0]


@settings(max_examples=25)  # each writes a few files
@given(steps=st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True), keep=st.integers(1, 4))
def test_retention_keeps_the_newest(tmp_path_factory: pytest.TempPathFactory, steps: list[int], keep: int) -> None:
    root = tmp_path_factory.mktemp("checkpoints")
    for step in sorted(steps):
        saved(root, step, keep)
    assert checkpoint.steps(root) == sorted(steps)[-keep:]


def test_saving_the_same_round_again_replaces_it(tmp_path: Path) -> None:
    saved(tmp_path, 4)
    path = saved(tmp_path, 4)
    assert checkpoint.damage(path) is None
    assert checkpoint.steps(tmp_path) == [4]


def test_files_are_private(tmp_path: Path) -> None:
    checkpoint.write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_retention_spares_the_best_checkpoint(tmp_path: Path) -> None:
    assert checkpoint.best(tmp_path) is None
    saved(tmp_path, 1, keep=2)
    checkpoint.mark_best(tmp_path, 1, "val/greedy/balanced_accuracy", 0.8)
    for step in (2, 3, 4):
        saved(tmp_path, step, keep=2)
    assert checkpoint.steps(tmp_path) == [1, 3, 4]
    assert checkpoint.best(tmp_path) == {"step": 1, "metric": "val/greedy/balanced_accuracy", "value": 0.8}


FULL = """
import resource, sys
from pathlib import Path
from medserl.run import checkpoint

root = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # Python ignores SIGXFSZ: writing fails as on a full disk
try:
    with checkpoint.saving(root, 2) as staging:
        (staging / "global_step_2").mkdir()
        with open(staging / "global_step_2" / "weights", "wb") as file:
            for _ in range(20):
                file.write(b"w" * 10_000)
        checkpoint.publish(root, 2, {}, 1)
except checkpoint.CheckpointFailed as error:
    print(error)
"""


def test_a_checkpoint_that_does_not_fit_leaves_the_last_one_and_no_rest(tmp_path: Path) -> None:
    """The file really cannot be written; an unprivileged stand-in for a disk that is full."""
    first = saved(tmp_path, 1, keep=1)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.strip() == (
        f"the checkpoint of round 2 could not be written to {tmp_path} (File too large); the one of round 1 is whole: "
        "make room there and start again"
    ), done.stderr
    assert checkpoint.latest_usable(tmp_path) == (first, [])
    assert not (tmp_path / checkpoint.STAGING).exists()
    assert (tmp_path / checkpoint.TRACKER).read_text() == "1"


@pytest.mark.parametrize("step", ["manifest", "rename", "tracker"])
def test_a_disk_that_fills_up_while_a_checkpoint_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whichever write fails, there is a whole checkpoint, and no half-written one."""
    saved(tmp_path, 1)
    calls = {"manifest": (1, "fsync"), "rename": (2, "replace"), "tracker": (3, "replace")}
    nth, function = calls[step]
    count, real = 0, getattr(os, function)

    def full(*arguments: object) -> object:
        nonlocal count
        count += 1
        if count == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    sentence = "round 2 could not be written .*No space left on device"
    with pytest.raises(checkpoint.CheckpointFailed, match=sentence), checkpoint.saving(tmp_path, 2) as staging:
        (staging / "global_step_2").mkdir()
        (staging / "global_step_2" / "weights").write_bytes(b"w")
        monkeypatch.setattr(checkpoint.os, function, full)
        checkpoint.publish(tmp_path, 2, {}, None)
    monkeypatch.undo()
    path, complaints = checkpoint.latest_usable(tmp_path)
    assert path == tmp_path / f"global_step_{2 if step == 'tracker' else 1}" and complaints == []
    assert {p.name for p in tmp_path.iterdir()} <= {"global_step_1", "global_step_2", checkpoint.TRACKER}


@pytest.mark.parametrize(
    ("error", "phrase"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/x"), "Disk quota exceeded"),
        (
            RuntimeError("ray::save()\n  File x\nOSError: [Errno 28] No space left on device: '/x'"),
            "No space left on device",
        ),
        (RuntimeError("ray::save()\n  File x\nValueError: shape mismatch"), "ValueError: shape mismatch"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_the_reason_is_the_systems_own_words(tmp_path: Path, error: Exception, phrase: str) -> None:
    assert checkpoint.reason(error, tmp_path) == phrase
    assert list(tmp_path.iterdir()) == []


def test_where_a_worker_does_not_know_the_reason_the_system_is_asked() -> None:
    """On a full disk a rank other than the first says no more than this. Nobody can make a file in /proc."""
    error = RuntimeError("ray::save()\nCheckpointException: CheckpointException ranks:dict_keys([])")
    assert checkpoint.reason(error, Path("/proc")) in {os.strerror(errno.ENOENT), os.strerror(errno.EACCES)}


@settings(max_examples=40)
@given(
    saves=st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True),
    harmed=st.sets(st.integers(0, 5)),
)
def test_the_newest_undamaged_one_is_taken_whatever_is_damaged(
    tmp_path_factory: pytest.TempPathFactory, saves: list[int], harmed: set[int]
) -> None:
    root = tmp_path_factory.mktemp("checkpoints")
    for step in sorted(saves):
        saved(root, step)
    damaged = {step for i, step in enumerate(sorted(saves)) if i in harmed}
    for step in damaged:
        (root / f"global_step_{step}" / "actor/weights").write_bytes(b"")
    whole = sorted(set(saves) - damaged)
    assert checkpoint.latest_step(root) == (whole[-1] if whole else 0)
    _, complaints = checkpoint.latest_usable(root)
    assert len(complaints) == len([step for step in saves if step > (whole[-1] if whole else 0)])
    assert json.loads((root / f"global_step_{saves[0]}" / checkpoint.MANIFEST).read_text())["step"] == saves[0]
    for content in (True, False):
        if whole:
            assert checkpoint.to_go_on_from(root, content) == (root / f"global_step_{whole[-1]}", complaints)
        else:
            with pytest.raises(ConfigError, match=f"none of its checkpoints .*global_step_{max(saves)}: actor/weights"):
                checkpoint.to_go_on_from(root, content)


def test_a_run_without_a_checkpoint_begins(tmp_path: Path) -> None:
    assert checkpoint.to_go_on_from(tmp_path / "checkpoints") == (None, [])
    checkpoint.staging_dir(tmp_path / "checkpoints")  # the first save was interrupted
    assert checkpoint.to_go_on_from(tmp_path / "checkpoints") == (None, [])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("OutOfMemoryError", r"\(the memory ran out while it was written\); .*: end other programs on the machine"),
        ("ActorDiedError", r"\(a worker ended while it was written\); .*: see the end of the workers' logs and start"),
        ("WorkerCrashedError", r"\(a worker ended while it was written\)"),
    ],
)
def test_a_checkpoint_that_failed_for_memory_does_not_ask_for_room_on_the_disk(
    tmp_path: Path, name: str, told: str
) -> None:
    kind = getattr(importlib.import_module("ray.exceptions"), name)
    error = kind("Task was killed\nsee https://docs.ray.io") if name == "OutOfMemoryError" else kind()
    with pytest.raises(checkpoint.CheckpointFailed, match=told), checkpoint.saving(tmp_path, 2):
        raise error
    with pytest.raises(checkpoint.CheckpointFailed, match="the memory ran out"), checkpoint.saving(tmp_path, 2):
        raise MemoryError
