"""What the log keeps of a game: one row each, the same columns for a game that trained and a held-out answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from medserl.game import Game, LabelledNote, Role, Trajectory
from medserl.game.parse import AssessorAnswer
from medserl.gamelog.kinds import Row, Source, trusted


@dataclass(frozen=True, slots=True)
class Turn:
    """What one reply cost and brought, which the game itself does not know."""

    seconds: float | None = None
    p_incorrect: float | None = None
    """An assessor's p(INCORRECT), by the probability of the verdict that it said."""
    trained: bool = False
    """Whether the policy was updated on it: not every reply of a round is."""
    advantage: float | None = None
    """Mean over its tokens; None where it did not train."""


_TEXT, _NUMBER, _COUNT = pa.string(), pa.float32(), pa.int32()
_REPLY: list[tuple[str, Any]] = [
    ("reply", _TEXT),
    ("strict", pa.bool_()),
    ("tokens", _COUNT),
    ("think_tokens", _COUNT),
    ("seconds", _NUMBER),
    ("reward", _NUMBER),
    ("trained", pa.bool_()),
    ("advantage", _NUMBER),
]
ATTEMPT = pa.struct(
    [("modified", _TEXT), ("reason", _TEXT), ("word_edits", _COUNT), ("jaccard", _NUMBER), *_REPLY],
)
"""One try of the injector. ``modified``: the edited note, null where the reply could not be read; ``reason``: why the
filter rejected it, null where it did not."""
ASSESSMENT = pa.struct(
    [("answer", _TEXT), ("form", _TEXT), ("p_incorrect", _NUMBER), ("task_reward", _NUMBER), *_REPLY],
)
"""The assessor's reply. ``answer``: CORRECT, INCORRECT, or null; ``form``: how it was stated, or why there is none."""
SCHEMA = pa.schema(
    [
        ("round", _COUNT),
        ("source", _TEXT),
        ("place", _COUNT),
        ("note_id", _TEXT),
        ("mode", _TEXT),
        ("error_type", _TEXT),
        ("original", _TEXT),
        ("shown", _TEXT),
        ("attempts", pa.list_(ATTEMPT)),
        ("ruling", _TEXT),
        ("ruling_reason", _TEXT),
        ("second_ruling", _TEXT),
        ("second_reason", _TEXT),
        ("truth", _TEXT),
        ("injector_task_reward", _NUMBER),
        ("assessor", ASSESSMENT),
    ],
    metadata={"medserl.games": "1"},
)
"""Columns of a part. ``place``: within its round and source, from 0. ``original``: the note before the edit, null where
only one text is known; ``shown``: what the assessor saw, null where it was not asked. ``error_type``: the type that was
asked for, or that a labelled note has. ``truth``: the label that the assessor is judged by."""
TEXTS = ("note_id", "original", "shown", "ruling_reason", "second_reason")
"""Columns that may hold words of a note, or say whose it is."""


def played(
    game: Game,
    number: int,
    place: int,
    turns: Mapping[int, Turn],
    original: str | None = None,
    error_type: str | None = None,
) -> Row:
    """The row of a game of a round.

    Args:
        game: The game.
        number: Its round.
        place: Its place in the round.
        turns: What is known of its trajectories, by their index in ``game.trajectories``; all may be missing.
        original: The note's text before the edit.
        error_type: Of a labelled note; a game knows the type that it was asked for.
    """
    facts = [(trajectory, turns.get(i, Turn())) for i, trajectory in enumerate(game.trajectories)]
    tries = [pair for pair in facts if pair[0].role is Role.INJECTOR]
    assessed = next((pair for pair in facts if pair[0].role is Role.ASSESSOR), None)
    ruling, second = game.ruling, game.second_ruling
    return {
        "round": number,
        "source": _source(game).value,
        "place": place,
        "note_id": game.note_id,
        "mode": None if game.mode is None else game.mode.value,
        "error_type": error_type or game.error_type,
        "original": original,
        "shown": game.accepted,
        "attempts": [_attempt(game, i, *pair) for i, pair in enumerate(tries)],
        "ruling": None if ruling is None else ruling.kind.value,
        "ruling_reason": None if ruling is None else ruling.reason,
        "second_ruling": None if second is None else second.kind.value,
        "second_reason": None if second is None else second.reason,
        "truth": None if game.truth is None else game.truth.value,
        "injector_task_reward": None if game.score is None or game.mode is None else game.score.injector_task,
        "assessor": None if assessed is None else _assessment(game, *assessed),
    }


