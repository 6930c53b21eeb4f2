"""One reader: `data prepare`, `train`, `sft` and `evaluate` see the same in a file, or refuse it in the same words."""

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from medserl.config.settings import GameSettings, NotesSettings
from medserl.data import read_labelled
from medserl.data.prepare import PrepareOptions, prepare
from medserl.data.rounds import training_notes
from medserl.data.splits import parse_ratios
from medserl.data.ward import write_ward
from medserl.errors import ConfigError, DataError
from medserl.evaluation.data import load_examples
from medserl.game import Note, load_notes
from medserl.game.records import LabelledExample, base_id
from tests.data.files import HEADER, pair, write_csv, write_jsonl, write_parquet

SECRET = "SECRET-TEXT-OF-A-NOTE"
WRONG = {
    "Text ID": "x-0",
    "Text": "He has gout. He takes aspirin. He is well.",
    "Sentences": "0 He has gout.\n1 He takes aspirin.\n2 He is well.",
    "Error Flag": "1",
    "Error Type": "Diagnosis",
    "Error Sentence ID": "1",
    "Error Sentence": "He takes aspirin.",
    "Corrected Sentence": "He takes colchicine.",
    "Corrected Text": "He has gout. He takes colchicine. He is well.",
}
RIGHT = {
    "Text ID": "x-1",
    "Text": "She is well. She went home.",
    "Sentences": "0 She is well.\n1 She went home.",
    "Error Flag": "0",
    "Error Type": "NA",
    "Error Sentence ID": "-1",
    "Error Sentence": "NA",
    "Corrected Sentence": "NA",
    "Corrected Text": "NA",
}
NOTES = [
    Note("x-0", WRONG["Corrected Text"], WRONG["Text"], "diagnosis", "He takes aspirin.", "He takes colchicine."),
    Note("x-1", RIGHT["Text"]),
]
Rows = list[dict[str, Any]]
Writer = Callable[[Path, Rows], Path]


# ------------------------------------------------------------------------------------- the four entry points


def prepared(path: Path, out: Path) -> list[LabelledExample]:
    prepare(PrepareOptions([], out, given_splits={path: "train"}, near_threshold=None))
    return read_labelled(out / "train.parquet")


def trained(path: Path) -> list[Note]:
    return training_notes(GameSettings(notes=NotesSettings(path=str(path))))


def notes_of(examples: list[LabelledExample]) -> list[Note]:
    """What training would make of the examples."""
    notes = []
    for example in examples:
        if example.corrected_text is not None:
            extras = (example.error_type, example.error_sentence, example.corrected_sentence)
            notes.append(Note(base_id(example.note_id), example.corrected_text, example.text, *extras))
        elif example.label == "CORRECT" and not example.note_id.endswith(":corrected"):
            notes.append(Note(example.note_id, example.text))
    return notes


def read_by_all(path: Path, tmp_path: Path) -> list[LabelledExample]:
    """The examples, after all four agreed on them (`evaluate` has no use for a file without labels)."""
    examples = prepared(path, tmp_path / "out")
    assert list(load_examples([str(path)], None, 0).examples) == examples
    assert trained(path) == load_notes(path) == load_notes(tmp_path / "out" / "train.parquet") == notes_of(examples)
    return examples


def refused_by_all(path: Path, tmp_path: Path) -> str:
    """The sentence with which all four refuse a file."""
    readers: list[Callable[[], Any]] = [
        lambda: prepared(path, tmp_path / "out"),
        lambda: trained(path),
        lambda: load_notes(path),
        lambda: load_examples([str(path)], None, 0),
    ]
    said = set()
    for reader in readers:
        with pytest.raises(DataError) as caught:
            reader()
        said.add(str(caught.value))
    assert len(said) == 1, said
    message = said.pop()
    assert "\n" not in message and SECRET not in message and path.name in message
    assert not (tmp_path / "out").exists()
    return message


# ------------------------------------------------------------------------------------------- forms of MEDEC


