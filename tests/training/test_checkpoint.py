"""Checkpoints are whole or absent, and a damaged one is passed over with a sentence."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.training import checkpoint


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


@pytest.mark.parametrize("harm", ["truncate", "remove", "no manifest", "manifest is no JSON"])
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
