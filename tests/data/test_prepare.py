"""``medserl data prepare``, through the command line: splits, schema, manifest, leaks, refusals."""

import csv
import hashlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from medserl.cli import main
from medserl.config.settings import GameSettings, NotesSettings
from medserl.data import read_labelled
from medserl.data.rounds import labelled_notes, training_notes
from medserl.data.splits import split_of_id
from medserl.data.write import SCHEMA
from medserl.errors import DataError
from medserl.game import load_notes_with_report, load_prompt_set
from tests.data.files import clean_row, error_row, note_text, pair, write_csv, write_jsonl, write_parquet

Files = Callable[..., list[Path]]


def prepare(*arguments: object) -> int:
    return main(["data", "prepare", *map(str, arguments)])


def rows_of(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def manifest_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "manifest.json").read_text())


def test_one_file_per_split_in_verls_schema(medec_files: Files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(*medec_files(), "--out", out) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("manifest.json", "test.parquet", "train.parquet", "validation.parquet"),
    ]
    assert pq.read_schema(out / "train.parquet").equals(SCHEMA)
    rows = rows_of(out / "train.parquet")
    assert [row["extra_info"]["index"] for row in rows] == list(range(6))
    wrong = rows[1]
    assert wrong["data_source"] == "MEDEC-TOY-TrainingSet-with-ErrorType"
    assert wrong["ability"] == "medical_error_detection"
    assert wrong["reward_model"] == {"style": "rule", "ground_truth": "INCORRECT"}
    text = note_text(1, "warfarin")
    assert wrong["prompt"] == load_prompt_set("clinical").assessor(text)
    info = wrong["extra_info"]
    assert (info["note_id"], info["text"], info["label"], info["split"]) == (
        "toy-training-1",
        text,
        "INCORRECT",
        "train",
    )
    assert (info["error_type"], info["error_sentence_id"]) == ("pharmacotherapy", 2)
    assert info["error_sentence"] == info["sentences"][2] == "The patient takes warfarin daily."
    assert info["corrected_sentence"] == "The patient takes ibuprofen daily."
    assert info["corrected_text"] == note_text(1)
    assert (info["source"], info["source_row"]) == ("MEDEC-TOY-TrainingSet-with-ErrorType.csv", 2)
    assert rows[0]["reward_model"]["ground_truth"] == "CORRECT" and rows[0]["extra_info"]["error_sentence_id"] == -1


def test_braces_and_any_prompt_set_survive(tmp_path: Path) -> None:
    text = "Braces {note} and {{sentences}} stay. \ue000"
    for name in ("clinical", "ward"):
        out = tmp_path / name
        path = write_csv(tmp_path / "train.csv", [clean_row("a", text)])
        assert prepare(path, "--out", out, "--prompt-set", name) == 0
        assert rows_of(out / "train.parquet")[0]["prompt"] == load_prompt_set(name).assessor(text)


