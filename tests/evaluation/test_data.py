"""Where labelled texts come from."""

import csv
import os
from pathlib import Path

import pytest

from medserl.data.records import base_id
from medserl.errors import DataError
from medserl.evaluation.data import fingerprint, load_examples
from medserl.game.labels import Label
from medserl.game.sentences import sentence_texts
from medserl.ward import medec_rows, ward_notes


def test_ward_notes_come_with_and_without_their_error() -> None:
    data = load_examples(["ward:validation"], 10, 3)
    assert [e.label for e in data.examples] == [Label.CORRECT, Label.INCORRECT] * 10
    assert len({e.note_id for e in data.examples}) == 20 and len({base_id(e.note_id) for e in data.examples}) == 10
    for example in data.examples:
        assert list(example.sentences) == sentence_texts(example.text)
        if example.label is Label.INCORRECT:
            assert example.sentences[example.error_sentence_id] == example.error_sentence
            assert example.error_type and example.corrected_sentence
        else:
            assert example.error_sentence_id == -1 and example.error_type is None


def test_seed_and_count_decide_the_data() -> None:
    one = load_examples(["ward:test"], 5, 1)
    assert one.sha256 == load_examples(["ward:test"], 5, 1).sha256 == fingerprint(reversed(one.examples))
    others = [
        load_examples(["ward:test"], 5, 2),
        load_examples(["ward:test"], 6, 1),
        load_examples(["ward:train"], 5, 1),
    ]
    assert one.sha256 not in [other.sha256 for other in others]


@pytest.fixture
def medec_file(tmp_path: Path) -> Path:
    """Four ward notes in MEDEC's columns, two with an error, and one blank row."""
    notes = ward_notes("validation", 4, 0)
    rows = medec_rows(notes[:2], erroneous=True) + medec_rows(notes[2:], erroneous=False)
    path = tmp_path / "notes.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows([*rows, {**rows[3], "Text ID": "blank", "Text": ""}])
    return path


def test_medec_files_keep_their_numbering_and_list_what_they_drop(medec_file: Path) -> None:
    data = load_examples([str(medec_file)], None, 0)
    assert [e.label for e in data.examples] == [Label.INCORRECT] * 2 + [Label.CORRECT] * 2
    assert all(e.sentences[e.error_sentence_id] == e.error_sentence for e in data.examples[:2])
    assert len(data.notes) == 1 and "1 of 5 rows dropped" in data.notes[0]
    cut = load_examples([str(medec_file)], 3, 0)
    assert len(cut.examples) == 3 and "first 3 of 4" in cut.notes[-1]


def test_prepared_parquet_is_the_same_data(medec_file: Path, tmp_path: Path) -> None:
    from medserl.cli.main import main

    assert main(["data", "prepare", "--split", f"test={medec_file}", "--out", str(tmp_path / "data")]) == 0
    prepared = load_examples([str(tmp_path / "data" / "test.parquet")], None, 0)
    assert prepared.sha256 == load_examples([str(medec_file)], None, 0).sha256


def test_several_sources_together(medec_file: Path) -> None:
    data = load_examples([str(medec_file), "ward:test"], 2, 0)
    assert data.source == "notes.csv + ward:test" and len(data.examples) == 2 + 4
    with pytest.raises(DataError, match="occurs twice"):
        load_examples([str(medec_file), str(medec_file)], None, 0)


@pytest.mark.parametrize(
    ("sources", "count", "what"),
    [
        ([], None, "--data: say what to evaluate on"),
        (["ward:tset"], None, "no such split; known: ward:train, ward:validation, ward:test"),
        (["ward:test"], 0, "--count: 0"),
        (["missing.csv"], None, "missing.csv: no such file"),
    ],
)
def test_unusable_sources(sources: list[str], count: int | None, what: str) -> None:
    with pytest.raises(DataError, match=what):
        load_examples(sources, count, 0)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "empty"),
        ("Text ID,Text,Error Flag,Corrected Text\n", "no usable|empty"),
        ("a,b\n1,2\n", "columns are a, b"),
    ],
)
def test_empty_files_and_files_without_labels(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=what) as caught:
        load_examples([str(path)], None, 0)
    assert "notes.csv" in str(caught.value)


def test_notes_without_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"note_id": "a", "text": "He is well."}\n')
    with pytest.raises(DataError, match="notes without labels"):
        load_examples([str(path)], None, 0)
    path.write_text('{"note_id": "a", "text": "He is well.", "error_text": "He is ill."}\n')
    assert [e.label for e in load_examples([str(path)], None, 0).examples] == [Label.INCORRECT, Label.CORRECT]


def test_notes_of_one_class_are_said_to_be(medec_file: Path) -> None:
    path = medec_file
    assert "every row has an error" in load_examples([str(path)], 2, 0).notes[-1]
    path.write_text("Text ID,Text,Error Flag\na,He is well.,0\n")
    assert load_examples([str(path)], None, 0).notes == ("no row has an error: such notes are of no use for measuring",)
    assert not load_examples(["ward:test"], 2, 0).notes


@pytest.mark.medec
def test_published_validation_file() -> None:
    path = Path(os.environ["MEDSERL_MEDEC_DIR"]) / "MEDEC-MS-ValidationSet.csv"
    data = load_examples([str(path)], None, 0)
    wrong = [e for e in data.examples if e.label is Label.INCORRECT]
    assert (len(data.examples), len(wrong)) == (574, 319)
    assert all(0 <= e.error_sentence_id < len(e.sentences) and e.corrected_sentence for e in wrong)
    same = sum(
        " ".join(e.sentences[e.error_sentence_id].split()) == " ".join((e.error_sentence or "").split()) for e in wrong
    )
    assert same >= 0.95 * len(wrong)
