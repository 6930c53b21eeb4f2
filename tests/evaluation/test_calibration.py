"""Where the verdict stands in a reply, what probability it has, and whether probabilities come true."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation.calibration import (
    brier,
    calibration_metrics,
    dressed_place,
    expected_calibration_error,
    probability_incorrect,
    reliability,
    verdict_place,
)
from medserl.game.labels import Label

C, W = Label.CORRECT, Label.INCORRECT


@pytest.mark.parametrize(
    ("pieces", "token", "before", "label"),
    [
        (["final_answer", ":", ' "', "IN", "CORRECT", '"'], 3, "", W),
        (["final_answer:", ' "C', "ORRECT", '"'], 1, ' "', C),
        (['final_answer: "CORRECT"'], 0, 'final_answer: "', C),
        (['final_answer: "CORRECT"', "\n", 'final_answer: "', "INCORRECT", '"'], 3, "", W),
    ],
)
def test_the_last_verdict_is_found(pieces: list[str], token: int, before: str, label: Label) -> None:
    place = verdict_place(pieces)
    assert place is not None and (place.token, place.before, place.label) == (token, before, label)


@pytest.mark.parametrize("pieces", [[], ["The note is CORRECT."], ["final_answer: ", "CORRECT"]])
def test_no_verdict_no_place(pieces: list[str]) -> None:
    assert verdict_place(pieces) is None


@pytest.mark.parametrize(
    ("pieces", "token", "before", "label"),
    [
        (["IN", "CORRECT"], 0, "", W),
        (["**", "Correct", ".**"], 1, "", C),
        (["INCORRECT\n", "INCORRECT"], 1, "", W),
        (["Incorrect? No.\n", "final", " answer", ":", " in", "correct"], 4, " ", W),
        (['{"', "final_answer", '":', ' "', "IN", 'CORRECT", "reason": "The correct dose"}'], 4, "", W),
        (["<answer>", "CORRECT", "</answer>"], 1, "", C),
        (['final_answer: "', "CORRECT", '"\ncorrected_sentence: NA'], 1, "", C),
    ],
)
def test_a_verdict_in_another_form_has_a_place(pieces: list[str], token: int, before: str, label: Label) -> None:
    place = dressed_place(pieces, alone=len(pieces) < 4 and "<" not in pieces[0])
    assert place is not None and (place.token, place.before, place.label) == (token, before, label)
    assert place.quoted is ('final_answer: "' in pieces[0])
    assert dressed_place(["The dose is", " incorrect"], alone=False) is None


def test_without_quotes_any_case_counts() -> None:
    logprobs = {"IN": math.log(0.3), "Inc": math.log(0.1), "correct": math.log(0.2), "Correct": math.log(0.2)}
    assert probability_incorrect(logprobs, "", quoted=False) == pytest.approx(0.5)
    assert probability_incorrect(logprobs, "") == 1.0  # only "IN" begins a word of the strict form


def test_probability_sums_every_token_that_begins_a_word() -> None:
    logprobs = {"IN": math.log(0.3), "I": math.log(0.1), "C": math.log(0.2), "COR": math.log(0.2), "x": math.log(0.2)}
    assert probability_incorrect(logprobs, "") == pytest.approx(0.5)
    assert probability_incorrect({' "I': math.log(0.6), ' "COR': math.log(0.2), " '": -3.0}, ' "') == pytest.approx(
        0.75
    )
    assert probability_incorrect({'INCORRECT"\n': -0.1}, "") == 1.0
    assert probability_incorrect({"maybe": -0.1, "": -1.0, '"': -1.0}, "") is None


def test_a_hand_made_reliability_table() -> None:
    labels, said = [C, W, W, C], [0.05, 0.95, 1.0, 0.95]
    table = reliability(labels, said)
    assert [row.n for row in table] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 3]
    assert table[9].share_incorrect == pytest.approx(2 / 3)
    assert expected_calibration_error(table) == pytest.approx(0.25 * 0.05 + 0.75 * (2.9 / 3 - 2 / 3))
    assert brier(labels, said) == pytest.approx((0.05**2 + 0.05**2 + 0 + 0.95**2) / 4)


def test_texts_without_a_probability_are_left_out_and_counted() -> None:
    found = calibration_metrics([C, W, W], [0.0, None, 1.0])
    assert found["n"] == 2 and found["brier"] == 0 and found["ece"] == 0 and found["brier_of_base_rate"] == 0.25


def test_honest_probabilities_are_calibrated_and_boasting_ones_are_not() -> None:
    rng = random.Random(0)
    said = [rng.random() for _ in range(5000)]
    labels = [W if rng.random() < p else C for p in said]
    boast = [float(p > 0.5) for p in said]
    assert expected_calibration_error(reliability(labels, said)) < 0.03
    assert expected_calibration_error(reliability(labels, boast)) > 0.15
    assert brier(labels, said) < brier(labels, boast)


@given(st.lists(st.tuples(st.sampled_from([C, W]), st.floats(0, 1)), min_size=1, max_size=30))
def test_every_text_is_in_one_bin(pairs: list[tuple[Label, float]]) -> None:
    table = reliability([a for a, _ in pairs], [p for _, p in pairs])
    assert sum(row.n for row in table) == len(pairs)
    assert all(row.low - 1e-9 <= row.mean_probability <= row.high + 1e-9 for row in table if row.n)
    assert 0 <= expected_calibration_error(table) <= 1
