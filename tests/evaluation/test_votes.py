"""From replies to one prediction."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation.metrics import classification_metrics
from medserl.evaluation.votes import Vote, majority, mean_over_votes, parse_vote
from medserl.game.labels import Label
from medserl.game.reply import Form

C, W = Label.CORRECT, Label.INCORRECT
FULL = 'final_answer: "INCORRECT"\nerror_sentence_id: 1\ncorrected_sentence: He takes insulin.'


def test_flag_and_full_replies() -> None:
    assert parse_vote('final_answer: "CORRECT"', "flag", 3).answer is C
    assert "final_answer" in (parse_vote("It is CORRECT.", "flag", 3).failure or "")
    vote = parse_vote(FULL, "full", 3)
    assert (vote.answer, vote.sentence_id, vote.correction) == (W, 1, "He takes insulin.")
    assert "not among" in (parse_vote(FULL, "full", 1).failure or "")


def test_the_majority_and_its_commonest_sentence() -> None:
    votes = [Vote(C, -1), Vote(W, 2, "a", p_incorrect=0.9), Vote(W, 4, "b", p_incorrect=0.5), Vote(W, 4, "c")]
    found = majority(votes)
    assert (found.answer, found.sentence_id, found.correction) == (W, 4, "b")
    assert found.p_incorrect == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("p_correct", "p_incorrect", "wanted"),
    [(0.49, 0.99, W), (0.01, 0.51, C), (0.5, 0.5, C), (None, 0.9, W), (0.2, None, C), (None, None, C)],
)
def test_the_mean_probability_decides_a_tie(p_correct: float | None, p_incorrect: float | None, wanted: Label) -> None:
    votes = [Vote(C, p_incorrect=p_correct), Vote(W, p_incorrect=p_incorrect)]
    assert majority(votes).answer is majority(votes[::-1]).answer is wanted
    assert majority([*votes, Vote(None, failure="x")]).answer is wanted


VOTES = st.builds(
    Vote,
    st.sampled_from([C, W, None]),
    st.integers(-1, 2) | st.none(),
    st.sampled_from(["a", "b", None]),
    p_incorrect=st.none() | st.floats(0, 1),
    failure=st.sampled_from(["x", "y"]),
)


@given(st.lists(VOTES, min_size=1, max_size=6), st.randoms())
def test_the_order_of_the_replies_does_not_matter(votes: list[Vote], random: Random) -> None:
    mixed = list(votes)
    random.shuffle(mixed)
    assert majority(mixed) == majority(votes)


def test_a_tie_of_sentences_goes_to_the_surer() -> None:
    votes = [Vote(W, 2, "a", p_incorrect=0.6), Vote(W, 4, "b", p_incorrect=0.9), Vote(C, -1, p_incorrect=0.4)]
    assert (majority(votes).sentence_id, majority(votes[::-1]).sentence_id) == (4, 4)


def test_failures_do_not_vote() -> None:
    assert majority([Vote(None, failure="x"), Vote(None, failure="x"), Vote(W)]).answer is W
    nothing = majority([Vote(None, failure="x"), Vote(None, failure="y")])
    assert nothing.answer is None and nothing.failure == "x" and nothing.p_incorrect is None
    with pytest.raises(ValueError, match="no votes"):
        majority([])


def test_the_mean_over_single_replies() -> None:
    labels = [C, W]
    votes = [(Vote(C), Vote(W)), (Vote(W), Vote(W))]
    found = mean_over_votes(votes, lambda given: classification_metrics(labels, given))
    assert found["accuracy"] == 0.75 and found["recall_correct"] == 0.5


@pytest.mark.parametrize("output_format", ["flag", "full"])
def test_reasoning_that_the_prompt_opened_and_nobody_closed_is_no_vote(output_format: str) -> None:
    reply = FULL if output_format == "full" else FULL.partition("\n")[0]
    assert parse_vote(reply, output_format, 3).answer is W
    assert parse_vote(f"x</think>{reply}", output_format, 3, opened=True).form is Form.STRICT
    vote = parse_vote(reply, output_format, 3, opened=True)
    assert vote.answer is None and "reasoning" in (vote.failure or "")
    assert parse_vote("CORRECT", "flag", 3, opened=True).form is Form.UNFINISHED