def test_the_manifest_counts_hashes_and_lists(medec_files: Files, tmp_path: Path) -> None:
    out, files = tmp_path / "out", medec_files()
    with files[0].open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([[""] * 9, error_row("toy-training-1", 1)])
    assert prepare(*files, "--out", out, "--licence", "CC BY 4.0") == 0
    manifest = manifest_of(out)
    assert manifest["splits"]["train"] == {
        "rows": 6,
        "labels": {"CORRECT": 3, "INCORRECT": 3},
        "error_types": {"pharmacotherapy": 3},
    }
    assert manifest["dropped"]["counts"] == {"blank row": 1, "repeated row": 1}
    assert {(item["file"], item["row"], item["note_id"], item["reason"]) for item in manifest["dropped"]["rows"]} == {
        (files[0].name, 7, None, "blank row"),
        (files[0].name, 8, "toy-training-1", "repeated row"),
    }
    assert [source["name"] for source in manifest["sources"]] == [path.name for path in files]
    for path, source in zip(files, manifest["sources"], strict=True):
        assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert source["split_by"] == ["file name"]
    assert manifest["sources"][0]["rows"] == manifest["sources"][0]["examples"] + 2
    for name, output in manifest["outputs"].items():
        assert output["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
    assert manifest["licence"] == "CC BY 4.0"
    assert str(tmp_path) not in json.dumps(manifest)


def test_the_output_is_the_same_every_time_and_private(medec_files: Files, tmp_path: Path) -> None:
    files = medec_files()
    assert prepare(*files, "--out", tmp_path / "a") == prepare(*files, "--out", tmp_path / "b") == 0
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_every_form_gives_the_same_examples(medec_files: Files, tmp_path: Path) -> None:
    """Prepared Parquet is read back as what went in, and can be prepared again."""
    files = medec_files()
    assert prepare(*files, "--out", tmp_path / "a") == 0
    for path, split in zip(files, ("train", "validation", "test"), strict=True):
        assert read_labelled(tmp_path / "a" / f"{split}.parquet") == read_labelled(path)
    assert prepare(*(tmp_path / "a").glob("*.parquet"), "--out", tmp_path / "b") == 0
    for path in (tmp_path / "a").glob("*.parquet"):
        assert read_labelled(tmp_path / "b" / path.name) == read_labelled(path)


def test_pairs_stay_pairs(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train_pairs.jsonl", [pair("p", 1), pair("q", 2)])
    assert prepare(path, "--out", tmp_path / "out") == 0
    assert read_labelled(tmp_path / "out" / "train.parquet") == read_labelled(path)
    assert prepare(tmp_path / "out" / "train.parquet", "--out", tmp_path / "again") == 0
    assert read_labelled(tmp_path / "again" / "train.parquet") == read_labelled(path)


def test_how_a_row_gets_its_split(tmp_path: Path) -> None:
    """--split, then the column, then the file's name, then the ratios."""
    rows = [pair(f"n-{i}", i, split="dev" if i == 0 else None) for i in range(40)]
    plain, named = write_jsonl(tmp_path / "notes.jsonl", rows), write_jsonl(tmp_path / "x-test.jsonl", rows)
    assert prepare(plain, "--out", tmp_path / "a", "--ratios", "0.5,0.25,0.25") == 0
    for split in ("train", "validation", "test"):
        for row in rows_of(tmp_path / "a" / f"{split}.parquet"):
            note_id = row["extra_info"]["note_id"].removesuffix(":corrected")
            drawn = "validation" if note_id == "n-0" else split_of_id(note_id, (0.5, 0.25, 0.25))
            assert drawn == row["extra_info"]["split"] == split
    assert manifest_of(tmp_path / "a")["sources"][0]["split_by"] == ["column split", "ratios"]
    assert prepare(named, "--out", tmp_path / "b") == 0
    counts = {split: counts["rows"] for split, counts in manifest_of(tmp_path / "b")["splits"].items()}
    assert counts == {"validation": 2, "test": 78}
    assert prepare("--split", f"train={named}", "--out", tmp_path / "c") == 0
    assert list(manifest_of(tmp_path / "c")["splits"]) == ["train"]


def test_an_unknown_split_in_the_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", [pair("a", 1, split="holdout")])
    assert prepare(path, "--out", tmp_path / "out") == 2
    assert "n.jsonl, row 1: 'split' holds 7 characters" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ leaks


def leaky(tmp_path: Path, kind: str) -> list[Path]:
    """Train and test files; one or two of train's notes are in test."""
    train = [clean_row(f"t-{i}", note_text(i)) for i in range(10)]
    other = {
        "id": clean_row("t-3", note_text(77)),
        "text": clean_row("e-3", "  " + note_text(3).replace(" ", "\n")),
        "near": clean_row("e-3", note_text(3).replace("daily", "weekly")),
        "corrected": error_row("e-3", 3),
    }[kind]
    test = [clean_row("e-0", note_text(50)), other]
    return [write_csv(tmp_path / "train.csv", train), write_csv(tmp_path / "test.csv", test)]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("id", "same id"),
        ("text", "same text"),
        ("near", "near-duplicate, similarity 0.9"),
        ("corrected", "same text"),
    ],
)
def test_a_note_in_two_splits_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, what: str
) -> None:
    paths, out = leaky(tmp_path, kind), tmp_path / "out"
    assert prepare(*paths, "--out", out) == 2
    error = capsys.readouterr().err
    assert what in error and f"{paths[0]}, row 4" in error and f"{paths[1]}, row 2" in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.csv", "train.csv"]  # nothing half-written
    assert prepare(*paths, "--out", out, "--drop-leaks") == 0
    manifest = manifest_of(out)
    assert manifest["splits"]["train"]["rows"] == 9 and manifest["splits"]["test"]["rows"] == 2
    kept = rows_of(out / "train.parquet")
    assert "t-3" not in {row["extra_info"]["note_id"] for row in kept}
    assert [row["extra_info"]["index"] for row in kept] == list(range(9))
    assert manifest["dropped"]["counts"] == {"leak": 1}
    assert (manifest["dropped"]["rows"][0]["row"], manifest["dropped"]["rows"][0]["note_id"]) == (4, "t-3")
    assert manifest["leaks"]["counts"] == {what.partition(",")[0]: 1}
    assert prepare(*paths, "--out", tmp_path / "kept", "--allow-leaks") == 0
    manifest = manifest_of(tmp_path / "kept")
    assert manifest["splits"]["train"]["rows"] == 10 and len(manifest["leaks"]["rows"]) == 1
    assert manifest["leaks"]["rows"][0]["other_split"] == "test"