def as_csv(path: Path, rows: Rows, **options: Any) -> Path:
    text = io.StringIO(newline="")
    writer = csv.writer(text, **options)
    writer.writerow(rows[0].keys())
    writer.writerows(["" if value is None else value for value in row.values()] for row in rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path


def with_bom(path: Path, rows: Rows) -> Path:
    path.write_bytes(b"\xef\xbb\xbf" + as_csv(path, rows).read_bytes())
    return path


def with_hint(path: Path, rows: Rows) -> Path:
    path.write_bytes(b"\xef\xbb\xbfsep=;\r\n" + as_csv(path, rows, delimiter=";").read_bytes())
    return path


WRITERS: dict[str, tuple[str, Writer]] = {
    "csv": ("n.csv", as_csv),
    "csv with a byte order mark": ("n.csv", with_bom),
    "csv with semicolons": ("n.csv", lambda path, rows: as_csv(path, rows, delimiter=";")),
    "csv with a spreadsheet's hint": ("n.csv", with_hint),
    "csv with tabs": ("n.csv", lambda path, rows: as_csv(path, rows, delimiter="\t")),
    "csv of old line ends": (
        "n.csv",
        lambda path, rows: as_csv(path, rows, lineterminator="\r", quoting=csv.QUOTE_ALL),
    ),
    "json lines": ("n.jsonl", write_jsonl),
    "parquet": ("n.parquet", write_parquet),
}


def changed(**cells: Any) -> Rows:
    """Both rows with other cells: ``Column=(of the erroneous row, of the correct one)``."""
    rows: Rows = [dict(WRONG), dict(RIGHT)]
    for column, values in cells.items():
        for row, value in zip(rows, values, strict=True):
            row[column.replace("_", " ")] = value
    return rows


def renamed(rows: Rows, name: Callable[[str], str]) -> Rows:
    return [{name(column): value for column, value in row.items()} for row in rows]


def snake(column: str) -> str:
    return column.lower().replace(" ", "_")


def camel(column: str) -> str:
    return column[0].lower() + column[1:].replace(" ", "")


def sentences(template: str, first: int, join: str = "\n") -> tuple[str, str]:
    def numbered(text: str) -> str:
        items = text.rstrip(".").split(". ")
        return join.join(template.format(i, f"{item}.") for i, item in enumerate(items, start=first))

    return numbered(WRONG["Text"]), numbered(RIGHT["Text"])


NOTHING = ("NA", "N/A", "nan", "NaN", "None", "none", "null", "NULL", "<NA>", "#N/A", "", " ", "\u200b")
ANYWHERE: dict[str, Rows] = {
    "as published": changed(),
    "snake case": renamed(changed(), snake),
    "snake case with note_id": renamed(changed(), lambda name: snake(name).replace("text_id", "note_id")),
    "camel case": renamed(changed(), camel),
    "upper case": renamed(changed(), str.upper),
    "flags 1.0 and 0.0": changed(Error_Flag=("1.0", "0.0"), Error_Sentence_ID=("1.0", "-1.0")),
    "flags true and false": changed(Error_Flag=("true", "false")),
    "flags True and False": changed(Error_Flag=("True", "False")),
    "flags with blanks": changed(Error_Flag=(" 1 ", "0 ")),
    "numbered from 1": changed(Sentences=sentences("{} {}", 1), Error_Sentence_ID=("2", "-1")),
    "numbered 1.": changed(Sentences=sentences("{}. {}", 1), Error_Sentence_ID=("2", "0")),
    "numbered (0)": changed(Sentences=sentences("({}) {}", 0)),
    "numbered [0]": changed(Sentences=sentences("[{}] {}", 0)),
    "numbered 0:": changed(Sentences=sentences("{}: {}", 0)),
    "bars": changed(Sentences=sentences("{} | {}", 0)),
    "bars without blanks": changed(Sentences=sentences("{}| {}", 0)),
    "tabs": changed(Sentences=sentences("{}\t{}", 0)),
    "carriage returns": changed(Sentences=sentences("{} {}", 0, "\r")),
    "windows line ends": changed(Sentences=sentences("{} {}", 0, "\r\n")),
    "spreadsheet marks": changed(Sentences=sentences("{} {}", 0, "_x000D_\n")),
    "spreadsheet marks alone": changed(Sentences=sentences("{} {}_x000D_", 0, "")),
    "U+2028": changed(Sentences=sentences("{} {}", 0, "\u2028")),
    "U+2029 and vertical tab": changed(Sentences=sentences("{} {}", 0, "\u2029")),
    "vertical tabs": changed(Sentences=sentences("{} {}", 0, "\v")),
    "number and sentence contradict each other": changed(Error_Sentence_ID=("2", "-1")),
    "a number beyond the sentences": changed(Error_Sentence_ID=("77", "-1")),
    "no number": changed(Error_Sentence_ID=("NA", "NA")),
    **{
        f"nothing is {word!r}": changed(
            Error_Type=("Diagnosis", word),
            Error_Sentence=("He takes aspirin.", word),
            Corrected_Sentence=("He takes colchicine.", word),
            Corrected_Text=(WRONG["Corrected Text"], word),
        )
        for word in NOTHING
    },
}
TYPED: dict[str, Rows] = {
    "numbers": changed(Error_Flag=(1, 0), Error_Sentence_ID=(1, -1)),
    "floats": changed(Error_Flag=(1.0, 0.0), Error_Sentence_ID=(1.0, -1.0)),
    "NaN": changed(Error_Flag=(1, 0), Error_Sentence_ID=(1.0, float("nan"))),
    "booleans": changed(Error_Flag=(True, False)),
    "null": changed(Error_Type=("diagnosis", None), Error_Sentence=("He takes aspirin.", None),
                    Error_Sentence_ID=(1, None), Corrected_Sentence=("He takes colchicine.", None),
                    Corrected_Text=(WRONG["Corrected Text"], None)),
    "a list of sentences": changed(Sentences=(["He has gout.", "He takes aspirin.", "He is well."],
                                              ["She is well.", "She went home."])),
    "a list of numbered sentences": changed(Sentences=(["1. He has gout.", "2. He takes aspirin.", "3. He is well."],
                                                       ["1. She is well.", "2. She went home."]),
                                            Error_Sentence_ID=(2, -1)),
}  # fmt: skip


def expect_the_two_notes(path: Path, tmp_path: Path) -> None:
    wrong, right = read_by_all(path, tmp_path)
    assert notes_of([wrong, right]) == NOTES
    assert wrong.sentences == ("He has gout.", "He takes aspirin.", "He is well.")
    assert (wrong.error_sentence_id, right.error_sentence_id) == (1, -1)
    assert right.sentences == ("She is well.", "She went home.")


@pytest.mark.parametrize("form", ANYWHERE)
@pytest.mark.parametrize("kind", ["csv", "json lines", "parquet"])
def test_medec_in_all_its_forms(tmp_path: Path, kind: str, form: str) -> None:
    name, write = WRITERS[kind]
    expect_the_two_notes(write(tmp_path / name, ANYWHERE[form]), tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_medec_in_all_kinds_of_files(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    expect_the_two_notes(write(tmp_path / name, changed()), tmp_path)


@pytest.mark.parametrize("form", TYPED)
@pytest.mark.parametrize("kind", ["json lines", "parquet"])
def test_medec_with_types(tmp_path: Path, kind: str, form: str) -> None:
    name, write = WRITERS[kind]
    expect_the_two_notes(write(tmp_path / name, TYPED[form]), tmp_path)


def test_parquet_with_decimals_for_flags(tmp_path: Path) -> None:
    rows = changed(Error_Flag=(Decimal(1), Decimal(0)))
    expect_the_two_notes(write_parquet(tmp_path / "n.parquet", rows), tmp_path)


def test_a_mirror_without_error_sentence_and_corrected_text(tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("Error Sentence", "Corrected Text")} for row in changed()]
    expect_the_two_notes(write_jsonl(tmp_path / "n.jsonl", renamed(rows, snake)), tmp_path)


@pytest.mark.parametrize("kind", ["csv", "json lines", "parquet"])
def test_plain_and_pairs(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    rows: Rows = [{"note_id": "a", "text": "He is well now.", "error_text": "He is ill now."},
                  {"note_id": "b", "text": "She is well.", "error_text": "NA"}]  # fmt: skip
    assert len(read_by_all(write(tmp_path / name, rows), tmp_path)) == 3
    (tmp_path / "more").mkdir()
    pairs = [{k: v for k, v in pair(f"p{i}", i).items() if k != "split"} for i in range(3)]
    assert len(read_by_all(write(tmp_path / "more" / name, pairs), tmp_path / "more")) == 6


@pytest.mark.parametrize("word", ["None", "NaN", "null", "NA", ""])
def test_rows_without_a_correction_are_for_evaluation_only(tmp_path: Path, word: str) -> None:
    rows = [WRONG, RIGHT, {**WRONG, "Text ID": "x-2", "Corrected Text": word}]
    path = write_csv(tmp_path / "n.csv", [[row[column] for column in HEADER] for row in rows])
    assert trained(path) == NOTES
    assert [e.note_id for e in load_examples([str(path)], None, 0).examples] == ["x-0", "x-1", "x-2"]


def test_a_corrected_text_of_another_note_trains_nothing(tmp_path: Path) -> None:
    other = {**WRONG, "Text ID": "x-2", "Corrected Text": "Zyxx qqq 777 kkk"}
    path = write_csv(tmp_path / "n.csv", [[row[column] for column in HEADER] for row in (WRONG, RIGHT, other)])
    assert trained(path) == NOTES
    data = load_examples([str(path)], None, 0)
    assert len(data.examples) == 3 and data.examples[2].corrected_text is None
    assert any("nothing like the text" in note for note in data.notes)


# ---------------------------------------------------------------------------------------------- refusals


def plain(**more: Any) -> Rows:
    return [{"note_id": "a", "text": "He has gout.", **more}, {"note_id": "b", "text": "She is well.", **more}]


PROSE = "He takes colchicine daily and his knee is no longer swollen."
REFUSED: dict[str, tuple[Rows, str]] = {
    **{
        f"a column {name}": (plain(**{name: "1"}), f"the column '{name}' looks like a label")
        for name in (
            "label",
            "Label",
            "is_error",
            "hasError",
            "class",
            "target",
            "is_correct",
            "ground_truth",
            "y",
            "Fehler",
            "Fehlerhaft",
        )
    },
    "a misspelt incorrect_note": (
        [{"note_id": "a", "correct_note": "He has gout.", "incorect_note": "He has flu."}],
        "'incorect_note' looks like 'incorrect_note' misspelt",
    ),
    "a misspelt error_flag": (plain(eror_flag="1"), "'eror_flag' looks like 'error_flag' misspelt"),
    "a label in a column of any name": (plain(remark="INCORRECT"), "the column 'remark' holds a label"),
    "an error described without a flag": (plain(error_sentence="He has gout."), "'error_sentence' describes an error"),
    "a column in two spellings": (plain(Text="Other."), "so that it is unclear which one counts"),
    "a flag of words": (changed(Error_Flag=(SECRET, "0")), "'Error Flag' holds 21 characters, not 0 or 1"),
    "a number of words": (changed(Error_Sentence_ID=(SECRET, "0")), "'Error Sentence ID' holds 21 characters"),
    "a huge number": (changed(Error_Sentence_ID=("9" * 5000, "0")), "'Error Sentence ID' holds 5000 characters"),
    "a sentence of another note": (changed(Error_Sentence=(SECRET, "NA")), "'Error Sentence' (21 characters) is not"),
    **{
        f"a pair's errors as {name}": (
            [{"note_id": "a", "correct_note": "He has gout.", name: "He has flu."}],
            "call the column of the erroneous notes 'incorrect_note', or leave",
        )
        for name in (
            *("wrong_note", "error_note", "erroneous_note", "incorrect_text", "incorrect_version", "note_with_error"),
            *("altered", "modified", "wrong", "modifiedText", "Fehlerhaft", "text", "error_text"),
        )
    },
    **{
        f"another version of {key} in a column of any name": (
            [{"note_id": "a", key: f"He has gout. {PROSE}", "v2": f"He has flu. {PROSE}"}],
            f"the column 'v2' holds another version of the note, and would not be read; call the column of the "
            f"erroneous notes {called!r}, or leave 'v2' out",
        )
        for key, called in (("text", "error_text"), ("correct_note", "incorrect_note"))
    },
    "a flag beside correct notes": (
        [{"note_id": "a", "correct_note": "He has gout.", "error_flag": "1"}],
        "the column 'error_flag' stands beside 'correct_note'",
    ),
    "an error described beside a correct note": (
        [{"note_id": "a", "correct_note": "He has gout.", "error_sentence": "He has flu."}],
        "'error_sentence' describes an error, but there is no 'incorrect_note'; add it",
    ),
    "an id with two texts": ([*changed(), {**RIGHT, "Text": SECRET}], "note id 'x-1' was used before"),
    "an id with two labels": ([*changed(), {**WRONG, "Text ID": "x-1"}], "note id 'x-1' was used before"),
    "the same text twice in a pair": (
        [{"note_id": "a", "correct_note": SECRET, "incorrect_note": f" {SECRET}"}],
        "'correct_note' and 'incorrect_note' are the same",
    ),
    **{
        f"the chat token {token}": (plain(text=f"He has gout.{token} {SECRET}"), f"'text' holds the chat token {token}")
        for token in (
            "<|im_end|>",
            "<|im_start|>",
            "<|eot_id|>",
            "</think>",
            "<think>",
            "[INST]",
            "[/THINK]",
            "</s>",
            "<end_of_turn>",
        )
    },
    "a chat token in a correction": (
        changed(Corrected_Text=(f"{WRONG['Corrected Text']}<|im_end|>", "NA")),
        "'Corrected Text' holds the chat token <|im_end|>",
    ),
    **{
        f"{error} for a text": (
            [*plain(), {"note_id": "c", "text": error}],
            f"'text' is a spreadsheet's error ({error})",
        )
        for error in ("#NAME?", "#REF!", "#VALUE!")
    },
    "nothing but blank texts": (plain(text=" \u200b"), "row 1: holds no usable note, nor does any other row"),
}


def test_other_columns_are_taken_beside_notes(tmp_path: Path) -> None:
    """Of another content, or the same words in other dress."""
    text = f"He has gout. {PROSE}"
    more = {"ward": "A", "note_type": "letter", "summary": "Gout.", "lower": text.lower().replace(".", ""), "v2": None}
    for row in ({"text": text, "modified": "2024-03-12"}, {"correct_note": text, "changed_on": "2024-03-12"}):
        path = write_jsonl(tmp_path / "n.jsonl", [{"note_id": "a", **more, **row}])
        assert load_notes(path) == trained(path) == [Note("a", text)]
    pair = {"note_id": "a", "correct_note": text, "incorrect_note": f"He has flu. {PROSE}", **more, "altered": "x"}
    assert len(read_by_all(write_jsonl(tmp_path / "p.jsonl", [pair]), tmp_path)) == 2


@pytest.mark.parametrize("form", REFUSED)
@pytest.mark.parametrize("kind", ["csv", "json lines", "parquet"])
def test_what_is_refused_is_refused_by_all(tmp_path: Path, kind: str, form: str) -> None:
    rows, told = REFUSED[form]
    name, write = WRITERS[kind]
    assert told in refused_by_all(write(tmp_path / name, rows), tmp_path)


RAW: dict[str, tuple[str, bytes, str]] = {
    "a column twice": ("n.csv", b"note_id,text,text\na,He is well.,She is ill.\n", "'text' occurs twice"),
    "a key twice": (
        "n.jsonl",
        b'{"note_id": "a", "text": "He.", "text": "She."}\n',
        "row 1: the key 'text' occurs twice",
    ),
    "a json array": ("n.jsonl", b'[\n {"note_id": "a", "text": "He."}\n]\n', "write one object a line"),
    "json over lines": ("n.jsonl", b'{\n "note_id": "a",\n "text": "He."\n}\n', "write one object a line"),
    "too many fields": ("n.csv", f"note_id,text\na,He is well.,{SECRET}\n".encode(), "has 3 fields, but the header"),
    "no header": ("n.csv", f"a,{SECRET}\nb,She is well.\n".encode(), "the columns are a, (21 characters); expected"),
    "names of several words": ("n.csv", b"Note ID,Note Text\na,He.\n", "the columns are Note ID, Note Text; expected"),
    "a sentence for a header": (
        "n.csv",
        b"a,He is well.\nb,She is ill.\n",
        "the columns are a, (11 characters); expec",
    ),
    "bytes for a header": ("n.csv", b"\x1b[31mid\x1b]0;title\x07,note\na,b\n", "the columns are (17 characters), note"),
    "not UTF-8": ("n.csv", b"note_id,text\na,caf\xe9\n", "row 1, column 'text', line 2: is not UTF-8 text"),
    "Windows-1252": (
        "n.csv",
        "note_id;text\na;38.5 °C\n".encode("cp1252"),
        "row 1, column 'text', line 2: is not UTF-8 text; convert the file to UTF-8 (a spreadsheet saves CSV UTF-8)",
    ),
    "not UTF-8 in JSON": ("n.jsonl", b'{"note_id": "a", "text": "caf\xe9"}\n', "row 1: is not UTF-8 text"),
    "empty": ("n.csv", b"", "the file is empty"),
    "a header only": ("n.csv", b"note_id,text\n", "holds no usable note: it has no rows"),
    "a huge number in JSON": ("n.jsonl", b'{"note_id": ' + b"9" * 5000 + b', "text": "He."}\n', "is not JSON"),
    "half a surrogate pair": ("n.jsonl", b'{"note_id": "a", "text": "\\ud800"}\n', "half of a surrogate pair"),
    "a list for a text": ("n.jsonl", b'{"note_id": "a", "text": ["He."]}\n', "'text' must be a string, not list"),
    "an object for a text": ("n.jsonl", b'{"note_id": "a", "text": {"a": 1}}\n', "'text' must be a string, not dict"),
    "a list for a flag": ("n.jsonl", b'{"Text ID": "a", "Text": "He.", "Error Flag": [1]}\n', "'Error Flag' is a list"),
    "a list for an id": ("n.jsonl", b'{"Text ID": ["a"], "Text": "He.", "Error Flag": 1}\n', "'Text ID' must be a str"),
    "a number for a text": (
        "n.jsonl",
        b'{"Text ID": "a", "Text": 12345, "Error Flag": 0}\n',
        "'Text' must be a string",
    ),
}


@pytest.mark.parametrize("form", RAW)
def test_broken_files_are_refused_by_all(tmp_path: Path, form: str) -> None:
    name, content, told = RAW[form]
    (tmp_path / name).write_bytes(content)
    assert told in refused_by_all(tmp_path / name, tmp_path)


def test_parquet_that_python_cannot_hold(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "n.parquet"
    ids, bad = pa.array(["a", "b"]), pa.array([b"He is well.", b"caf\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.Table.from_arrays([ids, bad], ["note_id", "text"]), path)
    assert "row 2: 'text' is not UTF-8 text" in refused_by_all(path, tmp_path)
    pq.write_table(pa.Table.from_arrays([ids, ids, ids], ["note_id", "text", "text"]), path)
    assert "'text' occurs twice" in refused_by_all(path, tmp_path)
    pq.write_table(pa.Table.from_arrays([ids, pa.array([["x"], ["y"]])], ["note_id", "text"]), path)
    assert "'text' must be a string, not list" in refused_by_all(path, tmp_path)
    flags = pa.table({"Text ID": ids, "Text": ids, "Error Flag": [1.0, 0.0], "Error Sentence ID": [1e300, -1.0]})
    pq.write_table(flags, path)
    assert "'Error Sentence ID' is a float, not the number" in refused_by_all(path, tmp_path)


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    assert "cannot be read (Too many levels of symbolic links)" in refused_by_all(tmp_path / "a.jsonl", tmp_path)
    (tmp_path / "null.jsonl").symlink_to("/dev/null")
    assert "is a device or a pipe, not a file" in refused_by_all(tmp_path / "null.jsonl", tmp_path)
    assert "(File name too long)" in refused_by_all(tmp_path / f"{'n' * 300}.jsonl", tmp_path)
    (tmp_path / "d.csv").mkdir()
    assert "is a directory, not a file" in refused_by_all(tmp_path / "d.csv", tmp_path)
    assert "(Not a directory)" in refused_by_all(write_csv(tmp_path / "f.csv", []) / "n.csv", tmp_path)


def test_control_characters_of_a_name_stay_out_of_the_message(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_notes(tmp_path / "\x1b[31mbad\nname.jsonl")
    assert r"\x1b[31mbad\nname.jsonl: no such file" in str(caught.value)


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", plain())
    (tmp_path / "file").write_text("x")
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for out in ("file/x/y", "a/x", "n" * 300, "file"):
        with pytest.raises(ConfigError, match="--out") as caught:
            prepare(PrepareOptions([path], tmp_path / out, near_threshold=None))
        assert "\n" not in str(caught.value)
    for out in ("file", "file/x"):
        with pytest.raises(ConfigError, match="--out"):
            write_ward(tmp_path / out, 4, 7)
    (tmp_path / "w" / "WARD-TestSet.csv").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"WARD-TestSet\.csv: is a folder"):
        write_ward(tmp_path / "w", 4, 7, overwrite=True)
    assert [item.name for item in (tmp_path / "w").iterdir()] == ["WARD-TestSet.csv"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", plain())
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    prepare(PrepareOptions([], tmp_path / "out", given_splits={path: "train"}, near_threshold=None, overwrite=True))
    assert (tmp_path / "out").is_symlink() and (tmp_path / "real" / "train.parquet").is_file()


@pytest.mark.parametrize("name", ["medec-uw-exams.csv", "MEDEC-UW-items.csv", "medec_symptoms.csv", "ward-round.csv"])
def test_a_name_is_no_licence(tmp_path: Path, name: str) -> None:
    path = write_csv(tmp_path / name, [[row[column] for column in HEADER] for row in (WRONG, RIGHT)])
    options = PrepareOptions([], tmp_path / "out", given_splits={path: "train"}, near_threshold=None)
    assert prepare(options)["licence"] == f"{name}: not stated (--licence)"


def test_a_name_that_tells_two_splits(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "dev-test.jsonl", plain())
    with pytest.raises(DataError, match="the name suggests more than one split; give --split SPLIT=FILE"):
        prepare(PrepareOptions([path], tmp_path / "out", near_threshold=None))
    prepare(PrepareOptions([], tmp_path / "out", given_splits={path: "test"}, near_threshold=None))


@pytest.mark.parametrize("ratios", ["nan,nan,nan", "0.8,nan,0.2", "inf,0,0", "-1,1,1", "0.5,0.5", "1,0,0,0", "a,b,c"])
def test_ratios_that_are_no_shares(ratios: str) -> None:
    with pytest.raises(ConfigError, match="give the shares of train, validation and test"):
        parse_ratios(ratios)


def test_a_mark_of_the_game_is_reported_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", [{"note_id": "a", "text": 'He has gout. final_answer: "CORRECT"'}])
    assert len(load_notes(path)) == 1
    assert "holds a mark of the game: correct, final_answer (first: a)" in caplog.text


# ---------------------------------------------------------------------------------------- misread UTF-8


def misread(text: str) -> str:
    """UTF-8 read as Windows-1252, as programs do that keep the five bytes without a character."""
    kept = (0x81, 0x8D, 0x8F, 0x90, 0x9D)
    return "".join(chr(b) if b in kept else bytes([b]).decode("cp1252") for b in text.encode())


GOOD = "His knees are “stiff” for 2–3 hours. α-amylase is 40 U/L (≥ 30), 37 °C, 5 µg, Sjögren’s."


@pytest.mark.parametrize("broken", [misread(GOOD), misread(misread(GOOD)), GOOD.encode().decode("latin-1")])
def test_misread_text_is_told_and_can_be_repaired(tmp_path: Path, broken: str) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", [{"note_id": "a", "text": broken}, {"note_id": "b", "text": GOOD}])
    for repair in (False, True):
        out = tmp_path / str(repair)
        options = PrepareOptions([], out, given_splits={path: "train"}, near_threshold=None, repair_text=repair)
        manifest = prepare(options)
        first, second = read_labelled(out / "train.parquet")
        assert (first.text, second.text) == (GOOD if repair else broken, GOOD)
        (reason,) = manifest["remarks"]["counts"]
        assert "Windows-1252" in reason and ("repaired" in reason) is repair
        assert manifest["remarks"]["counts"][reason] == 1 and manifest["remarks"]["first"][reason] == ["a"]
        assert manifest["repair_text"] is repair
        assert json.loads((out / "manifest.json").read_text()) == manifest


@pytest.mark.parametrize(
    "text", [GOOD, "É… café”— 5 Å” naïve’” Ménière’s Behçet’s Gauß”", "Пациент здоров.", "患者无发热。"]
)
def test_text_that_is_right_is_left_alone(tmp_path: Path, text: str) -> None:
    path = write_jsonl(tmp_path / "n.jsonl", [{"note_id": "a", "text": text}])
    manifest = prepare(
        PrepareOptions([], tmp_path / "out", given_splits={path: "train"}, near_threshold=None, repair_text=True)
    )
    assert manifest["remarks"]["counts"] == {}
    assert read_labelled(tmp_path / "out" / "train.parquet")[0].text == text
