"""Reading note files."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medserl.errors import DataError
from medserl.game.notes import Note, load_notes, load_notes_with_report

MEDEC_HEADER = [
    *("Text ID", "Text", "Sentences", "Error Flag", "Error Type"),
    *("Error Sentence ID", "Error Sentence", "Corrected Sentence", "Corrected Text"),
]
WRONG = [
    "m-1",
    "He has flu.",
    "0 He has\n1 flu.",
    "1",
    "causalOrganism",
    "0",
    "He has flu.",
    "He has gout.",
    "He has gout.",
]
RIGHT = ["m-2", "She is\nwell.", "0 She is\nwell.", "0", "NA", "-1", "NA", "NA", "NA"]


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def write_csv(path: Path, *rows: list[str], header: list[str] | None = None) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header if header is not None else MEDEC_HEADER, *rows])
    return path


@pytest.fixture
def write_parquet(tmp_path: Path) -> Callable[[list[dict[str, Any]]], Path]:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(rows: list[dict[str, Any]]) -> Path:
        path = tmp_path / "notes.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path

    return write


# --------------------------------------------------------------------------------------------- good files

PAIR = {
    "note_id": "a",
    "correct_note": "He is well.",
    "incorrect_note": "He is ill.",
    "error_type": "diagnosis",
    "error_sentence": "He is ill.",
    "corrected_sentence": "He is well.",
    "split": None,
}
PAIR_NOTE = Note("a", "He is well.", "He is ill.", "diagnosis", "He is ill.", "He is well.")


def test_jsonl_pairs_and_plain_rows(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", PAIR, "", {"note_id": "b", "text": "Fine.\u2028So.", "error_type": None})
    notes, report = load_notes_with_report(path)
    assert notes == [PAIR_NOTE, Note("b", "Fine.\u2028So.")]
    assert (report.rows, report.notes, report.with_error, report.dropped) == (2, 2, 1, {})


def test_medec_csv(tmp_path: Path) -> None:
    notes = load_notes(write_csv(tmp_path / "n.csv", WRONG, RIGHT))
    assert notes == [
        Note("m-1", "He has gout.", "He has flu.", "causalorganism", "He has flu.", "He has gout."),
        Note("m-2", "She is\nwell."),
    ]


def test_medec_rows_that_cannot_be_used_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = [
        WRONG,
        ["m-3", "", "", "", "", "", "", "", ""],
        ["m-4", "  ", "", "0", "NA", "-1", "NA", "NA", "NA"],
        ["m-5", "NA", "", "0", "NA", "-1", "NA", "NA", "NA"],
        ["", "A text.", "", "0", "NA", "-1", "NA", "NA", "NA"],
        ["m-6", "A text.", "", "", "NA", "-1", "NA", "NA", "NA"],
        ["m-7", "A text.", "", "1", "dose", "0", "A text.", "NA", "NA"],
        ["m-8", "A text.", "", "1", "dose", "0", "A text.", "A text.", "A  text. "],
        WRONG,
        [],
        [*RIGHT[:3], "0.0", *RIGHT[4:]],
    ]
    notes, report = load_notes_with_report(write_csv(tmp_path / "n.csv", *rows))
    assert [note.note_id for note in notes] == ["m-1", "m-2"]
    assert report.dropped == {
        "blank text": 3,
        "no text id": 1,
        "no error flag": 1,
        "error without corrected text": 1,
        "error and correction are the same": 1,
        "repeated row": 1,
    }
    assert report.rows == report.notes + sum(report.dropped.values())
    assert "dropped" in report.summary() and "3 (blank text)" in report.summary()


def test_plain_csv_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "n.CSV"
    path.write_bytes('\ufeffnote_id,text\r\na,"He said ""no"",\r\nthen left."\r\n'.encode())
    assert load_notes(path) == [Note("a", 'He said "no",\r\nthen left.')]


def test_a_very_long_field(tmp_path: Path) -> None:
    text = "He is well. " * 50_000
    limit = csv.field_size_limit()
    assert load_notes(write_csv(tmp_path / "n.csv", ["a", text], header=["note_id", "text"]))[0].text == text
    assert csv.field_size_limit() == limit


def test_parquet(write_parquet: Callable[[list[dict[str, Any]]], Path]) -> None:
    second = {**dict.fromkeys(PAIR), "note_id": "b", "correct_note": "Fine."}
    assert load_notes(write_parquet([PAIR, second])) == [PAIR_NOTE, Note("b", "Fine.")]


# ---------------------------------------------------------------------------------------------- bad files

GOOD = {"note_id": "a", "text": "Fine."}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("{not json", "is not JSON"),
        ('["a", "b"]', "JSON list, not an object"),
        ("[" * 100_000, "is not JSON"),
        ({"text": "Fine."}, "'note_id' is missing"),
        ({"note_id": "b"}, "'text' is missing"),
        ({"note_id": "", "text": "Fine."}, "'note_id' is empty"),
        ({"note_id": True, "text": "Fine."}, "'note_id' must be a string, not bool"),
        ({"note_id": 1.5, "text": "Fine."}, "'note_id' must be a string, not float"),
        ({"note_id": "b", "text": 7}, "'text' must be a string, not int"),
        ({"note_id": "b", "text": ["Fine."]}, "'text' must be a string, not list"),
        ({"note_id": "b", "incorrect_note": "Bad."}, "'correct_note' is missing"),
        ({"note_id": "b", "correct_note": "Fine.", "incorrect_note": 1}, "'incorrect_note' must be a string"),
        ({"note_id": "b", "correct_note": "Fine. ", "incorrect_note": "Fine."}, "are the same"),
        ({"note_id": "a", "text": "Other."}, "'a' was used before for a different text"),
        ('{"note_id": "b", "text": "\\ud800"}', "surrogate"),
    ],
)
def test_bad_jsonl_rows_are_named(tmp_path: Path, row: Any, what: str) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", GOOD, row)
    with pytest.raises(DataError) as caught:
        load_notes(path)
    message = str(caught.value)
    assert what in message
    assert message.startswith(f"{path}, row 2: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (["m-1", "Another text.", "", "0", "NA", "-1", "NA", "NA", "NA"], "used before for a different text"),
        (["m-9", "A text.", "", "2", "NA", "-1", "NA", "NA", "NA"], "'Error Flag' is '2'"),
        (["m-9", "A text."], "has 2 fields, but the header has 9"),
    ],
)
def test_bad_csv_rows_are_named(tmp_path: Path, row: list[str], what: str) -> None:
    path = write_csv(tmp_path / "n.csv", WRONG, row)
    with pytest.raises(DataError, match=r"row 2 \(line 4\): ") as caught:
        load_notes(path)
    assert what in str(caught.value)


def test_bad_parquet_row(write_parquet: Callable[[list[dict[str, Any]]], Path]) -> None:
    with pytest.raises(DataError, match=r"notes\.parquet, row 2: 'note_id' is empty"):
        load_notes(write_parquet([GOOD, {"note_id": "", "text": "Fine."}]))


def test_blank_texts_are_dropped_and_counted_and_numbers_are_ids(tmp_path: Path) -> None:
    rows = [{"note_id": 7, "text": "Fine."}, {"note_id": "b", "text": " \n"}, {"note_id": "c", "text": None}]
    notes, report = load_notes_with_report(write_jsonl(tmp_path / "n.jsonl", *rows))
    assert notes == [Note("7", "Fine.")]
    assert (report.rows, report.dropped) == (3, {"blank text": 2})


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("n.jsonl", b"", "is empty"),
        ("n.jsonl", b"\n \n", "no usable note"),
        ("n.csv", b"", "is empty"),
        ("n.parquet", b"", "is empty"),
        ("n.csv", b"note_id,text\n", "no usable note"),
        ("n.txt", b"x", "the ending '.txt' is not known"),
        *(
            (f"n{ending}", b"PK", "save the sheet as CSV UTF-8 and give that .csv")
            for ending in (".xlsx", ".XLSX", ".xls", ".ods", ".numbers")
        ),
        ("notes", b"x", "the ending '' is not known"),
        ("n.parquet", b"note_id,text\na,Fine.\n", "not a Parquet file"),
        ("n.parquet", b"PAR1 cut short", "not a Parquet file"),
        ("n.parquet", b"PAR1 no metadata PAR1", "cannot be read as Parquet"),
        ("n.csv", b"PAR1\x00\x01PAR1", "holds Parquet data"),
        ("n.jsonl", b"PAR1\x00\x01PAR1", "holds Parquet data"),
        ("n.csv", b"PK\x03\x04\x00\x00", "binary"),
        ("n.csv", "note_id,text\na,Fine.\n".encode("utf-16"), "UTF-16"),
        ("n.csv", b"note_id,text\na,Fine.\nb,caf\xe9\n", "line 3: is not UTF-8"),
        ("n.csv", b'{"note_id": "a", "text": "Fine."}\n', "the columns are"),
        ("n.csv", b"id,body\na,Fine.\n", "the columns are id, body"),
        ("n.csv", b'note_id,text\na,"Fine.\n', "is not CSV"),
        ("n.csv", b'note_id,text\na,"Fine."x\n', "is not CSV"),
        ("n.jsonl", b"note_id,text\na,Fine.\n", "row 1: is not JSON"),
    ],
)
def test_files_that_are_not_what_they_say(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_notes(path)
    assert what in str(caught.value)
    assert str(path) in str(caught.value)


def test_parquet_without_the_columns(write_parquet: Callable[[list[dict[str, Any]]], Path]) -> None:
    with pytest.raises(DataError, match="the columns are id"):
        load_notes(write_parquet([{"id": "a"}]))


def test_an_empty_name_is_a_folder_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"\.: is a folder; give a .jsonl"):
        load_notes(Path())


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_notes(tmp_path / "n.jsonl")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(DataError, match="is a directory"):
        load_notes(tmp_path / "d.csv")
