"""Notes too long for a model are taken out of every split, listed with their reason, and nothing else changes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl.data import read_labelled
from medserl.data.long_notes import drop_long_notes
from medserl.data.prepare import PrepareOptions, prepare, sha256_of
from medserl.errors import DataError
from tests.data.files import clean_row, error_row, note_text, write_csv


class Words:
    """Counts words; the real counter is tested with `medserl data stats`."""

    tokenizer_name, prompt_set, limit = "words", "none", None

    def prompts(self, text: str, error_text: str | None) -> list[Any]:
        return [text, *([error_text] if error_text else [])]

    def assessor(self, text: str) -> Any:
        return text

    def needed(self, prompts: Sequence[Any]) -> list[int]:
        return [len(str(prompt).split()) for prompt in prompts]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train: a clean and an erroneous note, and one of each that are longer; test: one of each."""
    long = error_row("t4", 4)
    for i in (1, 8):
        long[i] = f"{long[i]} {'More of it. ' * 9}".strip()
    train = [clean_row("t1", note_text(1)), error_row("t2", 2), clean_row("t3", note_text(3) + " Word." * 20), long]
    write_csv(tmp_path / "TrainingSet.csv", train)
    write_csv(tmp_path / "TestSet.csv", [clean_row("x1", note_text(5)), error_row("x2", 6)])
    out = tmp_path / "data"
    prepare(PrepareOptions([tmp_path / "TrainingSet.csv", tmp_path / "TestSet.csv"], out))
    return out


def test_long_notes_go_and_are_listed(folder: Path) -> None:
    before = json.loads((folder / "manifest.json").read_text())
    assert drop_long_notes(folder, Words(), 45) == {"test": 0, "train": 2}
    assert {e.note_id for e in read_labelled(folder / "train.parquet")} == {"t1", "t2"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["splits"]["train"]["labels"] == {"CORRECT": 1, "INCORRECT": 1}
    assert manifest["splits"]["test"] == before["splits"]["test"]
    assert manifest["outputs"]["train.parquet"]["sha256"] == sha256_of(folder / "train.parquet")
    assert manifest["outputs"]["test.parquet"] == before["outputs"]["test.parquet"]
    reason = "a prompt needs more than 45 tokens"
    assert manifest["dropped"]["counts"] == {reason: 2}
    assert [(row["note_id"], row["reason"]) for row in manifest["dropped"]["rows"]] == [("t3", reason), ("t4", reason)]
    assert (folder / "manifest.json").stat().st_mode & 0o077 == 0


def test_nothing_changes_where_all_fit(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert drop_long_notes(folder, Words(), 200) == {"test": 0, "train": 0}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_split_that_would_be_empty_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train\.parquet: every note has a prompt of more than 3 tokens"):
        drop_long_notes(folder, Words(), 3)
