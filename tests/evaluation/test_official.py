"""MEDEC's official numbers, against a second computation that works on the official files' own form."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.evaluation.official import correction_cases, rouge1, rouge_scores, sentence_accuracy
from medserl.game.labels import Label
from medserl.game.metrics import confusion

# Made with the package rouge 1.0.1, which the official script uses: get_scores([candidate], [reference]).
ROUGE = [
    (
        "Culture tests indicate Trichomonas vaginalis.",
        "Culture tests indicate Neisseria gonorrhoeae.",
        0.5999999950000001,
    ),
    (
        "The patient was given 2.5 mg of warfarin daily.",
        "The patient was given 5 mg of warfarin daily",
        0.9473684160664821,
    ),
    ("the the the cat", "the cat sat", 0.7999999952000001),
    ("A. . B", "B C", 0.39999999520000007),
    ("Started on Aspirin", "started on aspirin", 0.3333333283333334),
    ("no overlap here", "something else", 0.0),
    ("He was sent home . ", "He was sent home.", 0.8888888839506174),
    ("  spaced   out   words ", "spaced out words", 0.999999995),
]


@pytest.mark.parametrize(("candidate", "reference", "expected"), ROUGE)
def test_rouge1_is_that_of_the_official_package(candidate: str, reference: str, expected: float) -> None:
    assert rouge1(candidate, reference) == pytest.approx(expected, abs=1e-15)


def test_rouge1_of_nothing_but_stops_is_zero() -> None:
    assert rouge1("...", "a") == rouge1("a", "") == 0.0


@given(st.text(alphabet="ab .", max_size=20), st.text(alphabet="ab .", max_size=20))
def test_rouge1_is_a_share(candidate: str, reference: str) -> None:
    assert 0.0 <= rouge1(candidate, reference) <= 1.0


# --------------------------------------------------------------------- a second computation, of files


REFERENCE = """Text ID,Error Flag,Error Sentence ID,Corrected Sentence
ms-val-0,1,5,Culture tests indicate Trichomonas vaginalis.
ms-val-1,0,-1,NA
ms-val-2,1,0,She takes metformin.
ms-val-3,0,-1,NA
ms-val-4,1,2,The left knee is swollen.
ms-val-5,0,-1,NA
ms-val-6,1,3,He is given amoxicillin.
ms-val-7,1,4,Heparin is stopped.
"""
# ms-val-5 and ms-val-6 are missing; -3 is a false alarm; -4 names another sentence; -7 is called clean.
SUBMISSION = """ms-val-0 1 5 Culture tests indicate Trichomonas vaginalis.
ms-val-1 0 -1 NA
ms-val-2 1 0 She takes insulin.

ms-val-3 1 1 No fever was seen.
ms-val-4 1 3 The left knee is swollen.
ms-val-7 0 -1 NA
"""


LABELS = {"0": Label.CORRECT, "1": Label.INCORRECT}


def by_the_files(reference: str, submission: str) -> tuple[float, float, float]:
    """(flag accuracy, sentence accuracy, ROUGE-1 composite), everything compared as the strings of the files."""
    rows = list(csv.DictReader(io.StringIO(reference)))
    lines = {}
    for line in submission.splitlines():
        if match := re.fullmatch(r"(\S+) (\d+) (-?\d+) (.+)", line.strip()):
            lines[match[1]] = match.groups()[1:]
    flags = sentences = 0
    score = 0.0
    for row in rows:
        flag, sentence, correction = lines.get(row["Text ID"], (None, None, None))
        flags += flag == row["Error Flag"]
        sentences += sentence == row["Error Sentence ID"]
        wanted = row["Corrected Sentence"]
        if correction is None:
            continue
        if correction == "NA" or wanted == "NA":
            score += correction == wanted
            continue
        a, b = (set(text.replace(".", " ").split()) for text in (correction, wanted))
        score += 2 * len(a & b) / (len(a) + len(b))
    return flags / len(rows), sentences / len(rows), score / len(rows)


def test_official_numbers_agree_with_the_files() -> None:
    rows = list(csv.DictReader(io.StringIO(REFERENCE)))
    said = [line.split(" ", 3) for line in SUBMISSION.splitlines() if line]
    given = {key: LABELS[flag] for key, flag, *_ in said}
    flag = confusion((LABELS[row["Error Flag"]], given.get(row["Text ID"])) for row in rows).accuracy
    sentence = sentence_accuracy(
        {row["Text ID"]: int(row["Error Sentence ID"]) for row in rows}, {key: int(at) for key, _, at, _ in said}
    )
    cases = correction_cases(
        {row["Text ID"]: row["Corrected Sentence"] for row in rows}, {key: text for key, _, _, text in said}
    )
    expected = by_the_files(REFERENCE, SUBMISSION)
    assert (flag, sentence) == expected[:2] == (4 / 8, 3 / 8)
    assert cases.both_na == 1 and [key for key, _, _ in cases.pairs] == ["ms-val-0", "ms-val-2", "ms-val-4"]
    assert rouge_scores(cases)["composite"] == pytest.approx(expected[2], abs=1e-7)


def test_a_clean_text_counts_at_minus_one_only() -> None:
    assert sentence_accuracy({"a": -1, "b": -1, "c": 3}, {"a": -1, "b": 0, "c": 3}) == 2 / 3


def test_texts_without_an_error_only_and_no_predictions() -> None:
    assert sentence_accuracy({"a": -1, "b": -1}, {"a": -1, "b": -1}) == 1.0
    assert sentence_accuracy({"a": -1, "b": 2}, {}) == 0.0
    assert rouge_scores(correction_cases({"a": None, "b": "NA"}, {"a": None, "b": "NA"}))["composite"] == 1.0


def test_predictions_for_other_texts_do_not_count() -> None:
    assert sentence_accuracy({"a": 1}, {"a": 1, "zz": 0}) == 1.0
    assert correction_cases({"a": "He is well."}, {"zz": "x"}).pairs == ()


def test_quotation_marks_around_a_candidate_are_cut_as_the_script_does() -> None:
    cases = correction_cases(
        {"a": 'He is "well".', "b": "x", "c": "y"}, {"a": '""He is "well"."', "b": '"', "c": '"NA"'}
    )
    assert cases.pairs == (("a", 'He is "well".', 'He is "well".'), ("b", '"', "x"))


IDS = st.integers(-1, 3)


@given(st.dictionaries(st.sampled_from("abcdefgh"), IDS, min_size=1), st.dictionaries(st.sampled_from("abcdefgh"), IDS))
def test_accuracy_is_the_count_of_equal_strings(references: dict[str, int], predictions: dict[str, int]) -> None:
    hits = [key for key in references if str(references[key]) == str(predictions.get(key, "missing"))]
    assert sentence_accuracy(references, predictions) == len(hits) / len(references)