def _source(game: Game) -> Source:
    if game.mode is not None:
        return Source.PLAY
    return Source.REPLAY if game.replayed else Source.GOLD


def held_out(note: LabelledNote, original: str, answer: AssessorAnswer, reply: str, tokens: int, turn: Turn) -> Row:
    """The row of an answer on a held-out note, which nobody edited and nothing trains on, but for ``round``, ``source``
    and ``place``, which whoever asks knows.

    Args:
        note: What was shown.
        original: The note without its error.
        answer: What the reply says.
        reply: The assessor's reply.
        tokens: Its length.
        turn: What it took.
    """
    assessor = {
        "answer": None if answer.label is None else answer.label.value,
        "form": answer.form.value,
        "p_incorrect": turn.p_incorrect,
        "reply": reply,
        "strict": answer.strict and answer.label is not None,
        "tokens": tokens,
        "seconds": turn.seconds,
        "trained": False,
    }
    return {
        "note_id": note.note_id,
        "error_type": note.error_type,
        "original": original,
        "shown": note.text,
        "attempts": [],
        "truth": note.label.value,
        "assessor": assessor,
    }


def redacted(row: Row) -> Row:
    """A row without any text of its note, nor what would say whose it is: labels, reasons of the filter, numbers."""
    bare = {**row, **dict.fromkeys(TEXTS)}
    if trusted(row):  # a word of ours, which says what the label is worth
        bare["ruling_reason"] = row["ruling_reason"]
    bare["attempts"] = [{**attempt, "reply": None, "modified": None} for attempt in row.get("attempts") or ()]
    if row.get("assessor") is not None:
        bare["assessor"] = {**row["assessor"], "reply": None}
    return bare


def to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table of `SCHEMA`; a column that a row leaves out is null. Halves of surrogate pairs, which a JSON file
    can hold and UTF-8 cannot, become question marks."""
    try:
        return pa.Table.from_pylist(list(rows), schema=SCHEMA)
    except UnicodeEncodeError:
        return pa.Table.from_pylist([_encodable(row) for row in rows], schema=SCHEMA)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _encodable(part) for key, part in value.items()}
    return [_encodable(part) for part in value] if isinstance(value, list) else value


def _reply(trajectory: Trajectory, strict: bool, turn: Turn) -> dict[str, Any]:
    return {
        "reply": trajectory.reply.text,
        "strict": strict,
        "tokens": trajectory.reply.tokens,
        "think_tokens": trajectory.reply.think_tokens,
        "seconds": turn.seconds,
        "reward": trajectory.reward if trajectory.trains else None,
        "trained": turn.trained,
        "advantage": turn.advantage,
    }


def _attempt(game: Game, index: int, trajectory: Trajectory, turn: Turn) -> dict[str, Any]:
    attempt = game.attempts[index]
    verdict = attempt.verdict
    return {
        "modified": attempt.modified,
        "reason": None if verdict.reason is None else verdict.reason.value,
        "word_edits": verdict.word_edits,
        "jaccard": verdict.jaccard,
        **_reply(trajectory, attempt.strict, turn),
    }


def _assessment(game: Game, trajectory: Trajectory, turn: Turn) -> dict[str, Any]:
    assert game.assessor is not None
    return {
        "answer": None if game.assessor.answer is None else game.assessor.answer.value,
        "form": game.assessor.form.value,
        "p_incorrect": turn.p_incorrect,
        "task_reward": None if game.score is None else game.score.assessor_task,
        **_reply(trajectory, game.assessor.strict, turn),
    }
