"""Reading labelled examples: MEDEC as published, pairs, Parquet, and every way in which a file can be bad."""

import logging
from pathlib import Path
from typing import Any

import pytest

from medserl.data import read_labelled, read_labelled_with_report
from medserl.data.convert import find_sentence, numbered_lines
from medserl.errors import DataError
from medserl.game.labels import Label
from tests.data.files import (
    HEADER,
    clean_row,
    error_row,
    note_text,
    numbered,
    pair,
    write_csv,
    write_jsonl,
    write_parquet,
)

WRONG = ["m-1", "He has flu. It is day 2.", "0 He has flu.\n1 It is\nday 2.", "1", "causalOrganism", "0", "He has flu.",
         "He has gout.", "He has gout. It is day 2."]  # fmt: skip


def test_a_medec_row_is_one_example_with_its_published_flag(tmp_path: Path) -> None:
    rows = [WRONG, clean_row("m-2", "She is\nwell — 37 °C.")]
    wrong, right = read_labelled(write_csv(tmp_path / "n.csv", rows))
    assert (wrong.note_id, wrong.text, wrong.label, wrong.error_type) == (
        "m-1",
        WRONG[1],
        "INCORRECT",
        "causalorganism",
    )
    assert (wrong.error_sentence_id, wrong.error_sentence, wrong.corrected_sentence) == (0, WRONG[6], WRONG[7])
    assert wrong.corrected_text == WRONG[8]
    assert wrong.sentences == ("He has flu.", "It is\nday 2.")
    assert (right.label, right.text) == (Label.CORRECT, "She is\nwell — 37 °C.")
    assert (right.error_sentence_id, right.error_type, right.error_sentence, right.corrected_text) == (-1, *[None] * 3)


def test_a_pair_is_two_examples_with_ids_of_their_own(tmp_path: Path) -> None:
    wrong, right = read_labelled(write_jsonl(tmp_path / "n.jsonl", [pair("p", 1)]))
    assert (wrong.note_id, wrong.label, wrong.corrected_text) == ("p", Label.INCORRECT, note_text(1))
    assert wrong.sentences[wrong.error_sentence_id] == wrong.error_sentence
    assert (right.note_id, right.label, right.text) == ("p:corrected", Label.CORRECT, note_text(1))


def test_parquet_in_medecs_columns_with_numbers_for_numbers(tmp_path: Path) -> None:
    row: dict[str, Any] = dict(zip(HEADER, error_row("a", 1), strict=True))
    clean: dict[str, Any] = dict(zip(HEADER, clean_row("b", note_text(2)), strict=True))
    row |= {"Error Flag": 1, "Error Sentence ID": 2}
    clean |= {"Error Flag": 0, "Error Sentence ID": -1}
    wrong, right = read_labelled(write_parquet(tmp_path / "n.parquet", [row, clean]))
    assert (wrong.label, wrong.error_sentence_id, right.label) == (Label.INCORRECT, 2, Label.CORRECT)
    with pytest.raises(DataError, match="row 1: 'Error Flag' is '2', not 0 or 1"):
        read_labelled(write_parquet(tmp_path / "n.parquet", [row | {"Error Flag": 2}]))


def test_what_cannot_be_used_is_dropped_counted_and_listed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        error_row("m-1", 1),
        [""] * 9,
        ["m-3", *[""] * 8],
        ["m-4", "NA", "", "0", "NA", "-1", "NA", "NA", "NA"],
        ["", "A text.", "", "0", "NA", "-1", "NA", "NA", "NA"],
        ["m-6", "A text.", "", "", "NA", "-1", "NA", "NA", "NA"],
        error_row("m-1", 1),
        [],
    ]
    path = write_csv(tmp_path / "n.csv", rows)
    found, report = read_labelled_with_report(path)
    assert [example.note_id for example in found] == ["m-1"]
    listed = [(item.file, item.row, item.note_id, item.reason) for item in report.dropped]
    assert listed == [
        ("n.csv", 2, None, "blank row"),
        ("n.csv", 3, "m-3", "blank text"),
        ("n.csv", 4, "m-4", "blank text"),
        ("n.csv", 5, None, "no text id"),
        ("n.csv", 6, "m-6", "no error flag"),
        ("n.csv", 7, "m-1", "repeated row"),
        ("n.csv", 8, None, "blank line"),
    ]
    assert report.rows == report.examples + len(report.dropped)
    with caplog.at_level(logging.WARNING, "medserl.data"):
        read_labelled(path)
    assert "7 of 8 rows dropped" in caplog.text


