"""``~`` is the home folder wherever an option names a path, also where a shell leaves it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.cli.arguments import at_home
from medserl.cli.main import main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "home"


def test_every_form_is_followed(home: Path) -> None:
    assert at_home("~/x") == f"{home}/x" and at_home("~") == str(home)
    assert at_home("train=~/x.jsonl") == f"train={home}/x.jsonl"
    assert at_home(["~/a", "b", Path("~/c")]) == [f"{home}/a", "b", home / "c"]


@given(st.text().filter(lambda text: "~" not in text) | st.integers() | st.none() | st.booleans())
def test_all_else_stays(value: object) -> None:
    assert at_home(value) == value
    assert at_home(f"a~{value}") == f"a~{value}"


def test_outputs_and_inputs_lie_at_home(home: Path) -> None:
    assert main(["data", "ward", "--out=~/ward", "--count", "4"]) == 0
    assert main(["data", "prepare", "--split=train=~/ward/WARD-TrainingSet.csv", "--out=~/prepared"]) == 0
    assert (home / "prepared" / "train.parquet").is_file()
    assert not any(Path.cwd().iterdir())
