"""Whatever is saved, damaged and killed, in whatever order: the checkpoint just published stays, and the last usable
one is never lost."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.run import checkpoint

CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "open", "fsync")
HARMS = ("cut", "removed", "other content", "no manifest", "empty manifest")
_serial = iter(range(10**9))


class Killed(BaseException):
    """What a killed process does afterwards: nothing."""


@contextmanager
def killed_at(number: int | None) -> Iterator[None]:
    """Let ``number`` operations on files happen inside, and none after them."""
    done = 0
    patch = pytest.MonkeyPatch()

    def counted(real):  # type: ignore[no-untyped-def]
        def operation(*arguments, **named):  # type: ignore[no-untyped-def]
            nonlocal done
            if number is not None and done >= number:
                raise Killed
            done += 1
            return real(*arguments, **named)

        return operation

    for name in CHANGES:
        patch.setattr(os, name, counted(getattr(os, name)))
    try:
        yield
    except Killed:
        pass
    finally:
        patch.undo()


def save(root: Path, step: int, keep: int | None, kill: int | None = None) -> bytes:
    """Save a checkpoint with a content of its own; returns the content."""
    content = b"weights %09d" % next(_serial)
    with killed_at(kill), checkpoint.saving(root, step) as staging:
        folder = staging / f"global_step_{step}"
        (folder / "actor").mkdir(parents=True)
        (folder / "actor" / "w").write_bytes(content)
        checkpoint.publish(root, step, {}, keep)
    return content


def harm(place: Path, how: str) -> None:
    weights, manifest = place / "actor/w", place / checkpoint.MANIFEST
    match how:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-1] if weights.exists() else b"")
        case "removed":
            weights.unlink(missing_ok=True)
        case "other content":
            weights.write_bytes(bytes(17))
        case "no manifest":
            manifest.unlink(missing_ok=True)
        case _:
            manifest.write_bytes(b"")


def content(place: Path | None) -> bytes | None:
    return None if place is None else (place / "actor/w").read_bytes()


saves = st.tuples(st.just("save"), st.integers(1, 9), st.none() | st.integers(0, 3), st.none() | st.integers(0, 60))
harms = st.tuples(st.just("harm"), st.integers(0, 5), st.sampled_from(HARMS))
marks = st.tuples(st.just("mark"), st.integers(1, 9))


@settings(max_examples=150, deadline=None)
@given(st.lists(saves | harms | marks, max_size=9))
def test_the_published_and_the_last_usable_checkpoint_are_never_lost(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple]
) -> None:
    root = tmp_path_factory.mktemp("c") / "checkpoints"
    try:
        for action in actions:
            before, _ = checkpoint.latest_usable(root)
            held = content(before)
            match action:
                case ("harm", which, how):
                    if there := checkpoint.steps(root):
                        harm(checkpoint.folder(root, there[which % len(there)]), how)
                case ("mark", step):
                    root.mkdir(exist_ok=True)
                    checkpoint.mark_best(root, step, "m", 0.5)
                case (_, step, keep, kill):
                    new = save(root, step, keep, kill)
                    after, _ = checkpoint.latest_usable(root)
                    if kill is None:
                        assert after == root / f"global_step_{step}" and content(after) == new
                        best = checkpoint.best(root)
                        others = [n for n in checkpoint.steps(root) if best is None or n != best["step"]]
                        assert keep is None or len(others) <= max(keep, 1)
                    else:
                        assert content(after) in {held, new}
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.mark.parametrize("kill", range(80))
def test_a_round_that_is_saved_again_is_whole_at_every_moment(tmp_path: Path, kill: int) -> None:
    old = save(tmp_path, 7, 1)
    new = save(tmp_path, 7, 1, kill)
    found, _ = checkpoint.latest_usable(tmp_path)
    assert content(found) in {old, new}
    assert found is not None and found.name == "global_step_7"
    newest = save(tmp_path, 8, 1)
    assert content(checkpoint.latest_usable(tmp_path)[0]) == newest
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"global_step_8", checkpoint.TRACKER}, "the next save clears what the killed one left"


def test_a_checkpoint_saved_after_a_damaged_newer_one_stays(tmp_path: Path) -> None:
    save(tmp_path, 10, None)
    save(tmp_path, 20, None)
    harm(tmp_path / "global_step_20", "removed")
    save(tmp_path, 12, 1)
    assert checkpoint.steps(tmp_path) == [12] and checkpoint.latest_step(tmp_path) == 12


def test_rounds_that_a_run_went_back_behind_go_first_and_are_not_resumed(tmp_path: Path) -> None:
    for step in (3, 45, 50):
        save(tmp_path, step, None)
    save(tmp_path, 5, 2)
    assert checkpoint.steps(tmp_path) == [3, 5] and checkpoint.latest_step(tmp_path) == 5
    for step in (45, 50):
        save(tmp_path, step, None)
    save(tmp_path, 6, None)
    assert checkpoint.steps(tmp_path) == [3, 5, 6, 45, 50] and checkpoint.latest_step(tmp_path) == 6


@pytest.mark.parametrize("size", [0, 1, 17, 100_000])
def test_content_that_changed_at_the_same_size_is_damage(tmp_path: Path, size: int) -> None:
    save(tmp_path, 3, None)
    place = tmp_path / "global_step_3"
    folder = checkpoint.staging_dir(tmp_path) / "global_step_4"
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/w").write_bytes(b"w" * size)
    place = checkpoint.publish(tmp_path, 4, {}, None)
    assert checkpoint.damage(place) is None
    (place / "deep/er/w").write_bytes(b"w" * (size - 1) + b"x" * (size > 0))
    assert checkpoint.damage(place, content=False) is None
    if size:
        assert "deep/er/w" in str(checkpoint.damage(place)) and "checksum" in str(checkpoint.damage(place))
        assert checkpoint.latest_step(tmp_path) == 3


def test_a_checkpoint_of_an_earlier_version_is_usable_and_older_than_any_new_one(tmp_path: Path) -> None:
    import json

    for step in (4, 9):
        save(tmp_path, step, None)
        manifest = tmp_path / f"global_step_{step}" / checkpoint.MANIFEST
        held = json.loads(manifest.read_text())
        manifest.write_text(json.dumps({key: held[key] for key in ("step", "state", "files")}))
    assert checkpoint.latest_step(tmp_path) == 9
    save(tmp_path, 6, None)
    assert checkpoint.latest_step(tmp_path) == 6
    harm(tmp_path / "global_step_6", "cut")
    assert checkpoint.latest_step(tmp_path) == 9


def test_an_old_checkpoint_that_cannot_be_removed_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1, None)

    def busy(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(checkpoint, "_remove", busy)
    save(tmp_path, 2, 1)
    assert checkpoint.latest_step(tmp_path) == 2 and "could not be removed (Device or resource busy)" in caplog.text


def test_files_are_on_the_disk_before_the_manifest_and_names_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves is what was synced: order matters."""
    events: list[str] = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(descriptor: int) -> None:
        events.append("sync " + os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(tmp_path)))
        real_sync(descriptor)

    def replace(source: object, target: object) -> None:
        events.append(f"name {str(target).removeprefix(str(tmp_path))}")
        real_replace(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    save(tmp_path, 2, None)
    staged = "/.saving/global_step_2"
    manifest = events.index(f"name {staged}/{checkpoint.MANIFEST}")
    assert events.index(f"sync {staged}/actor/w") < manifest and events.index(f"sync {staged}/actor") < manifest
    named = events.index("name /global_step_2")
    assert manifest < events.index(f"sync {staged}", manifest) < named < events.index("sync ", named)
