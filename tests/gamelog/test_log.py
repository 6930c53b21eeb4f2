"""The game log: what was played comes back, each round once, whole or not at all, and nobody else can read it."""

import asyncio
import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game import (
    GameRules,
    Label,
    LabelledNote,
    Mode,
    Note,
    Reply,
    assess_labelled,
    load_prompt_set,
    make_referee,
    play_game,
)
from medserl.game.parse import read_answer
from medserl.gamelog import log as module
from medserl.gamelog.kinds import Outcome, Source, outcome
from medserl.gamelog.log import GameLog
from medserl.gamelog.parts import FOLDER, VALIDATION, forget_after, parts
from medserl.gamelog.read import check_games, read_games, read_part
from medserl.gamelog.rows import SCHEMA, Turn, held_out, played, redacted, to_table
from tests.gamelog.made import game as made_game

NOTE = Note("n1", "He has a cough. He takes aspirin 81 mg daily. He denies fever.")
EDIT = "sentence_id: 1\nnew_sentence: He takes aspirin 18 mg daily."
SECRET = "Weißkittel"


def play(*replies: str, mode: Mode = Mode.ERROR, note: Note = NOTE) -> Any:
    said = iter(replies)

    async def generate(role: Any, messages: Any) -> Reply:
        return Reply(next(said), tokens=7, think_tokens=0)

    referee = make_referee("instruction")
    return asyncio.run(
        play_game(note, mode, generate=generate, prompts=load_prompt_set("clinical"), rules=GameRules(),
                  referee=referee, second_referee=referee)
    )  # fmt: skip


