"""``medserl games`` in a terminal: what is said, what is shown, and that no text of a note is obeyed."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.cli.main import main
from medserl.gamelog.log import GameLog
from medserl.gamelog.read import read_games
from medserl.gamelog.rows import redacted
from medserl.report.games_data import Packer, names_of
from medserl.report.games_text import Choice, Tally, first_of_each, game_lines, headline, printable, words_changed
from tests.gamelog.made import game, made_log


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_log(tmp_path_factory.mktemp("games") / "run")


WORDS = st.lists(st.sampled_from(["He", "has", "a", "cough.", "No", "pain.\n", " "]), max_size=8).map(" ".join)


@settings(max_examples=30)
@given(WORDS, WORDS)
def test_the_words_of_both_texts_come_back_from_a_change(before: str, after: str) -> None:
    parts = words_changed(before, after)
    assert "".join(text for kind, text in parts if kind != "gone") == after
    assert [word for kind, text in parts if kind != "came" for word in text.split()] == before.split()


def test_a_page_and_a_summary_come_of_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["games", str(run)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("140 games\n") and f"in a browser: {run / 'games.html'}" in said
    assert "benign edit was an error" in said and "assessor right, held-out greedy" in said
    assert "year-old" not in said  # into a pipe no note goes unasked
    assert (run / "games.html").stat().st_mode & 0o077 == 0


def test_games_are_shown_as_they_are_asked_for(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--rounds", "2-3", "--mode", "error", "--outcome", "assessor wrong", "--sort", "oldest"]
    assert main(["games", str(run), "--out", str(tmp_path / "page.html"), "--show", "2", *where]) == 0
    said = capsys.readouterr().out
    shown = [line for line in said.splitlines() if line.startswith("round ")]
    assert len(shown) == 2
    assert all("round 2 · asked for: error" in line and "✗, p(INCORRECT)" in line for line in shown)
    assert "{+" in said and "[-" in said and "  injector 1, " in said and "  assessor, " in said
    chosen = [r for r in read_games(run) if Choice((2, 3), mode="error", outcome="assessor wrong").fits(r)]
    assert f"{len(chosen)} of 140 games" in said
    assert (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["away"], "away: no such folder"),
        (["."], "holds no games"),
        (["run", "--rounds", "seven"], "is neither a round nor two with a dash between"),
        (["run", "--show", "-1"], "give 0 or more"),
        (["run", "--out", "no/such/page.html"], "cannot be written"),
        (["run", "--show", "0", "x=1"], "takes run directories and no overrides"),
    ],
)
def test_what_cannot_be_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    monkeypatch.chdir(run.parent)
    assert main(["games", *arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


def test_labels_that_nobody_checked_are_no_measured_inversion() -> None:
    row = game(1, 2) | {"ruling_reason": "instruction"}
    assert row["mode"] == row["ruling"] == "benign"
    tally = Tally()
    tally.see(row | {"second_ruling": None})
    assert ["label is what was asked for, not checked", "100 %", "of 1"] in tally.rows
    assert ["edit was not what was asked for", "not measured", ""] in tally.rows
    assert not any(name == "benign edit was an error" for name, *_ in tally.rows)
    assert "label as asked for, not checked: benign" in headline(row)
    tally.see(game(1, 4))
    assert ["edit was not what was asked for", "0 %", "of 1"] in tally.rows
    assert redacted(row)["ruling_reason"] == "instruction" and redacted(game(1, 4))["ruling_reason"] is None


def test_unasked_a_text_is_shown_once_by_the_game_that_comes_first() -> None:
    rows = [game(number, 1) | {"shown": text} for number, text in ((1, "a"), (3, "a"), (2, "b"), (2, None), (1, None))]
    shown = first_of_each(rows, Choice(sort="newest").key)
    assert [(row["round"], row["shown"]) for row in shown] == [(3, "a"), (2, "b"), (2, None), (1, None)]


def test_no_text_is_obeyed_by_a_terminal() -> None:
    row = game(1, 7)
    row["original"] = "He \x1b[31mhas\x07 a\u202e cough."
    row["shown"] = row["original"].replace("cough", "\x9b2Jfever")
    row["attempts"][-1]["reply"] = "\x1b]0;title\x07"
    text = "\n".join(game_lines(row))
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text) and "fever" in text
    assert printable("Ünder 🩺\n") == "Ünder 🩺\n"


def test_a_redacted_game_says_that_its_text_was_left_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["games", str(run), "--out", str(tmp_path / "p.html"), "--redact", "--show", "3"]) == 0
    said = capsys.readouterr().out
    assert said.count("(the text was left out)") == 3 and "year-old" not in said and "final_answer" not in said


def test_only_new_parts_are_packed_again(tmp_path: Path) -> None:
    run_dir, seen = made_log(tmp_path / "run", 2, 4, 0), []
    packer = Packer([run_dir], see=lambda row: seen.append((row["round"], row["place"])))
    assert packer.pack()["games"] == 8
    assert packer.pack()["games"] == 8 and len(seen) == 8
    GameLog(run_dir).write(3, [game(3, place) for place in range(4)])
    assert packer.pack()["games"] == 12
    assert json.dumps(packer.pack()) == json.dumps(Packer([run_dir]).pack())


def test_runs_have_the_shortest_names_that_tell_them_apart(tmp_path: Path) -> None:
    def names(*paths: str) -> list[str]:
        return names_of([tmp_path / path for path in paths])

    assert names("a", "b") == ["a", "b"]
    assert names("x/run", "y/run") == ["x/run", "y/run"]
    assert names("run") == ["run"]
    assert names("run", "run") == ["run", "run"]