def test_ignored_columns_and_notes_of_one_class_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"note_id": "a", "text": note_text(1), "Ward No": "7", "": "x", note_text(2): "y"}]
    assert prepare(write_csv(tmp_path / "test.csv", [list(rows[0].values())], rows[0]), "--out", tmp_path / "a") == 0
    told = capsys.readouterr().out
    assert "ignored    columns of test.csv: Ward No, (" in told and note_text(2) not in told
    assert "attention  no row has an error: such notes are of no use for measuring\n" in told
    assert manifest_of(tmp_path / "a")["sources"][0]["ignored_columns"][0] == "Ward No"
    wrong = write_csv(tmp_path / "test.csv", [error_row("a", 1)])
    assert prepare(wrong, "--out", tmp_path / "b") == 0
    assert "attention  every row has an error" in capsys.readouterr().out
    both = write_jsonl(tmp_path / "test.jsonl", [pair("a", 1, text=note_text(3))])
    assert prepare(both, "--out", tmp_path / "c") == 0
    told = capsys.readouterr().out
    assert "ignored    columns of test.jsonl: text\n" in told and "attention" not in told


def test_both_versions_of_a_leaking_pair_go(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [pair("a", 1), pair("b", 2)])
    test = write_csv(tmp_path / "test.csv", [clean_row("e", note_text(1))])
    assert prepare(train, test, "--out", tmp_path / "out", "--drop-leaks") == 0
    ids = [row["extra_info"]["note_id"] for row in rows_of(tmp_path / "out" / "train.parquet")]
    assert ids == ["b", "b:corrected"]
    assert manifest_of(tmp_path / "out")["dropped"]["counts"] == {"leak": 2}


def test_validation_gives_way_to_test_and_alike_notes_of_one_split_are_fine(tmp_path: Path) -> None:
    alike = [clean_row("v-0", note_text(0)), clean_row("v-1", note_text(0, "naproxen")), clean_row("v-2", note_text(1))]
    validation = write_csv(tmp_path / "valid.csv", alike)
    assert prepare(validation, "--out", tmp_path / "a") == 0
    test = write_csv(tmp_path / "test.csv", [clean_row("e-0", note_text(0, "aspirin"))])
    assert prepare(validation, test, "--out", tmp_path / "b") == 2
    assert prepare(validation, test, "--out", tmp_path / "b", "--drop-leaks") == 0
    assert [row["extra_info"]["note_id"] for row in rows_of(tmp_path / "b" / "validation.parquet")] == ["v-2"]


def test_the_near_duplicate_search_can_be_tuned_and_switched_off(tmp_path: Path) -> None:
    paths = leaky(tmp_path, "near")
    assert prepare(*paths, "--out", tmp_path / "a", "--no-near-duplicates") == 0
    assert manifest_of(tmp_path / "a")["leaks"]["near_threshold"] is None
    assert prepare(*paths, "--out", tmp_path / "b", "--near-threshold", "0.999") == 0
    assert prepare(*paths, "--out", tmp_path / "c", "--near-threshold", "0.2") == 2


def test_nothing_left_of_a_split_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "test"):
        write_csv(tmp_path / f"{name}.csv", [clean_row("a", note_text(1))])
    assert prepare(tmp_path / "train.csv", tmp_path / "test.csv", "--out", tmp_path / "out", "--drop-leaks") == 2
    assert "nothing is left of it" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- refusals