def back(tmp_path: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    GameLog(tmp_path).write(1, rows)
    return list(read_games(tmp_path))


def test_a_game_comes_back_with_all_that_happened(tmp_path: Path) -> None:
    game = play("No.", EDIT, 'final_answer: "CORRECT"')
    turns = {1: Turn(0.5, None, True, -0.25), 2: Turn(0.25, 0.125, True, 0.5)}
    (row,) = back(tmp_path, played(game, 3, 4, turns, NOTE.text))
    assert (row["round"], row["place"], row["source"], row["note_id"]) == (3, 4, "self-play", "n1")
    assert (row["mode"], row["error_type"]) == ("error", None)
    assert row["original"] == NOTE.text and row["shown"] == NOTE.text.replace("81", "18")
    assert (row["ruling"], row["second_ruling"], row["truth"]) == ("error", "error", "INCORRECT")
    rejected, accepted = row["attempts"]
    assert (rejected["reply"], rejected["modified"], rejected["reason"]) == ("No.", None, "unparseable")
    assert rejected["reward"] is None and not rejected["trained"] and rejected["seconds"] is None
    assert (accepted["reply"], accepted["modified"], accepted["reason"]) == (EDIT, row["shown"], None)
    assert (accepted["word_edits"], accepted["tokens"], accepted["seconds"]) == (1, 7, 0.5)
    assert (accepted["trained"], accepted["advantage"]) == (True, -0.25)
    assert accepted["reward"] == pytest.approx(game.trajectories[1].reward)
    assessor = row["assessor"]
    assert (assessor["answer"], assessor["p_incorrect"], assessor["strict"]) == ("CORRECT", 0.125, True)
    assert assessor["task_reward"] == -row["injector_task_reward"] == -1.0
    assert outcome(row) is Outcome.WRONG


@pytest.mark.parametrize(
    ("replies", "mode", "expected"),
    [
        ((EDIT, 'final_answer: "INCORRECT"'), Mode.ERROR, Outcome.RIGHT),
        ((EDIT, 'final_answer: "INCORRECT"'), Mode.BENIGN, Outcome.WRONG),
        ((EDIT, "Who knows?"), Mode.ERROR, Outcome.NO_ANSWER),
        (("No.", "No.", "No."), Mode.ERROR, Outcome.EXHAUSTED),
    ],
)
def test_how_a_game_ended(tmp_path: Path, replies: tuple[str, ...], mode: Mode, expected: Outcome) -> None:
    assert [outcome(row) for row in back(tmp_path, played(play(*replies, mode=mode), 1, 0, {}))] == [expected]


def test_a_gold_note_and_a_held_out_answer(tmp_path: Path) -> None:
    async def generate(role: Any, messages: Any) -> Reply:
        return Reply('final_answer: "INCORRECT"', tokens=5)

    gold = LabelledNote("g1", "He has no cough.", Label.INCORRECT, "diagnosis")
    game = asyncio.run(assess_labelled(gold, generate=generate, prompts=load_prompt_set("clinical"), rules=GameRules()))
    answer = read_answer('final_answer: "CORRECT"')
    seen = held_out(gold, "He has a cough.", answer, 'final_answer: "CORRECT"', 5, Turn(0.1, 0.3))
    first, second = back(
        tmp_path, played(game, 1, 0, {}, error_type="diagnosis"), seen | {"round": 1, "source": "held-out greedy"}
    )
    assert (first["source"], first["mode"], first["attempts"], first["error_type"]) == ("gold", None, [], "diagnosis")
    assert (first["shown"], first["truth"], outcome(first)) == (gold.text, "INCORRECT", Outcome.RIGHT)
    assert (second["original"], second["shown"], outcome(second)) == ("He has a cough.", gold.text, Outcome.WRONG)
    assert second["assessor"]["p_incorrect"] == pytest.approx(0.3) and not second["assessor"]["trained"]


ROWS = st.fixed_dictionaries(
    {"round": st.integers(0, 999), "note_id": st.text(max_size=5), "original": st.none() | st.text(max_size=40)}
)


@settings(max_examples=15)
@given(rows=st.lists(ROWS, max_size=4))
def test_any_text_comes_back(rows: list[dict[str, Any]]) -> None:
    table = to_table([*rows, {"round": 1, "note_id": "\ud800", "attempts": [{"reply": "a\udfffb"}]}])
    *plain, odd = table.to_pylist()
    assert [{name: row[name] for name in rows[0]} for row in plain] == [
        {name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
         for name, value in row.items()}
        for row in rows
    ]  # fmt: skip
    assert (odd["note_id"], odd["attempts"][0]["reply"]) == ("?", "a?b")


# ---------------------------------------------------------------- rounds, each once


def names(run_dir: Path) -> list[str]:
    return [part.name for part in parts(run_dir)]


def write(run_dir: Path, numbers: list[int], **options: Any) -> None:
    log = GameLog(run_dir, **options)
    for number in numbers:
        log.write(number, [made_game(number, place) for place in range(3)])


def test_rounds_that_are_played_again_are_there_once(tmp_path: Path) -> None:
    GameLog(tmp_path).write(0, [made_game(0, 1)], VALIDATION)
    write(tmp_path, [1, 2, 3])
    forget_after(tmp_path, 1)
    assert names(tmp_path) == ["validation-000000.parquet", "round-000001.parquet"]
    write(tmp_path, [2, 2, 3])
    assert [(row["round"], row["place"]) for row in read_games(tmp_path)][1:] == [
        (number, place) for number in (1, 2, 3) for place in range(3)
    ]
    forget_after(tmp_path, 0)
    assert names(tmp_path) == []


@pytest.mark.parametrize("kill_after", range(4))
def test_a_start_that_was_killed_leaves_whole_parts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill_after: int
) -> None:
    """Killed while it writes a part, before its sync, before its rename: what was there before is there still."""
    write(tmp_path, [1])

    class Killed(BaseException):
        pass

    def die(*_: Any, **__: Any) -> None:
        raise Killed

    def half(table: Any, file: Any, **_: Any) -> None:
        file.write(b"PAR1 half")
        raise Killed

    where = [
        (module.pq, "write_table", die), (module.pq, "write_table", half), (os, "fsync", die), (os, "replace", die)
    ][kill_after]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(*where)
        patch.setattr(Path, "unlink", die)  # a killed process tidies nothing up
        with pytest.raises(Killed):
            write(tmp_path, [2])
    assert [row["round"] for row in read_games(tmp_path)] == [1, 1, 1]
    forget_after(tmp_path, 1)
    assert os.listdir(tmp_path / FOLDER) == ["round-000001.parquet"]
    write(tmp_path, [2])
    assert {row["round"] for row in read_games(tmp_path)} == {1, 2}


