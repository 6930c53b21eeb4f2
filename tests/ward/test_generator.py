"""Ward notes: reproducible, the right size, split by patient, each with a gold error that the filter accepts."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game.sentences import sentence_texts
from medserl.game.vcf import apply_vcf
from medserl.ward import SPLITS, medec_rows, ward_notes
from medserl.ward.cases import ERROR_TYPES, Patient
from medserl.ward.generator import PATIENT_SPLITS, some_conditions, split_of, ward_cases
from medserl.ward.table import load_table

seeds = st.integers(0, 10_000)


@given(st.integers(1, 55))
def test_more_conditions_are_the_same_ones_and_another(count: int) -> None:
    table = load_table()
    fewer, more = some_conditions(table, count), some_conditions(table, count + 1)
    assert len(fewer) == count and fewer < more <= set(table.conditions)


def test_notes_of_some_conditions_are_those_among_all() -> None:
    table = load_table()
    chosen = some_conditions(table, 14)
    notes = ward_notes("train", 112, 3)
    kept = ward_notes("train", 112, 3, conditions=chosen)
    assert len(kept) == 28 and set(kept) < set(notes)
    assert kept == [
        n for n, c in zip(notes, ward_cases("train", 112, 3), strict=True) if c.case.patient.condition in chosen
    ]


@given(st.sampled_from(SPLITS), seeds)
@settings(max_examples=5, deadline=None)
def test_same_arguments_give_the_same_notes(split: str, seed: int) -> None:
    notes = ward_notes(split, 40, seed)
    assert notes == ward_notes(split, 40, seed)
    assert notes[:20] == ward_notes(split, 20, seed)
    assert notes != ward_notes(split, 40, seed + 1)


@given(st.sampled_from(SPLITS), seeds)
@settings(max_examples=5, deadline=None)
def test_notes_have_the_promised_size_and_a_gold_error_that_passes(split: str, seed: int) -> None:
    for note in ward_notes(split, 60, seed):
        sentences = sentence_texts(note.text)
        assert 3 <= len(sentences) <= 6
        assert 30 <= len(note.text.split()) <= 80
        assert note.error_text is not None
        verdict = apply_vcf(note.text, note.error_text)
        assert verdict.passed, (verdict, note)
        assert note.error_type in ERROR_TYPES
        changed = [(a, b) for a, b in zip(sentences, sentence_texts(note.error_text), strict=True) if a != b]
        assert changed == [(note.corrected_sentence, note.error_sentence)]


def test_sentences_of_a_case_are_those_that_the_game_finds() -> None:
    for gold in ward_cases("train", 400, 3):
        assert sentence_texts(gold.case.text) == [sentence.text for sentence in gold.case.sentences]


def test_no_patient_or_text_is_in_two_splits() -> None:
    """Over several seeds at once: no seed of one split may repeat a patient of another."""
    cases = {split: [gold for seed in range(2) for gold in ward_cases(split, 100, seed)] for split in SPLITS}
    texts = {
        split: {text for gold in found for text in (gold.case.text, gold.error.apply(gold.case))}
        for split, found in cases.items()
    }
    patients = {split: {gold.case.patient for gold in found} for split, found in cases.items()}
    for a, b in itertools.combinations(SPLITS, 2):
        assert not texts[a] & texts[b]
    for a, b in itertools.combinations(PATIENT_SPLITS, 2):
        assert not patients[a] & patients[b]


def test_a_call_repeats_no_patient_and_covers_conditions_evenly() -> None:
    cases = ward_cases("train", 560, 5)
    assert len({gold.case.patient for gold in cases}) == 560
    counts = {gold.case.patient.condition: 0 for gold in cases}
    for gold in cases:
        counts[gold.case.patient.condition] += 1
    assert len(counts) >= 40
    assert max(counts.values()) - min(counts.values()) <= 1


def test_every_error_type_has_a_fair_share() -> None:
    notes = ward_notes("test", 500, 0)
    for error_type in ERROR_TYPES:
        assert sum(note.error_type == error_type for note in notes) >= 25, error_type


def test_a_split_can_be_drawn_to_its_last_patient() -> None:
    """The patients are those of the whole ward that hash into the split; one more is refused."""
    condition = load_table().conditions["testicular torsion"]
    small = replace(load_table(), conditions={condition.name: condition})
    everyone = {
        Patient(condition.name, age, "male", hours, side)
        for age in range(12, 25) for hours in range(2, 9) for side in ("right", "left")
    }  # fmt: skip
    drawn = 0
    for split in PATIENT_SPLITS:
        mine = {patient for patient in everyone if split_of(patient) == split}
        assert {gold.case.patient for gold in ward_cases(split, len(mine), 0, small)} == mine
        with pytest.raises(ConfigError, match="fewer than"):
            ward_cases(split, len(mine) + 1, 0, small)
        drawn += len(mine)
    assert drawn == len(everyone)


@pytest.mark.parametrize(
    ("split", "count", "message"),
    [("dev", 1, "split 'dev'"), ("train", -1, "must not be negative"), ("test", 10**6, "fewer than 1000000 patients")],
)
def test_impossible_requests_are_refused(split: str, count: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ward_notes(split, count, 0)


def test_medec_rows_hold_the_note_and_its_error() -> None:
    notes = ward_notes("validation", 30, 1)
    rows = medec_rows(notes, erroneous=True), medec_rows(notes, erroneous=False)
    for note, wrong, clean in zip(notes, *rows, strict=True):
        assert wrong["Text"] == note.error_text
        assert wrong["Corrected Text"] == clean["Text"] == note.text
        assert (wrong["Error Flag"], clean["Error Flag"], clean["Error Sentence ID"]) == ("1", "0", "-1")
        numbered = wrong["Sentences"].splitlines()[int(wrong["Error Sentence ID"])]
        assert numbered == f"{wrong['Error Sentence ID']} {note.error_sentence}"
