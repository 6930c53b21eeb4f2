"""Held-out phrasings: in every note of test_heldout, in no other note, and no concept is left without a choice."""

from dataclasses import replace
from itertools import islice

import pytest

from medserl.errors import ConfigError
from medserl.game.prompts import load_prompt_set
from medserl.ward import ward_notes
from medserl.ward.cases import benign_edits, error_edits
from medserl.ward.demonstrations import Mixture, demonstration_batches
from medserl.ward.generator import PATIENT_SPLITS, split_of, ward_cases
from medserl.ward.heldout import conditions_with_unseen, held_out, says, seen_table
from medserl.ward.table import Table, load_table
from medserl.ward.tokenizer import build_tokenizer, table_texts

pytestmark = pytest.mark.engine  # seconds each: too long for the quick tests

TABLE = load_table()
UNSEEN = held_out(TABLE)
SEEDS = (0, 1, 7, 11)


def decisive(table: Table) -> dict[tuple[str, str], tuple[str, ...]]:
    """All phrasings of every concept that a verdict can rest on, by field and canonical phrase."""
    fields = ("diagnosis", "management", "treatment", "drug", "organism")
    found = {(field, name): phrases for field in fields for name, phrases in table.concepts[field].items()}
    for c in table.conditions.values():
        found[("test", c.test[0])] = c.test
        found.update({("finding", phrases[0]): phrases for phrases in c.exam})
    return found


def held_phrases(text: str) -> list[str]:
    return [phrase for _, phrase in UNSEEN if says(text, phrase)]


def test_about_a_tenth_of_the_other_phrasings_is_held_out() -> None:
    others = sum(len(phrases) - 1 for phrases in decisive(TABLE).values())
    assert 0.07 <= len(UNSEEN) / others <= 0.14
    assert {field for field, _ in UNSEEN} >= {"diagnosis", "management", "drug", "organism"}
    assert len(conditions_with_unseen(TABLE)) >= len(TABLE.conditions) // 2


def test_every_concept_keeps_its_canonical_phrasing_and_another() -> None:
    seen = decisive(seen_table(TABLE))
    for (field, name), phrases in decisive(TABLE).items():
        left = seen[(field, name)]
        assert left[0] == name
        assert len(left) >= 2
        assert set(phrases) - set(left) == {phrase for phrase in phrases if (field, phrase) in UNSEEN}


def test_the_choice_does_not_depend_on_the_rest_of_the_table() -> None:
    conditions = dict(islice(TABLE.conditions.items(), 10))
    diagnoses = {name: TABLE.concepts["diagnosis"][name] for name in conditions}
    smaller = replace(TABLE, conditions=conditions, concepts={**TABLE.concepts, "diagnosis": diagnoses})
    ours = {(field, phrase) for field, phrase in UNSEEN if field == "diagnosis" and
            any(phrase in phrases for phrases in diagnoses.values())}  # fmt: skip
    assert ours <= held_out(smaller) <= UNSEEN


def test_seen_table_holds_out_nothing_more() -> None:
    seen = seen_table(TABLE)
    assert held_out(seen) == frozenset()
    assert seen_table(seen) is seen


@pytest.mark.parametrize("split", PATIENT_SPLITS)
def test_no_note_of_another_split_has_a_held_out_phrasing(split: str) -> None:
    """Nor has any edit that the demonstrations make of its cases."""
    for seed in SEEDS:
        for gold in ward_cases(split, 200, seed):
            for text in (gold.case.text, gold.error.apply(gold.case)):
                assert not held_phrases(text), text
    world = seen_table(TABLE)
    for gold in ward_cases(split, 20, 5):
        for edit in (*benign_edits(world, gold.case), *error_edits(world, gold.case)):
            assert not held_phrases(edit.sentence.text), edit.sentence.text


def test_no_demonstration_has_a_held_out_phrasing() -> None:
    cases = ward_cases("train", 300, 1)
    batches = demonstration_batches(TABLE, cases, load_prompt_set("ward"), Mixture(), 1)
    for batch in islice(batches, 6):
        for demonstration in batch:
            assert not held_phrases(demonstration.messages[-1]["content"])
            assert not held_phrases(demonstration.answer)


def test_every_note_of_test_heldout_says_a_fact_in_a_held_out_phrasing() -> None:
    """In both of its variants, so that the phrasing is no sign of the answer."""
    phrases = set()
    for seed in SEEDS:
        for note in ward_notes("test_heldout", 150, seed):
            assert note.error_text is not None
            assert held_phrases(note.text), note
            assert held_phrases(note.error_text), note
            phrases.update(held_phrases(note.text))
    assert len(phrases) >= 0.9 * len(UNSEEN)


def test_test_heldout_has_test_patients() -> None:
    cases = ward_cases("test_heldout", 300, 2)
    assert {split_of(gold.case.patient) for gold in cases} == {"test"}
    assert len({gold.case.patient for gold in cases}) == len(cases)
    assert {gold.case.patient.condition for gold in cases} == conditions_with_unseen(TABLE)


def test_a_table_without_held_out_phrasings_has_no_such_split() -> None:
    condition = TABLE.conditions["testicular torsion"]
    small = replace(TABLE, conditions={condition.name: condition})
    assert not conditions_with_unseen(small)
    with pytest.raises(ConfigError, match="test_heldout split has fewer than 1 "):
        ward_cases("test_heldout", 1, 0, small)


def test_a_phrase_is_said_only_by_its_words_in_order() -> None:
    assert says("Assessment: DVT.", "DVT")
    assert says("Exam shows L basal  crackles.", "{side} basal crackles")
    assert not says("Assessment: DVTs.", "DVT")
    assert not says("Crackles basal.", "basal crackles")


def test_tokenizer_has_every_word_of_the_table_as_one_token() -> None:
    texts = [note.text for note in ward_notes("train", 60, 0)] * 2
    tokenizer = build_tokenizer([*texts, *table_texts(TABLE)])
    phrases = {phrase for named in TABLE.concepts.values() for group in named.values() for phrase in group}
    phrases |= {phrase for c in TABLE.conditions.values() for group in (*c.exam, c.test) for phrase in group}
    assert phrases >= {phrase for _, phrase in UNSEEN}
    for phrase in phrases:
        text = f" {phrase.format(side='left')}."
        assert len(tokenizer.encode(text).ids) == len(tokenizer.pre_tokenizer.pre_tokenize_str(text)), phrase
    assert len(tokenizer.encode(" decompensated heart failure").ids) == 3