def test_odd_rows_are_kept_with_a_remark(tmp_path: Path) -> None:
    no_fix = [*error_row("a", 1)[:8], "NA"]
    contradiction = [*clean_row("b", note_text(2))[:6], "Some sentence.", "NA", "NA"]
    unnumbered = ["c", note_text(3), "not numbered", *clean_row("c", note_text(3))[3:]]
    far = error_row("d", 4)
    far[5] = "77"
    no_id = error_row("e", 5)
    no_id[5] = "NA"
    other = error_row("f", 6)
    other[5] = "0"
    rows = [no_fix, contradiction, unnumbered, far, no_id, other]
    found, report = read_labelled_with_report(write_csv(tmp_path / "n.csv", rows))
    assert [example.label == Label.INCORRECT for example in found] == [True, False, False, True, True, True]
    assert [item.row for item in report.remarks] == [1, 2, 3, 4, 5, 6]
    assert found[0].corrected_text is None
    assert (found[1].error_sentence, found[1].error_sentence_id) == (None, -1)
    assert found[2].sentences[0].startswith("Case 3 has")
    assert found[4].error_sentence_id == 2


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (
            [error_row("a", 1), ["b", "T.", "0 T.", "2", "NA", "-1", "NA", "NA", "NA"]],
            "row 2 (line 5): 'Error Flag' is",
        ),
        ([["b", "T.", "0 T.", "yes", "NA", "-1", "NA", "NA", "NA"]], "'Error Flag' holds 3 characters, not 0 or 1"),
        (
            [[*error_row("a", 1)[:6], "He is dead.", "He lives.", "T."]],
            "'Error Sentence' (11 characters) is not in",
        ),
        (
            [[*error_row("a", 1)[:5], "two", *error_row("a", 1)[6:]]],
            "'Error Sentence ID' holds 3 characters, not the number",
        ),
        ([error_row("a", 1), clean_row("a", "Another.")], "note id 'a' was used before for a different text"),
        ([clean_row("a", note_text(1)), error_row("a", 1)], "note id 'a' was used before for a different text"),
        ([["a", "T."]], "has 2 fields, but the header has 9 ('Sentences' is the first without a value)"),
        ([[""] * 9], "holds no usable note"),
        ([["a", "T\0.", *clean_row("a", "T.")[2:]]], "binary"),
    ],
)
def test_bad_rows_name_file_row_and_column(tmp_path: Path, rows: list[list[str]], what: str) -> None:
    path = write_csv(tmp_path / "n.csv", rows)
    with pytest.raises(DataError) as caught:
        read_labelled(path)
    assert str(caught.value).startswith(str(path))
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    rows = [clean_row("a", "One."), clean_row("b", "Two."), clean_row("c", "Thr\u00e9e.")]
    for missing in ("Error Flag", "Text"):
        keep = [i for i, name in enumerate(HEADER) if name != missing]
        path = write_csv(tmp_path / "m.csv", [[row[i] for i in keep] for row in rows], [HEADER[i] for i in keep])
        with pytest.raises(DataError, match=f"column '{missing}' is missing"):
            read_labelled(path)
    latin = tmp_path / "l.csv"
    latin.write_bytes(write_csv(tmp_path / "u.csv", rows).read_text(encoding="utf-8").encode("latin-1"))
    with pytest.raises(DataError, match="l.csv, row 3, column 'Text', line 4: is not UTF-8"):
        read_labelled(latin)
    whole = write_parquet(tmp_path / "w.parquet", [pair("a", 1)]).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cut.parquet: is not a Parquet file .or it is cut short."):
        read_labelled(tmp_path / "cut.parquet")
    (tmp_path / "e.csv").touch()
    with pytest.raises(DataError, match="e.csv: the file is empty"):
        read_labelled(tmp_path / "e.csv")
    with pytest.raises(DataError, match="row 1: 'error_sentence' .10 characters. is not in the text"):
        read_labelled(write_jsonl(tmp_path / "p.jsonl", [pair("a", 1, error_sentence="Elsewhere.")]))


def test_a_large_not_utf8_file_fails_at_the_right_row(tmp_path: Path) -> None:
    """Text is decoded in blocks: the row that is being read is not the one that is bad."""
    rows = [clean_row(f"n-{i}", note_text(i)) for i in range(500)]
    data = write_csv(tmp_path / "n.csv", rows).read_bytes().replace(b"Case 437 has", b"Case 437 h\xe9s", 1)
    (tmp_path / "n.csv").write_bytes(data)
    with pytest.raises(DataError, match="row 438, column 'Text'"):
        read_labelled(tmp_path / "n.csv")


def test_numbered_lines() -> None:
    assert numbered_lines("0 One.\n1 Two\nand a half.\n2 Her pulse is\n3 106/min.") == (
        *("One.", "Two\nand a half.", "Her pulse is", "106/min."),
    )
    assert numbered_lines("0 A.\r\n1\r\n2 B.\r\n") == ("A.", "", "B.")
    assert numbered_lines("no number") == ()
    text = note_text(1)
    assert " ".join(numbered_lines(numbered(text))) == text


def test_find_sentence() -> None:
    sentences = ("He is well.", "He has flu. It is day 2.")
    assert find_sentence("He  is\nwell.", sentences) == 0
    assert find_sentence("It is day 2.", sentences) == 1
    assert find_sentence("Elsewhere.", sentences) == find_sentence(None, sentences) == -1
