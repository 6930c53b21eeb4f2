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


@given(LABELS, st.integers(1, 6), st.integers(0, 8).map(lambda half: 2 * half), st.text(max_size=3))
def test_a_wrong_edit_is_asked_beside_its_note_as_it_is_right(
    labels: list[Label | None], notes: int, count: int, seed: str
) -> None:
    """Some notes have several edits, and some edits were made twice."""
    played = [
        Edit(f"note {i % notes}", f"edit {i % 5} of {i % notes}, {label}", label, str(i % notes))
        for i, label in enumerate(labels)
    ]
    replay = Replay()
    replay.see(played)
    asked = replay.questions(count, seed)
    assert asked == replay.questions(count, seed)
    assert len({question.text for question in asked}) == len(asked) <= count
    truth = {edit.modified: edit.truth for edit in played} | {edit.original: Label.CORRECT for edit in played}
    for wrong, right in zip(asked[::2], asked[1::2], strict=True):
        assert (wrong.label, right.label) == (Label.INCORRECT, Label.CORRECT)
        assert wrong.note_id == right.note_id
        assert truth[wrong.text] is wrong.label and truth[right.text] is right.label
        assert belongs(wrong.text, wrong.note_id) and belongs(right.text, right.note_id)
    # A wrong edit is left out only where its note has no other right text left.
    texts = {
        note: [
            {t for t, x in truth.items() if x is label and belongs(t, note)}
            for label in (Label.INCORRECT, Label.CORRECT)
        ]
        for note in {edit.note_id for edit in played}
    }
    assert len(asked) == min(count, 2 * sum(min(map(len, sides)) for sides in texts.values()))


def belongs(text: str, note: str) -> bool:
    return text == f"note {note}" or f" of {note}," in text


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("xyz"), st.sampled_from(list(Label))), max_size=12))
def test_a_text_that_was_ruled_both_ways_is_not_asked(ruled: list[tuple[int, str, Label]]) -> None:
    """Nor one that is another note's original; pairs stay pairs."""
    replay = Replay()
    replay.see([Edit("z" if note == 2 else f"note {note}", text, label, str(note)) for note, text, label in ruled])
    truths = {(text, label) for _, text, label in ruled} | {("z", Label.CORRECT) for note, _, _ in ruled if note == 2}
    disputed = {text for text in "xyz" if {(text, label) for label in Label} <= truths}
    for seed in "abc":
        asked = replay.questions(8, seed)
        assert not {question.text for question in asked} & disputed
        assert [question.label for question in asked] == [Label.INCORRECT, Label.CORRECT] * (len(asked) // 2)


def test_the_right_text_is_an_original_or_a_harmless_edit() -> None:
    replay = Replay()
    replay.see(
        [
            edit
            for i in range(40)
            for edit in (
                Edit(f"note {i}", f"wrong {i}", Label.INCORRECT, str(i)),
                Edit(f"note {i}", f"fine {i}", Label.CORRECT, str(i)),
            )
        ]
    )
    right = Counter(
        question.text.split()[0] for question in replay.questions(80, "1") if question.label is Label.CORRECT
    )
    assert right["note"] + right["fine"] == 40 and min(right.values()) > 8


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
