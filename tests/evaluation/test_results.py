"""The output directory: complete or not there, readable by its owner only, without clinical text."""

import json
from pathlib import Path

import pytest

from medserl.errors import ConfigError, DataError
from medserl.evaluation.model import model_sha256
from medserl.evaluation.results import check_out, read_results, write_results
from medserl.game.labels import Label
from tests.evaluation.made import FLAG, SECRET, examples, results_of, scored, stored

ITEMS = [scored(e, FLAG.format(e.label.value)) for e in examples(3)]


def test_everything_is_there_and_private(tmp_path: Path) -> None:
    out = stored(tmp_path / "deep" / "out", ITEMS)
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"results.json", "results.md", "predictions.jsonl", "plots/metrics.svg"}
    assert all(path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600) for path in [out, *out.rglob("*")])
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_no_text_unless_asked(tmp_path: Path) -> None:
    without = stored(tmp_path / "a", ITEMS)
    assert not any(SECRET in path.read_text() for path in without.rglob("*") if path.is_file())
    with_text = stored(tmp_path / "b", ITEMS, keep_text=True)
    record = json.loads((with_text / "predictions.jsonl").read_text().splitlines()[0])
    assert SECRET in record["text"] and "final_answer" in record["votes"][0]["reply"]
    assert not any(SECRET in (with_text / name).read_text() for name in ("results.json", "results.md"))


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    results = results_of(ITEMS)
    results["settings"]["seed"] = float("nan")  # is not JSON
    with pytest.raises(ValueError):
        write_results(tmp_path / "out", results, ITEMS, keep_text=False)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_refused_an_empty_one_taken(tmp_path: Path) -> None:
    out = stored(tmp_path / "out", ITEMS)
    with pytest.raises(ConfigError, match="already exists"):
        check_out(out)
    with pytest.raises(ConfigError, match="already exists"):
        check_out(out / "results.json")
    with pytest.raises(ConfigError, match=r"below: .*results\.json"):
        check_out(out / "results.json" / "below")
    check_out(tmp_path / "new" / "deep")
    (tmp_path / "empty").mkdir()
    assert read_results(stored(tmp_path / "empty", ITEMS)).predictions


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    out = stored(tmp_path / "out", [*ITEMS[:5], scored(ITEMS[5].example, "no idea")])
    for path in (out, out / "results.json"):
        found = read_results(path)
        assert found.results["data"]["texts"] == 6
        assert [p.answer for p in found.predictions] == [*[item.example.label for item in ITEMS[:5]], None]
        assert found.predictions[0].label is Label.INCORRECT


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("results.json", "{", "is not JSON"),
        ("results.json", "[]", "not a results file"),
        ("results.json", '{"format_version": 99}', "not a results file"),
        ("predictions.jsonl", "{}\n", "line 1: is not a prediction"),
        ("predictions.jsonl", "", "has 0 lines"),
        ("predictions.jsonl", None, "cannot be read"),
        ("results.json", None, "cannot be read"),
    ],
)
def test_broken_results_are_named(tmp_path: Path, file: str, text: str | None, what: str) -> None:
    out = stored(tmp_path / "out", ITEMS)
    (out / file).unlink()
    if text is not None:
        (out / file).write_text(text)
    with pytest.raises(DataError, match=what) as caught:
        read_results(out)
    assert file in str(caught.value)


def test_the_hash_of_a_model_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"0")
    before = model_sha256(tmp_path)
    (tmp_path / "notes.txt").write_text("unrelated")
    assert model_sha256(tmp_path) == before
    (tmp_path / "model.safetensors").write_bytes(b"1")
    assert model_sha256(tmp_path) != before