def test_output_is_not_overwritten_unless_asked(
    medec_files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, out = medec_files(), tmp_path / "out"
    out.mkdir()
    assert prepare(files[0], "--out", out) == 0
    assert prepare(*files, "--out", out) == 2
    assert "holds files already" in capsys.readouterr().err
    assert prepare(*files, "--out", out, "--overwrite") == 0
    assert (out / "test.parquet").is_file()
    (out / "mine.txt").touch()
    assert prepare(*files, "--out", out, "--overwrite") == 2
    assert "mine.txt" in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nowhere.csv"], "nowhere.csv: no such file"),
        ([], "give at least one SOURCE"),
        (["n.csv", "--ratios", "1,1,1"], "--ratios 1,1,1"),
        (["n.csv", "--split", "n.csv"], "--split n.csv"),
        (["n.csv", "--near-threshold", "0.1"], "--near-threshold 0.1"),
        (["n.csv", "--prompt-set", "none"], "prompt set 'none'"),
        (["n.csv", "key=value"], "key=value"),
    ],
)
def test_impossible_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("n.csv"), [clean_row("a", "A text.")])
    assert prepare(*arguments, "--out", "out") == 2
    assert what in capsys.readouterr().err
    assert not Path("out").exists()


def test_an_id_with_two_texts_across_files_of_one_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write_csv(tmp_path / "a-train.csv", [clean_row("x", note_text(1))])
    second = write_csv(tmp_path / "b-train.csv", [clean_row("x", note_text(2))])
    assert prepare(first, second, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert f"{second}, row 1" in error and f"{first}, row 1" in error


# ---------------------------------------------------------------------------------------------- training


def test_training_reads_the_train_split_and_no_other(tmp_path: Path) -> None:
    rows = [pair(f"p-{i}", i) for i in range(3)]
    medec = write_csv(tmp_path / "train.csv", [error_row("m-0", 10), clean_row("m-1", note_text(11))])
    test = write_csv(tmp_path / "test.csv", [clean_row("e-0", note_text(12))])
    out = tmp_path / "out"
    assert prepare(write_jsonl(tmp_path / "train.jsonl", rows), medec, test, "--out", out) == 0
    notes, report = load_notes_with_report(out / "train.parquet", split="train")
    assert [note.note_id for note in notes] == ["p-0", "p-1", "p-2", "m-0", "m-1"]
    assert [note.text for note in notes] == [note_text(i) for i in (0, 1, 2, 10, 11)]
    assert [note.error_text is not None for note in notes] == [True, True, True, True, False]
    assert report.dropped == {"correct version of a note that is there with its error": 3}
    assert report.rows == report.notes + sum(report.dropped.values())
    settings = GameSettings(notes=NotesSettings(path=str(out / "train.parquet")))
    assert training_notes(settings) == notes
    for settings in (
        GameSettings(notes=NotesSettings(path=str(out / "test.parquet"))),
        GameSettings(notes=NotesSettings(labelled_path=str(out / "test.parquet"))),
    ):
        with pytest.raises(DataError, match="test.parquet, row 1: 'split' is 'test'"):
            labelled_notes(settings, training_notes(settings))


def test_the_correct_version_alone_is_a_note_too(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "train.jsonl", [pair("p", 1)])
    assert prepare(path, "--out", tmp_path / "out") == 0
    rows = rows_of(tmp_path / "out" / "train.parquet")
    for kept in (rows[1:], rows[::-1]):
        notes, _ = load_notes_with_report(write_parquet(tmp_path / "some.parquet", kept))
        assert [(note.note_id, note.text) for note in notes] == [("p", note_text(1))]
        assert (notes[0].error_text is None) == (len(kept) == 1)


def test_a_name_that_is_no_utf_8_is_taken(tmp_path: Path) -> None:
    """As files of an old Windows share have: every byte of the name counts, and messages show it escaped."""
    source = tmp_path / os.fsdecode(b"n\xf6tes.jsonl")
    source.write_text('{"note_id": "a", "text": "He is well."}\n')
    out = tmp_path / os.fsdecode(b"\xf6")
    assert main(["data", "prepare", f"--split=test={source}", "--out", str(out)]) == 0
    assert main(["data", "stats", str(out)]) == 0
    assert json.loads((out / "manifest.json").read_text())["sources"][0]["name"] == source.name
