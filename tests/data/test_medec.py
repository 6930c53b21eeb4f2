"""The data commands on MEDEC's public notes; runs where MEDSERL_MEDEC_DIR names their folder."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from medserl.cli import main
from medserl.data import read_labelled, read_labelled_with_report
from medserl.game.cells import MISREAD
from medserl.game.labels import Label
from medserl.game.load import load_notes

pytestmark = pytest.mark.medec


@pytest.fixture(scope="module")
def folder() -> Path:
    return Path(os.environ["MEDSERL_MEDEC_DIR"])


def test_flags_are_as_published(folder: Path) -> None:
    examples, report = read_labelled_with_report(folder / "MEDEC-MS-ValidationSet.csv")
    assert Counter(example.label for example in examples) == {Label.INCORRECT: 319, Label.CORRECT: 255}
    assert report.dropped == []
    assert len(report.remarks) == 124  # texts that were misread once, as the publishers left them
    assert {remark.reason for remark in report.remarks} == {MISREAD}
    types = Counter(example.error_type for example in examples if example.error_type)
    assert types == {"management": 168, "diagnosis": 86, "pharmacotherapy": 27, "treatment": 25, "causalorganism": 13}
    for example in examples:
        if example.label is Label.INCORRECT:
            assert "".join(example.sentences[example.error_sentence_id].split()) == "".join(
                (example.error_sentence or "").split()
            )
        else:
            assert (example.error_sentence_id, example.error_sentence, example.corrected_text) == (-1, None, None)


def test_training_pairs_and_validation_prepare_without_leaks(folder: Path, tmp_path: Path) -> None:
    sources = [folder / "MEDEC-MS-ValidationSet.csv", folder / "medec_ms_train_pairs.jsonl"]
    assert main(["data", "prepare", *map(str, sources), "--out", str(tmp_path / "out")]) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {split: counts["rows"] for split, counts in manifest["splits"].items()} == {"train": 608, "validation": 574}
    assert manifest["leaks"]["rows"] == [] and "CC BY 4.0" in manifest["licence"]
    assert read_labelled(tmp_path / "out" / "validation.parquet") == read_labelled(sources[0])
    notes = load_notes(tmp_path / "out" / "train.parquet", split="train")
    assert [(note.note_id, note.text, note.error_text) for note in notes] == [
        (note.note_id, note.text, note.error_text) for note in load_notes(sources[1])
    ]


def test_a_random_split_of_validation_leaks(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """MEDEC holds variants of one case under neighbouring ids, so ids alone do not make a clean split."""
    path = tmp_path / "notes.csv"
    path.write_bytes((folder / "MEDEC-MS-ValidationSet.csv").read_bytes())
    assert main(["data", "prepare", str(path), "--out", str(tmp_path / "out")]) == 2
    assert "near-duplicate" in capsys.readouterr().err
