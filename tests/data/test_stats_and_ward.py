"""``medserl data stats`` and ``medserl data ward``."""

import json
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import main
from medserl.data import read_labelled
from medserl.game.labels import Mode
from medserl.game.load import load_notes
from medserl.game.referee import RulingKind
from medserl.ward import OracleReferee, model_dir, ward_notes
from medserl.ward.table import TABLE_FILE
from tests.data.files import clean_row, error_row, note_text, pair, write_csv, write_jsonl

pytestmark = pytest.mark.engine  # seconds each: too long for the quick tests


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    assert main(["data", "ward", "--out", str(tmp_path / "ward"), "--count", "40", "--seed", "3"]) == 0
    sources = map(str, sorted((tmp_path / "ward").iterdir()))
    assert main(["data", "prepare", *sources, "--out", str(tmp_path / "out"), "--prompt-set", "ward"]) == 0
    return tmp_path / "out"


def stats(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["data", "stats", *map(str, arguments), "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def test_the_ward_as_medec_files(prepared: Path) -> None:
    ward = prepared.parent / "ward"
    assert sorted(path.name for path in ward.iterdir()) == [
        *("WARD-TestSet.csv", "WARD-TrainingSet.csv", "WARD-ValidationSet.csv"),
    ]
    notes = ward_notes("test", 40, 3)
    examples = read_labelled(ward / "WARD-TestSet.csv")
    assert [example.note_id for example in examples] == [note.note_id for note in notes]
    for i, (example, note) in enumerate(zip(examples, notes, strict=True)):
        assert example.text == (note.text if i % 2 else note.error_text)
        if not i % 2:
            assert example.sentences[example.error_sentence_id] == note.error_sentence
    assert [note.text for note in load_notes(ward / "WARD-TestSet.csv")] == [note.text for note in notes]
    manifest = json.loads((prepared / "manifest.json").read_text())
    counts = {split: counts["rows"] for split, counts in manifest["splits"].items()}
    assert counts == {"train": 40, "validation": 40, "test": 40}
    assert manifest["leaks"]["counts"] == {}


def test_a_ward_of_ones_own_table_has_its_oracle(tmp_path: Path) -> None:
    table = tmp_path / "table.yaml"
    table.write_text(TABLE_FILE.read_text().replace("ceftriaxone", "zanamicillin"))
    assert main(["data", "ward", "--out", str(tmp_path / "own"), "--count", "60", "--table", str(table)]) == 0
    notes = [note for note in load_notes(tmp_path / "own/WARD-TrainingSet.csv") if note.error_text is not None]
    named = [note for note in notes if "zanamicillin" in note.text]
    assert named and not any("ceftriaxone" in note.text for note in notes)
    oracle = OracleReferee(str(table))
    for note in notes:
        assert note.error_text is not None
        assert oracle.rule(note, Mode.BENIGN, note.error_text).kind is RulingKind.ERROR


def test_a_broken_table_is_told_with_line_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "table.yaml"
    table.write_text(TABLE_FILE.read_text().replace("  left: [L]\n", "  left: L\n", 1))
    assert main(["data", "ward", "--out", str(tmp_path / "own"), "--table", str(table)]) == 2
    error = capsys.readouterr().err
    assert "key sides.left" in error and f"{table}, line" in error and error.count("\n") == 1
    assert main(["data", "ward", "--out", str(tmp_path / "own"), "--table", str(tmp_path / "gone.yaml")]) == 2
    assert "give the path of a ward table" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()


def test_the_wards_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "ward", "--out", str(tmp_path), "--count", "4"]) == 0
    first = (tmp_path / "WARD-TestSet.csv").read_bytes()
    assert main(["data", "ward", "--out", str(tmp_path), "--count", "4"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["data", "ward", "--out", str(tmp_path), "--count", "4", "--overwrite"]) == 0
    assert (tmp_path / "WARD-TestSet.csv").read_bytes() == first
    assert main(["data", "ward", "--out", str(tmp_path / "x"), "--count", "1"]) == 2
    assert main(["data", "ward", "--out", str(tmp_path / "x"), "--count", "99999999"]) == 2
    assert not (tmp_path / "x").exists()


def test_stats_agree_with_the_check_before_a_run(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The limit that a run refuses is the one below the longest prompt that the statistics show."""
    found = stats(capsys, prepared)
    assert (found["max_prompt_length"], found["prompt_set"]) == (192, "ward")
    file = found["files"]["train.parquet"]
    assert file["labels"] == {"CORRECT": 20, "INCORRECT": 20} and file["notes"] == 40
    assert sum(file["error_types"].values()) == 20
    kinds = {kind: summary["prompts"] for kind, summary in file["prompts"].items()}
    assert kinds == {"injector (benign)": 40, "injector (error)": 40, "assessor": 40, "assessor (gold error)": 20}
    longest = max(summary["max"] for summary in file["prompts"].values())
    train = ["train", "--prompt-data", str(prepared / "train.parquet"), "--dry-run"]
    train += ["--run-dir", str(prepared.parent / "run")]
    assert main([*train, f"data.max_prompt_length={longest}"]) == 0
    assert main([*train, f"data.max_prompt_length={longest - 1}"]) == 2
    over = stats(capsys, prepared / "train.parquet", f"data.max_prompt_length={longest - 1}")["files"]["train.parquet"]
    assert over["notes_over_limit"] == len(over["first_over_limit"]) >= 1
    assert sum(summary["over_limit"] for summary in over["prompts"].values()) >= 1


def test_a_model_alone_has_no_limit(prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = stats(capsys, prepared / "test.parquet", "--model", model_dir(), "--prompt-set", "ward")
    assert found["max_prompt_length"] is None and "notes_over_limit" not in found["files"]["test.parquet"]
    assert main(["data", "stats", str(prepared), "--model", str(model_dir())]) == 0
    table = capsys.readouterr().out
    assert "not given" in table and "injector (benign)" in table and "CORRECT 20 (50.0 %)" in table
    assert main(["data", "stats", str(prepared)]) == 0
    table = capsys.readouterr().out
    assert "> 192" in table and "notes that do not fit: 0" in table


def test_any_file_of_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_jsonl(
        tmp_path / "n.jsonl", [pair("a", 1), {"note_id": "b", "text": "Fine."}, {"note_id": "c"} | {"text": ""}]
    )
    file = stats(capsys, path, "--model", model_dir())["files"]["n.jsonl"]
    assert (file["rows"], file["notes"], file["dropped_rows"]) == (3, 2, 1)
    unlabelled = write_jsonl(tmp_path / "own.jsonl", [{"note_id": "b", "text": "Fine."}])
    for file_, expected in ((path, False), (unlabelled, True)):
        assert main(["data", "stats", str(file_), "--model", str(model_dir())]) == 0
        assert ("no row says that its text has an error: all count as CORRECT" in capsys.readouterr().out) is expected
    lonely = [*error_row("a", 1)[:8], "NA"]
    path = write_csv(tmp_path / "n.csv", [lonely, clean_row("b", note_text(2))])
    file = stats(capsys, path, "--config", "qwen3_4b_1node", "--model", model_dir())["files"]["n.csv"]
    assert file["prompts"]["assessor (gold error)"]["prompts"] == 1
    assert file["prompts"]["injector (error)"]["prompts"] == 1


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["."], "holds no train.parquet"),
        (["n.csv", "--model", "/nowhere"], "--model: /nowhere: no such folder"),
        (["n.csv", "--config", "none"], "--config none"),
        (["n.csv", "data.max_promt_length=3"], "max_prompt_length"),
    ],
)
def test_what_stats_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_csv(Path("n.csv"), [clean_row("a", "A text.")])
    assert main(["data", "stats", *arguments]) == 2
    assert what in capsys.readouterr().err
