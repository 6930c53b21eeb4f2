"""``~`` is the home folder wherever an option names a path, also where a shell leaves it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.cli.arguments import at_home
from medserl.cli.main import main
from medserl.config.quoting import literal
from medserl.errors import ConfigError


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


@given(st.text(st.characters() | st.sampled_from("\\'\"${}[],= ~\n")).filter(lambda v: "${" not in v and v != "???"))
def test_any_text_survives_the_grammar_of_overrides(value: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    parsed = OverridesParser.create().parse_override(literal("a.b", value))
    assert parsed.key_or_group == "a.b" and parsed.value() == value
    assert OmegaConf.create({"x": parsed.value()}).x == value


@pytest.mark.parametrize("value", ["${medserl.run_dir}.jsonl", "a${", "???"])
def test_what_a_configuration_would_follow_is_no_path(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="mean something of their own"):
        literal("medserl.notes.path", value)
    assert main(["train", "--dry-run", "--prompt-data", value]) == 2
    assert capsys.readouterr().err.startswith(f"medserl: error: --prompt-data: {value} ")


def test_a_file_is_found_by_a_name_with_a_backslash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a\\b'c.jsonl").write_text('{"note_id": "a", "text": "He is well."}\n')
    assert main(["config", "--prompt-data", "a\\b'c.jsonl", "--section", "medserl.notes.path"]) == 0
    assert capsys.readouterr().out == "a\\b'c.jsonl\n"
    assert main(["data", "stats", "a\\b'c.jsonl"]) == 0


def test_a_value_that_begins_with_a_minus_reaches_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "x.jsonl", "--out", "o", "--ratios", "-1,1,1"]) == 2
    assert capsys.readouterr().err.startswith("medserl: error: --ratios -1,1,1: give the shares")


def test_a_key_without_a_value_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--section", "medserl.notes.path"]) == 0
    assert capsys.readouterr().out == "null\n"
    assert main(["config", "--section", "medserl.notes.path.x"]) == 2
    assert main(["config", "--section", "["]) == 2
