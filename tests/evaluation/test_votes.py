"""From replies to one prediction."""

import pytest

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


def test_a_tie_goes_to_the_first_and_failures_do_not_vote() -> None:
    assert majority([Vote(None, failure="x"), Vote(C), Vote(W)]).answer is C
    assert majority([Vote(W), Vote(C)]).answer is W
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
