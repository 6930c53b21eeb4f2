"""What a round gives to the game log; pure. What verl puts in is in test_trainer.py and test_agent_loop.py."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medserl.config.plugins import keeps_games
from medserl.config.settings import GameLogSettings, GameSettings, NotesSettings, ValidationSettings
from medserl.game import Game, Label, LabelledNote, Mode, Note, Reply, Role, Ruling, RulingKind, Trajectory
from medserl.game.play import AssessorTurn, Attempt
from medserl.game.vcf import VcfVerdict
from medserl.gamelog.log import GameLog
from medserl.gamelog.parts import parts
from medserl.training.game_rows import open_log, round_rows, said_incorrect
from medserl.training.rows import Row

NOTE = Note("n1", "He has a cough.")


def duel(name: str) -> Game:
    edit, answer = Reply("edit"), Reply("answer")
    trajectories = (
        Trajectory(Role.INJECTOR, [], edit, 0.9, True, 1, True, {}),
        Trajectory(Role.ASSESSOR, [], answer, -0.9, True, 0, True, {}),
    )
    return Game(
        name, Mode.ERROR, (Attempt(edit, "He has no cough.", VcfVerdict(True)),), "He has no cough.",
        Ruling(RulingKind.ERROR), None, Label.INCORRECT, AssessorTurn(answer, Label.CORRECT),
        trajectories=trajectories,
    )  # fmt: skip


def gold(name: str) -> Game:
    answer = Reply("answer")
    return Game(
        name, None, accepted="text", truth=Label.CORRECT, assessor=AssessorTurn(answer, Label.CORRECT),
        trajectories=(Trajectory(Role.ASSESSOR, [], answer, 1.1, True, 0, True, {}),),
    )  # fmt: skip


def state(nothing_trains: bool = False) -> Any:
    a, b = "r000002n00000", "r000002n00001"
    labelled = LabelledNote("g", "text", Label.CORRECT, "diagnosis")
    return SimpleNamespace(
        tasks={a: SimpleNamespace(note=NOTE, labelled=None, place=0),
               b: SimpleNamespace(note=None, labelled=labelled, place=1)},
        games={b: gold("g"), a: duel("n1")},
        rows={f"{a}_0_0": Row(Role.INJECTOR, True, 0, 0.5), f"{a}_1_0": Row(Role.ASSESSOR, True, 1, 0.25, 0.125),
              f"{b}_0_0": Row(Role.ASSESSOR, True, 0, 0.75, 0.5)},
        roles={f"{a}_0_0": "injector", f"{b}_0_0": "assessor"},  # a's assessor was left out
        advantages={f"{a}_0_0": 1.5, f"{b}_0_0": -0.5},
        nothing_trains=nothing_trains,
    )  # fmt: skip


def test_a_round_gives_each_game_with_what_its_replies_took_and_brought() -> None:
    first, second = round_rows(state(), 2)
    assert (first["round"], first["place"], first["note_id"], first["original"]) == (2, 0, "n1", NOTE.text)
    (attempt,) = first["attempts"]
    assert (attempt["seconds"], attempt["trained"], attempt["advantage"], attempt["reward"]) == (0.5, True, 1.5, 0.9)
    answer = first["assessor"]
    assert (answer["p_incorrect"], answer["trained"], answer["advantage"]) == (0.125, False, None)
    assert (second["place"], second["original"], second["error_type"]) == (1, None, "diagnosis")
    assert second["assessor"]["advantage"] == -0.5


def test_where_nothing_trained_no_reply_did() -> None:
    turns = [turn for row in round_rows(state(True), 2) for turn in (*row["attempts"], row["assessor"])]
    assert [(turn["trained"], turn["advantage"]) for turn in turns] == [(False, None)] * 3


class Letters:
    """A tokenizer whose token ids are places in a list of pieces."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self.pieces = pieces

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.pieces[i] for i in ids)


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["final_answer", ": ", '"', "INC", "ORRECT", '"'], (0.8, 3)),
        (["final_answer", ': "', "C", "ORRECT", '"'], (1 - 0.8, 2)),
        (["final_answer", ": ", '"INC', "ORRECT", '"', "<end>"], (0.8, 2)),
        (["Correct."], None),
        (["final_answer", ": ", '"', "CORRECT", '"', *[" and"] * 60], None),
        ([*["thus "] * 60, "final_answer", ": ", '"', "CORRECT", '"'], (1 - 0.8, 63)),
        ([], None),
    ],
)
def test_p_incorrect_is_that_of_the_word_that_was_said(pieces: list[str], expected: tuple[float, int] | None) -> None:
    first = {i for i, piece in enumerate(pieces) if piece in ("INC", "C", '"INC', "CORRECT")}
    logprobs = [math.log(0.8 if i in first else 0.3) for i in range(len(pieces))]
    found = said_incorrect(list(range(len(pieces))), logprobs, Letters(pieces))
    assert found == ((None, None) if expected is None else (pytest.approx(expected[0]), expected[1]))
    assert said_incorrect(list(range(len(pieces))), None, Letters(pieces)) == (None, None)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (GameSettings(), True),
        (GameSettings(game_log=GameLogSettings(enabled=False)), False),
        (GameSettings(notes=NotesSettings(path="notes.jsonl")), False),
        (GameSettings(notes=NotesSettings(path="notes.jsonl"), game_log=GameLogSettings(enabled=True)), True),
        (GameSettings(validation=ValidationSettings(path="held_out.jsonl")), False),
        (GameSettings(notes=NotesSettings(labelled_path="gold.jsonl")), False),
        (GameSettings(notes=NotesSettings(source="ward")), True),
        (GameSettings(notes=NotesSettings(source="own")), False),
    ],
)
def test_games_are_kept_unasked_where_every_note_is_synthetic(settings: GameSettings, kept: bool) -> None:
    assert keeps_games(settings) is kept


def test_a_run_goes_on_with_the_games_that_count(tmp_path: Path) -> None:
    settings = GameSettings(game_log=GameLogSettings(enabled=True, redact=True, keep_rounds=2))
    log = open_log(settings, tmp_path, 0)
    assert isinstance(log, GameLog)
    for number in (1, 2, 3):
        log.write(number, round_rows(state(), number))
    assert [part.name for part in parts(tmp_path)] == ["round-000002.parquet", "round-000003.parquet"]
    assert b"cough" not in parts(tmp_path)[0].read_bytes()
    switched_off = replace(settings, game_log=GameLogSettings(enabled=False))
    assert open_log(switched_off, tmp_path, 2) is None
    assert [part.name for part in parts(tmp_path)] == ["round-000002.parquet"]
