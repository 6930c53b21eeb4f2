"""Which of the table's wrong facts an edit brought into a ward note: how much of what could be tried has been."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from medserl.ward.cases import wrong_doses
from medserl.ward.oracle import new_facts
from medserl.ward.table import Condition, Table, load_table


@cache
def wrong_facts() -> frozenset[str]:
    """``condition/field/concept`` of every wrong fact that the shipped table has for its conditions, sides aside."""
    table = load_table()
    return frozenset(
        f"{condition.name}/{field}/{concept}"
        for condition in table.conditions.values()
        for field, concept in _wrong(table, condition)
    )


def _wrong(table: Table, condition: Condition) -> Iterator[tuple[str, str]]:
    yield from (("diagnosis", wrong) for wrong in condition.wrong_diagnoses)
    yield from (("management", wrong) for wrong in condition.wrong_managements)
    for field, part in (("treatment", condition.treatment), ("organism", condition.organism), ("drug", condition.drug)):
        if part is not None:
            yield from ((field, wrong) for wrong in part.wrong)
    if condition.drug is not None:
        yield from (("dose", f"{dose:.6g}") for dose in wrong_doses(table, condition.drug))


def facts_made(original: str, modified: str) -> list[str]:
    """Those of `wrong_facts` that an edit of a ward note brought in."""
    condition, facts = new_facts(load_table(), original, modified)
    names = []
    for field, concept in facts:
        if field == "number":
            field, concept = "dose", f"{float(concept):.6g}"
        names.append(f"{condition}/{field}/{concept}")
    return [name for name in names if name in wrong_facts()]
