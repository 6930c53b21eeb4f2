"""Edits that are asked about again."""

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from medserl.game import Label
from medserl.game.explored import Edit
from medserl.game.replay import Replay

LABELS = st.lists(st.sampled_from([Label.CORRECT, Label.INCORRECT, None]), max_size=12)


def edits(labels: list[Label | None]) -> list[Edit]:
    return [Edit(f"note {i}", f"edit {i} of it", label, str(i)) for i, label in enumerate(labels)]


@given(LABELS, st.integers(0, 8).map(lambda half: 2 * half), st.text(max_size=3))
def test_questions_are_balanced_and_rightly_labelled(labels: list[Label | None], count: int, seed: str) -> None:
    replay, played = Replay(), edits(labels)
    replay.see(played)
    asked = replay.questions(count, seed)
    assert asked == replay.questions(count, seed)
    wrong = [question for question in asked if question.label is Label.INCORRECT]
    assert len(wrong) * 2 == len(asked) == 2 * min(count // 2, labels.count(Label.INCORRECT))
    assert len({question.text for question in asked}) == len(asked)
    truth = {edit.modified: edit.truth for edit in played} | {edit.original: Label.CORRECT for edit in played}
    for question in asked:
        assert truth[question.text] is question.label
        assert question.text in (f"note {question.note_id}", f"edit {question.note_id} of it")
    originals = {question.note_id for question in asked if question.text.startswith("note")}
    assert originals <= {question.note_id for question in wrong}
    benign = len(asked) - len(wrong) - len(originals)
    assert benign == min(len(wrong) // 2, labels.count(Label.CORRECT))


def test_every_edit_gets_its_turn_and_the_oldest_are_forgotten() -> None:
    replay = Replay(limit=6)
    replay.see(edits([Label.INCORRECT] * 10))
    asked = Counter(q.note_id for seed in range(60) for q in replay.questions(4, str(seed)))
    assert set(asked) == set("456789") and min(asked.values()) > 20
    assert len(replay) == 6


def test_it_goes_on_where_it_was_saved() -> None:
    replay, other = Replay(), Replay()
    replay.see(edits([Label.INCORRECT, Label.CORRECT, None, Label.INCORRECT]))
    other.see(edits([Label.CORRECT]))
    other.load_state_dict(json.loads(json.dumps(replay.state_dict())))
    assert other.questions(4, "x") == replay.questions(4, "x") != []
    assert len(other) == 3
