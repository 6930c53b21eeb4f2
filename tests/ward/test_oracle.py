"""The oracle: benign edits never become errors, wrong facts always do, whatever the mode."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee import RulingKind, make_referee
from medserl.ward.cases import benign_edits, error_edits
from medserl.ward.facts import Fact, reader, tokens
from medserl.ward.generator import ward_cases
from medserl.ward.oracle import OracleReferee
from medserl.ward.table import load_table

TABLE = load_table()
ORACLE = OracleReferee()
TEXT = (
    "A 54-year-old man presents with fever and productive cough for 3 days. Denies dysuria. "
    "Exam shows crackles at the right lung base. Workup shows a right lower lobe infiltrate on chest X-ray. "
    "Assessment: community-acquired pneumonia. Started on ceftriaxone 1 g IV daily."
)


def ruling(old: str, new: str) -> tuple[str, str]:
    assert TEXT.count(old) == 1, old
    found = ORACLE.rule(Note("n", TEXT), Mode.BENIGN, TEXT.replace(old, new))
    return found.kind.value, found.reason


def test_every_edit_whose_truth_the_table_gives_is_ruled_so() -> None:
    for gold in ward_cases("validation", 56, 2):
        note = Note("n", gold.case.text)
        for edit in [*benign_edits(TABLE, gold.case), *error_edits(TABLE, gold.case)]:
            kind = RulingKind.BENIGN if edit.error_type is None else RulingKind.ERROR
            for mode in Mode:
                found = ORACLE.rule(note, mode, edit.apply(gold.case))
                assert found.kind is kind, (found, note.text, edit.sentence.text)


@given(st.integers(0, 1000), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_reformatting_never_becomes_an_error(seed: int, rng: random.Random) -> None:
    """Case, white space, commas and stops between words change no fact."""
    for gold in ward_cases("train", 3, seed):
        words = gold.case.text.split(" ")
        changed = [rng.choice((word, word.upper(), word.lower(), word + " ", word + ",")) for word in words]
        found = ORACLE.rule(Note("n", gold.case.text), Mode.ERROR, " ".join(changed))
        assert found.kind in (RulingKind.BENIGN, RulingKind.VOID), found
        assert found.kind is RulingKind.BENIGN or found.reason == "unknown words"


@pytest.mark.parametrize(
    ("old", "new", "kind", "reason"),
    [
        ("crackles at the right lung base", "crackles at the left lung base", "error", "side"),
        ("Denies dysuria", "Reports dysuria", "error", "negation"),
        ("Denies dysuria", "Denies fever", "error", "negation"),
        ("1 g IV", "10 g IV", "error", "dose"),
        ("1 g IV", "1 mg IV", "error", "dose"),
        ("1 g IV", "1000 mg IV", "benign", "facts that fit"),
        ("1 g IV", "1,000 mg IV", "benign", "facts that fit"),
        ("1 g IV", "2 g IV", "benign", "facts that fit"),
        ("1 g IV", "1 g PO", "error", "route"),
        ("IV daily", "IV TID", "error", "frequency"),
        ("ceftriaxone", "Rocephin", "benign", "same facts"),
        ("ceftriaxone", "fluconazole", "error", "drug"),
        ("community-acquired pneumonia", "CAP", "benign", "same facts"),
        ("community-acquired pneumonia", "pulmonary embolism", "error", "diagnosis"),
        ("for 3 days", "for three days", "benign", "same facts"),
        ("for 3 days", "for 72 hours", "benign", "facts that fit"),
        ("for 3 days", "for 3 months", "void", "duration outside the condition's range"),
        ("fever and productive cough", "productive cough and fever", "benign", "same facts"),
        ("fever and productive cough", "fever and chills", "benign", "facts that fit"),
        ("fever and productive cough", "fever", "lossy", "a fact is lost"),
        ("fever and productive cough", "fever and tremor", "void", "a symptom that the table does not know here"),
        ("IV daily", "IV daily with food", "void", "unknown words"),
        ("54-year-old man", "54-year-old woman", "benign", "facts that fit"),
        ("right lower lobe infiltrate on", "right lower lobe shadow on", "void", "unknown words"),
    ],
)
def test_single_changes(old: str, new: str, kind: str, reason: str) -> None:
    assert ruling(old, new) == (kind, reason)


def test_a_sex_that_cannot_have_the_condition_is_an_error() -> None:
    text = (
        "21 y/o woman presents with pelvic pain and dizziness for 4 hours. Exam shows left adnexal tenderness. "
        "Diagnosed with ruptured ectopic pregnancy. Plan: serial beta-hCG."
    )
    found = ORACLE.rule(Note("n", text), Mode.BENIGN, text.replace("woman", "man"))
    assert (found.kind, found.reason) == (RulingKind.ERROR, "sex")


def test_text_that_is_not_of_the_ward_is_void() -> None:
    found = ORACLE.rule(Note("n", "The weather is fine today."), Mode.ERROR, "The weather is bad today.")
    assert found.kind is RulingKind.VOID


def test_longest_phrase_wins() -> None:
    read = reader(TABLE).sentence
    assert read("Plan: headache diary.").facts == {Fact("management", "headache diary"): 1}
    assert read("Swab positive for influenza A.").facts == {Fact("organism", "influenza A virus"): 1}
    assert read("Diagnosed with influenza.").facts == {Fact("diagnosis", "influenza"): 1}
    assert read("Pulse 66/min, BP 120/80.").facts == {Fact("pulse", "66"): 1, Fact("pressure", "120/80"): 1}


def test_tokens_ignore_case_punctuation_and_thousands() -> None:
    assert tokens("Rx: ASA 1,000 mg (x1); q.d.") == ("rx", "asa", "1000", "mg", "x1", "q", "d")


def test_oracle_is_registered() -> None:
    assert isinstance(make_referee("oracle"), OracleReferee)
