"""What an injector has tried: distinct and new changes, and which errors play has covered."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.game.explored import WINDOW, Edit, Explored, change_of
from medserl.game.labels import Label

NOTE = "Pain in the left knee. Given 5 mg."
RIGHT, FIFTY, SIX = (NOTE.replace(*words) for words in (("left", "right"), ("5 mg", "50 mg"), ("5 mg", "6 mg")))


def error(modified: str, original: str = NOTE) -> Edit:
    return Edit(original, modified, Label.INCORRECT)


def test_a_change_is_the_words_that_went_and_came_in_whatever_note() -> None:
    assert change_of(NOTE, RIGHT) == change_of("The LEFT arm hurts.", "The right, arm hurts.")
    assert len({change_of(NOTE, RIGHT), change_of(RIGHT, NOTE), change_of(NOTE, FIFTY), change_of(NOTE, SIX)}) == 4


@given(st.lists(st.sampled_from("abcd"), min_size=1), st.integers(0, 9))
def test_the_words_around_a_change_play_no_part(words: list[str], place: int) -> None:
    before, after = list(words), list(words)
    before.insert(place % (len(words) + 1), "old")
    after.insert(place % (len(words) + 1), "new")
    assert change_of(" ".join(before), " ".join(after)) == change_of("old", "new")


def test_distinct_and_new_edits_of_a_round() -> None:
    explored = Explored()
    first = explored.see([error(RIGHT), error(RIGHT), error(FIFTY), Edit(NOTE, SIX, None)])
    assert (first["edit/distinct"], first["edit/novel_rate"], first["edit/errors_so_far"]) == (3, 1.0, 2)
    second = explored.see([error(RIGHT), error(SIX), Edit(NOTE, NOTE.replace("Given", "Takes"), Label.CORRECT)])
    assert (second["edit/distinct"], second["edit/novel_rate"], second["edit/errors_so_far"]) == (3, 1 / 3, 3)
    assert math.isnan(second["edit/table_coverage"]), "no facts are known"
    assert math.isnan(explored.see([])["edit/novel_rate"])


def test_a_change_is_new_again_after_the_window() -> None:
    explored = Explored()
    explored.see([error(RIGHT)])
    for _ in range(WINDOW - 1):
        explored.see([])
    assert explored.see([error(RIGHT)])["edit/novel_rate"] == 0.0
    for _ in range(WINDOW):
        explored.see([])
    assert explored.see([error(RIGHT)])["edit/novel_rate"] == 1.0


def test_only_what_was_called_an_error_covers_one() -> None:
    explored = Explored()
    explored.see([error(RIGHT), Edit(NOTE, FIFTY, Label.CORRECT), Edit(NOTE, SIX, None)])
    assert [explored.covers(NOTE, edit) for edit in (RIGHT, FIFTY, SIX)] == [True, False, False]
    assert explored.covers("Her left eye.", "Her right eye.")


def test_known_facts_are_counted_once_and_by_errors_only() -> None:
    explored = Explored(lambda original, modified: [modified.split()[-2]], possible=4)
    assert explored.see([error(FIFTY), error(FIFTY), Edit(NOTE, SIX, Label.CORRECT)])["edit/table_coverage"] == 1 / 4
    assert explored.see([error(SIX)])["edit/table_coverage"] == 2 / 4


def test_the_state_comes_back_and_holds_no_word_of_a_note() -> None:
    explored = Explored()
    explored.see([error(RIGHT), error(FIFTY)])
    state = json.dumps(explored.state_dict())
    assert not any(word in state for word in ("left", "right", "knee"))
    again = Explored()
    again.load_state_dict(json.loads(state))
    assert again.state_dict() == explored.state_dict()
    assert again.see([error(RIGHT), error(SIX)]) == pytest.approx(explored.see([error(RIGHT), error(SIX)]), nan_ok=True)
