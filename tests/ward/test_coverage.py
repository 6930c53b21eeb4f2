"""Which of the table's wrong facts play has brought in."""

from medserl.ward.cases import benign_edits, error_edits
from medserl.ward.coverage import facts_made, wrong_facts
from medserl.ward.generator import ward_cases
from medserl.ward.table import load_table


def test_an_error_of_the_table_brings_in_its_own_wrong_fact() -> None:
    table, seen = load_table(), set[str]()
    for gold in ward_cases("train", 60, 3):
        for edit in list(error_edits(table, gold.case))[::7]:
            if edit.slot == "side":
                continue
            slot = edit.sentence.slots[edit.slot]
            name = f"{gold.case.patient.condition}/{edit.slot}/{slot.concept}"
            made = facts_made(gold.case.text, edit.apply(gold.case))
            assert name in wrong_facts()
            assert made == [name], "and no other"
            seen.update(made)
    assert len(seen) > 100
    assert {name.split("/")[1] for name in seen} == {
        "diagnosis", "drug", "dose", "treatment", "management", "organism"
    }  # fmt: skip


def test_a_benign_edit_brings_in_none() -> None:
    table = load_table()
    for gold in ward_cases("train", 20, 4):
        for edit in list(benign_edits(table, gold.case))[::5]:
            assert facts_made(gold.case.text, edit.apply(gold.case)) == []


def test_a_note_of_no_condition_has_no_facts() -> None:
    assert facts_made("He walks.", "He runs.") == []