def test_a_damaged_part_costs_its_own_games_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path, [1, 2, 3, 4])
    second, third = parts(tmp_path)[1:3]
    second.write_bytes(second.read_bytes()[:200])
    third.write_bytes(b"")
    assert {row["round"] for row in read_games(tmp_path)} == {1, 4}
    assert str(second) in caplog.text and str(third) in caplog.text
    assert read_part(tmp_path / "gone.parquet") == []


def test_a_full_disk_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write(tmp_path, [1])
    with monkeypatch.context() as patch:
        patch.setattr(module.pq, "write_table", full)
        write(tmp_path, [2])
    write(tmp_path, [3])
    assert {row["round"] for row in read_games(tmp_path)} == {1, 3}
    assert "games of round 2 could not be written (No space left on device)" in caplog.text
    assert len(os.listdir(tmp_path / FOLDER)) == 2


def test_a_part_of_another_version_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write(tmp_path, [1])
    (part,) = parts(tmp_path)
    table = to_table([made_game(1, 1)])
    pq.write_table(table.drop_columns(["second_ruling"]).append_column("later", [["x"]]), part)
    (row,) = read_part(part)
    assert row.keys() == set(SCHEMA.names) and row["second_ruling"] is None and row["mode"] == "error"


# ---------------------------------------------------------------- retention, privacy


def test_old_rounds_go(tmp_path: Path) -> None:
    GameLog(tmp_path).write(0, [made_game(0, 1)], VALIDATION)
    write(tmp_path, [1, 2, 3, 4], keep_rounds=2)
    assert names(tmp_path) == ["round-000003.parquet", "round-000004.parquet"]


def test_the_log_stays_below_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [1, 2])
    size = sum(part.stat().st_size for part in parts(tmp_path))
    monkeypatch.setattr(module, "MEGABYTE", int(size * 1.2))
    write(tmp_path, [3, 4, 5], max_megabytes=1)
    assert names(tmp_path) == ["round-000004.parquet", "round-000005.parquet"]
    monkeypatch.setattr(module, "MEGABYTE", 1)
    write(tmp_path, [6], max_megabytes=1)
    assert names(tmp_path) == ["round-000006.parquet"]  # the newest stays, whatever its size


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path, [1])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / FOLDER).stat().st_mode) == 0o700
    assert [stat.S_IMODE(part.stat().st_mode) for part in parts(tmp_path)] == [0o600]


def test_a_redacted_log_holds_no_word_of_a_note(tmp_path: Path) -> None:
    note = Note(SECRET, f"He has a cough. He takes {SECRET} 81 mg daily. He denies fever.")
    edit = f"sentence_id: 1\nnew_sentence: He takes {SECRET} 18 mg daily."
    game = play(f"No {SECRET}.", edit, f'{SECRET}\nfinal_answer: "CORRECT"', note=note)
    row = played(game, 1, 0, {}, note.text) | {"ruling_reason": SECRET, "second_reason": SECRET}
    seen = held_out(
        LabelledNote(SECRET, note.text, Label.CORRECT), note.text, read_answer(SECRET), SECRET, 1, Turn()
    ) | {"round": 1, "source": Source.GREEDY.value, "place": 0}  # fmt: skip
    assert SECRET in str(row) and SECRET in str(seen)
    assert SECRET not in str(redacted(row)) and SECRET not in str(redacted(seen))
    GameLog(tmp_path, redact=True).write(1, [row, seen])
    first, second = read_games(tmp_path)
    assert SECRET not in f"{first} {second}" and SECRET.encode() not in parts(tmp_path)[0].read_bytes()
    assert outcome(first) is Outcome.WRONG and first["attempts"][0]["reason"] == "unparseable"
    assert outcome(second) is Outcome.NO_ANSWER


@pytest.mark.parametrize("there", [True, False])
def test_a_run_without_games_is_told_what_to_do(tmp_path: Path, there: bool) -> None:
    where = tmp_path if there else tmp_path / "away"
    with pytest.raises(ConfigError, match="game_log.enabled=true" if there else "no such folder"):
        check_games(where)
