"""Whether a model is ready for self-play: what is asked of it, and what is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from medserl.evaluation import engine, readiness
from medserl.evaluation.readiness import chosen_notes
from medserl.game.demonstrations import edit_answer, verdict_answer
from medserl.game.labels import Label
from medserl.game.phrase import phrase_answer
from tests.preflight.models import make_model

MORE = " ".join(f"Finding{i} of examination{i} was normal{i} on day{i} of month{i} here{i}." for i in range(5))
NOTE = "The patient is {} years old and has {} since childhood. He takes salbutamol daily. " + MORE
PAIRS = [
    {"note_id": f"n{i}", "correct_note": NOTE.format(i, "asthma"), "incorrect_note": NOTE.format(i, "anemia")}
    for i in range(4)
]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    file = tmp_path / "notes.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    return file


class Model:
    """Edits the second sentence of every note but those it leaves as they are; says CORRECT, once without the form."""

    def __init__(
        self, model: Path, options: dict[str, Any], decoding: engine.Decoding, expected: Sequence[Any]
    ) -> None:
        assert decoding.temperature == 1.0 and len(expected) == 4 + 8

    def __call__(self, chats: Sequence[Any]) -> list[str]:
        if "sentence_id" in chats[0][-1]["content"]:
            edited = "He takes prednisolone daily."
            return [edit_answer(1, edited if i else "He takes salbutamol daily.") for i, _ in enumerate(chats)]
        if "old_phrase" in chats[0][-1]["content"]:
            return [phrase_answer("salbutamol", "prednisolone" if i else "salbutamol") for i, _ in enumerate(chats)]
        forms = [verdict_answer(Label.CORRECT), "CORRECT", "I do not know."]
        return [forms[min(i, 2)] for i, _ in enumerate(chats)]


@pytest.mark.parametrize(
    ("changed", "accepted"),
    [
        ([], 3),  # phrases, as real_cpu.yaml has it
        (["medserl.injector_format=edit"], 3),
        (["medserl.injector_format=note"], 0),  # what it replies is no whole note
        (["medserl.vcf.min_jaccard=0.98"], 0),
    ],
)
def test_what_is_counted_by_the_rules_that_are_configured(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch, changed: list[str], accepted: int
) -> None:
    monkeypatch.setattr(engine, "Chat", Model)
    monkeypatch.setattr(engine, "prepare_device", lambda config: "cpu")
    model, out = make_model(tmp_path / "model"), tmp_path / "out.json"
    assert readiness.main([str(model), str(notes), "--count", "9", "--out", str(out), *changed]) == 0
    found = json.loads(out.read_text())
    assert (found["notes"], found["first_accepted"], found["accepted"]) == (4, accepted, accepted)
    assert sum(found["rejections"].values()) == 4 - accepted
    assert (found["texts"], found["parsed"], found["strict"], found["verdicts"]) == (8, 2, 1, {"CORRECT": 2})


def test_notes_with_a_gold_error_come_first_in_an_order_that_the_seed_draws(notes: Path) -> None:
    with notes.open("a") as file:
        file.write(json.dumps({**PAIRS[0], "note_id": "plain", "incorrect_note": None}) + "\n")
    drawn = [chosen_notes(notes, 5, seed) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len({tuple(n.note_id for n in own) for own in drawn}) > 1
    assert all(own[-1].note_id == "plain" for own in drawn)
    assert len(chosen_notes(notes, 2, 0)) == 2
