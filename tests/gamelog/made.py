"""Made-up games in the log's own columns, without a model: notes of the ward, and edits of every kind of outcome."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from medserl.game import Note
from medserl.gamelog.kinds import Row, Source
from medserl.gamelog.log import GameLog
from medserl.gamelog.parts import ROUND, VALIDATION
from medserl.ward import ward_notes

HOSTILE = '</script><img src=x onerror="window.pwned = 1"><b>&amp;\'" ${1} <!-- '


@cache
def notes() -> list[Note]:
    return [note for note in ward_notes("train", 60, 7) if note.error_text is not None]


def reply(text: str, reward: float | None, rng: Random, strict: bool = True) -> dict[str, Any]:
    return {
        "reply": text,
        "strict": strict,
        "tokens": len(text.split()),
        "think_tokens": 0,
        "seconds": rng.random(),
        "reward": reward,
        "trained": reward is not None,
        "advantage": None if reward is None else reward / 2,
    }


def attempt(modified: str | None, reason: str | None, reward: float | None, rng: Random) -> dict[str, Any]:
    text = "I cannot do that." if modified is None else f"sentence_id: 1\nnew_sentence: {modified[:60]}"
    edits = None if reason == "unparseable" else 1
    return {"modified": modified, "reason": reason, "word_edits": edits, "jaccard": 0.93} | reply(text, reward, rng)


def assessor(answer: str | None, p: float, right: bool, rng: Random) -> dict[str, Any]:
    reward = -1.0 if answer is None else 1.1 if right else -0.9
    text = "I do not know." if answer is None else f'final_answer: "{answer}"'
    known = {"answer": answer, "form": "no verdict" if answer is None else "strict", "p_incorrect": p}
    return known | {"task_reward": None if answer is None else round(reward - 0.1)} | reply(text, reward, rng)


def game(number: int, place: int, seed: int = 0) -> Row:
    """One game of a round; its kind and outcome follow from the numbers."""
    rng = Random(f"{seed}/{number}/{place}")
    note = notes()[rng.randrange(len(notes()))]
    mode = "error" if place % 2 else "benign"
    row: Row = {"round": number, "source": Source.PLAY.value, "place": place, "note_id": note.note_id, "mode": mode}
    row |= {"error_type": "pharmacotherapy" if mode == "error" and place % 3 == 0 else None, "original": note.text}
    rejected = [attempt(None, "unparseable", None, rng), attempt(note.text, "identical", None, rng)][: place % 3]
    if place % 11 == 0:
        return row | {"attempts": [attempt(note.text + " Stable.", "several_sentences", -0.5, rng)] * 3}
    shown = note.error_text if mode == "error" or place % 6 == 0 else note.text.replace(" with ", " having ", 1)
    assert shown is not None
    row |= {"attempts": [*rejected, attempt(shown, None, rng.choice((0.9, -1.1)), rng)], "shown": shown}
    kind = "void" if place % 13 == 0 else "error" if shown == note.error_text else "benign"
    reason = "instruction" if place % 7 == 2 and kind == mode else "dose"
    row |= {"ruling": kind, "ruling_reason": reason, "second_ruling": "benign" if place % 5 == 0 else kind}
    if kind == "void":
        return row
    truth = "INCORRECT" if kind == "error" else "CORRECT"
    right = rng.random() < 0.7
    answer = truth if right else {"CORRECT": "INCORRECT", "INCORRECT": "CORRECT"}[truth]
    p = rng.uniform(0.5, 1.0) if answer == "INCORRECT" else rng.uniform(0.0, 0.5)
    silent = place % 17 == 0
    row |= {"truth": truth, "injector_task_reward": -1.0 if right else 1.0}
    return row | {"assessor": assessor(None if silent else answer, p, right, rng)}


def held_out(number: int, place: int, source: Source) -> Row:
    rng = Random(f"{source}/{number}/{place}")
    note = notes()[place % len(notes())]
    wrong = place % 2 == 1
    p = rng.random()
    answer = "INCORRECT" if p > 0.5 else "CORRECT"
    truth = "INCORRECT" if wrong else "CORRECT"
    row: Row = {"round": number, "source": source.value, "place": place, "note_id": note.note_id, "truth": truth}
    row |= {"original": note.text, "shown": note.error_text if wrong else note.text, "attempts": []}
    return row | {"assessor": assessor(answer, p, answer == truth, rng)}


def rounds(count: int, games: int) -> Iterator[list[Row]]:
    for number in range(1, count + 1):
        yield [game(number, place) for place in range(games)]


def made_log(run_dir: Path, count: int = 3, games: int = 40, held_out_notes: int = 10) -> Path:
    """A run directory with a log: a validation before the first round and one after the last."""
    run_dir.mkdir(parents=True, exist_ok=True)
    log = GameLog(run_dir)
    log.write(0, [held_out(0, i, Source.GREEDY) for i in range(held_out_notes)], VALIDATION)
    for number, rows in enumerate(rounds(count, games), start=1):
        last = [held_out(number, i, Source.GREEDY) for i in range(held_out_notes)] if number == count else []
        log.write(number, rows + last, ROUND)
    return run_dir
