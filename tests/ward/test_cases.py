"""Edits whose truth is known: a benign edit keeps every fact, an error changes exactly one."""

import random
from collections.abc import Iterator

from medserl.game.vcf import apply_vcf
from medserl.ward.cases import Case, Edit, benign_edits, dose_phrases, error_edits, phrasings, wrong_doses
from medserl.ward.generator import benign_edit, ward_cases
from medserl.ward.table import load_table

TABLE = load_table()
CASES = [gold.case for gold in ward_cases("train", 112, 11)]


def changed_facts(case: Case, edit: Edit) -> list[str]:
    before, after = case.sentences[edit.index].slots, edit.sentence.slots
    return [name for name in before if before[name].concept != after[name].concept]


def all_edits(case: Case) -> Iterator[Edit]:
    yield from benign_edits(TABLE, case)
    yield from error_edits(TABLE, case)


def test_benign_edits_keep_every_fact_and_errors_change_one() -> None:
    for case in CASES:
        for edit in all_edits(case):
            expected = [] if edit.error_type is None else [edit.slot]
            assert changed_facts(case, edit) == expected
            assert edit.apply(case) != case.text


def test_errors_never_say_the_truth_in_other_words() -> None:
    for case in CASES:
        for edit in error_edits(TABLE, case):
            right, wrong = case.sentences[edit.index].slots[edit.slot], edit.sentence.slots[edit.slot]
            assert wrong.phrase not in phrasings(TABLE, right)


def test_sides_change_only_where_another_sentence_gives_the_side() -> None:
    swaps = [(case, edit) for case in CASES for edit in error_edits(TABLE, case) if edit.slot == "side"]
    assert swaps
    for case, edit in swaps:
        others = [s for i, s in enumerate(case.sentences) if i != edit.index and s.has_side]
        assert others
        assert all(s.slots["side"].concept != edit.sentence.slots["side"].concept for s in others)


def test_wrong_doses_lie_far_outside_the_range() -> None:
    for condition in TABLE.conditions.values():
        if condition.drug:
            doses = wrong_doses(TABLE, condition.drug)
            assert doses
            assert all(not condition.drug.low / 2 <= dose <= condition.drug.high * 2 for dose in doses)


def test_doses_are_written_as_notes_write_them() -> None:
    assert dose_phrases(0.4) == ("0.4",)
    assert dose_phrases(1500.0) == ("1500", "1,500")


def test_nearly_every_note_has_a_benign_edit_that_the_filter_accepts() -> None:
    rng = random.Random(0)
    edits = [(case, benign_edit(TABLE, case, rng)) for case in CASES]
    assert sum(edit is not None for _, edit in edits) >= 0.98 * len(CASES)
    assert all(apply_vcf(case.text, edit.apply(case)).passed for case, edit in edits if edit)
