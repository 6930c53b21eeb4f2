"""The sentence that leads a report, and the totals below it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.game import Reason
from medserl.report.held_out import answer, besides, held_out
from medserl.report.round_totals import MEANING, REST, rejections, seconds

METRIC = "val/greedy/balanced_accuracy"


def judged(number: int, correct: float, incorrect: float, texts: int = 100) -> dict[str, Any]:
    return {
        "round": number,
        METRIC: (correct + incorrect) / 2,
        "val/greedy/recall_correct": correct,
        "val/greedy/recall_incorrect": incorrect,
        "val/texts_correct": float(texts),
        "val/texts_incorrect": float(texts),
    }


@pytest.mark.parametrize(
    ("rows", "begins"),
    [
        (
            [judged(0, 1.0, 0.2), judged(30, 0.9, 0.7)],
            "It works: balanced accuracy (greedy) on 200 held-out texts went",
        ),
        ([judged(0, 0.9, 0.7), judged(30, 1.0, 0.1)], "It got worse: balanced accuracy"),
        ([judged(0, 0.6, 0.6), judged(30, 0.6, 0.65)], "No change can be told from noise: balanced accuracy"),
        ([judged(0, 0.6, 0.6)], "Balanced accuracy (greedy) on 200 held-out texts was judged once, 0.600 (95 %"),
        ([{"round": 1, "mean_reward": 0.9}], "Nothing was judged on held-out notes"),
        ([{"round": 1, METRIC: float("nan")}], "Nothing was judged on held-out notes"),
        (
            [{"round": 0, METRIC: 0.5}, {"round": 9, METRIC: 0.9}],
            "Balanced accuracy (greedy) on the held-out notes went",
        ),
    ],
)
def test_the_report_leads_with_the_answer(rows: list[dict[str, Any]], begins: str) -> None:
    sentence = answer(held_out(rows))
    assert sentence.startswith(begins), sentence
    if "went" in sentence:
        assert "guessing gives 0.5" in sentence


def test_numbers_of_the_answer() -> None:
    found = held_out([judged(0, 1.0, 0.2), judged(10, 0.9, 0.8), judged(30, 0.9, 0.7)])
    assert found is not None
    assert "went from 0.600 (round 0) to 0.800 (round 30), a change of +0.200 (95 % interval" in answer(found)
    assert found.best.round == 10 and found.best.value == pytest.approx(0.85)


def ranked(number: int, correct: float, incorrect: float, auc: float) -> dict[str, Any]:
    return judged(number, correct, incorrect) | {
        "val/greedy/auc": auc,
        "val/sampled/balanced_accuracy": 0.5 + number / 100,
    }


def test_the_answer_says_whether_a_better_threshold_is_all_of_it() -> None:
    rows = [ranked(0, 1.0, 0.2, 0.84), ranked(30, 0.85, 0.73, 0.84)]
    sampled, auc = besides(rows, held_out(rows))
    assert sampled == "Balanced accuracy (sampled) went from 0.500 to 0.800."
    # Hanley and McNeil's standard error for 0.84 and a hundred of each is 0.0284; of a difference, 0.0401.
    assert "AUC, which needs no threshold, went from 0.840 to 0.840, a change of +0.000 (95 % interval -0.079" in auc
    assert auc.endswith("So the gain may lie in how readily the model says INCORRECT, not in telling the notes apart.")
    rows[1]["val/greedy/auc"] = 0.98
    assert besides(rows, held_out(rows))[1].endswith(" to +0.199).")
    assert held_out(rows, "val/greedy/auc").verdict == "better"  # type: ignore[union-attr]
    assert besides(rows[:1], held_out(rows[:1])) == [] and besides([], None) == []


@settings(max_examples=60)
@given(values=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6), texts=st.integers(1, 500))
def test_intervals_are_finite_and_the_best_is_the_first_of_the_greatest(
    values: list[tuple[float, float]], texts: int
) -> None:
    rows = [judged(number, *recalls, texts) for number, recalls in enumerate(values)]
    found = held_out(rows)
    assert found is not None and found.texts == 2 * texts
    assert all(point.half is not None and 0 < point.half < 1 for point in found.points)
    greatest = max(row[METRIC] for row in rows)
    assert found.best.round == next(row["round"] for row in rows if row[METRIC] == greatest)


def test_the_interval_covers_in_nineteen_of_twenty_and_noise_is_seldom_called_progress() -> None:
    random.seed(5)
    verdicts, covered = Counter[str](), 0
    for _ in range(400):
        rows = [
            judged(n, *(sum(random.random() < share for _ in range(100)) / 100 for share in (0.95, 0.4)))
            for n in (0, 9)
        ]
        found = held_out(rows)
        assert found is not None
        verdicts[found.verdict] += 1
        end = found.points[-1]
        assert end.half is not None
        covered += abs(end.value - 0.675) <= end.half
    assert covered >= 400 * 0.92
    assert verdicts["better"] + verdicts["worse"] <= 400 * 0.09


def test_every_reason_has_words() -> None:
    assert {reason.value for reason in Reason} <= set(MEANING)


def test_reasons_and_seconds_are_added_up() -> None:
    rows: list[dict[str, Any]] = [{"round": 0, "validation": True, "timing_s/validate": 9.0}]
    for number in range(1, 7):
        rows.append(
            {"round": number, "vcf_rejections/leak": number, "vcf_rejections/empty": 0.0, "timing_s/gen": 2.0}
            | {"timing_s/step": 5.0, "timing_s/validate": float("nan")}
        )
    assert rejections(rows) == [("leak", MEANING["leak"], 21, 3, 11)]
    assert seconds(rows) == [("playing the games", 12.0), (REST, 18.0)]
    assert seconds([]) == [] and rejections([]) == []
