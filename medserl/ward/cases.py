"""A ward note as facts with phrasings, and the edits of it whose truth is known from the table.

A `Case` renders to the text of a note. An edit replaces one phrasing by another of the same fact (benign) or
one fact by a wrong one (error); every edit touches one sentence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from medserl.game.labels import ERROR_TYPES as ERROR_TYPES
from medserl.ward.table import Condition, Drug, Table, slots_of

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
                 "twelve")  # fmt: skip
_SHORT_UNITS = {"minutes": "min", "hours": "hrs", "weeks": "wks", "months": "mos"}
_ADULT = 14
_FAR_OFF = 2.0  # a wrong dose is at least this factor outside the accepted range


class Patient(NamedTuple):
    """What makes a patient the same person in every phrasing; splits are drawn over patients."""

    condition: str
    age: int
    sex: str
    duration: int
    side: str
    """``right`` or ``left``; empty where the condition has no side."""

    @property
    def key(self) -> str:
        return "|".join(str(part) for part in self)


@dataclass(frozen=True, slots=True)
class Slot:
    """One fact in a sentence: its field, which concept of the field it is, and the phrase that says it."""

    field: str
    concept: str
    phrase: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence pattern with its slots filled. ``slots`` may hold ``side`` beside those of the pattern."""

    kind: str
    pattern: str
    slots: Mapping[str, Slot]

    @property
    def text(self) -> str:
        """The sentence as the note has it, starting upper-case."""
        filled = self.pattern.format(**{name: slot.phrase for name, slot in self.slots.items() if name != "side"})
        if "side" in self.slots:
            filled = filled.replace("{side}", self.slots["side"].phrase)
        return filled[0].upper() + filled[1:]

    def with_slot(self, name: str, slot: Slot) -> Sentence:
        return replace(self, slots={**self.slots, name: slot})

    @property
    def has_side(self) -> bool:
        return any("{side}" in slot.phrase for slot in self.slots.values())


@dataclass(frozen=True, slots=True)
class Case:
    """A patient's note, sentence by sentence."""

    patient: Patient
    sentences: tuple[Sentence, ...]

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


@dataclass(frozen=True, slots=True)
class Edit:
    """One sentence of a case in another form. ``error_type`` is None for a benign edit."""

    index: int
    slot: str
    """Name of the slot that changed, or ``pattern``."""
    sentence: Sentence
    error_type: str | None

    def apply(self, case: Case) -> str:
        """The text of the note with the edit made."""
        return self.case(case).text

    def case(self, case: Case) -> Case:
        """The case with the edit made."""
        before, after = case.sentences[: self.index], case.sentences[self.index + 1 :]
        return replace(case, sentences=(*before, self.sentence, *after))


def phrasings(table: Table, slot: Slot) -> tuple[str, ...]:
    """All phrases that say the slot's fact."""
    if slot.field in table.concepts:
        return table.concepts[slot.field][slot.concept]
    match slot.field:
        case "person":
            return _person_phrases(slot.concept)
        case "duration":
            return _duration_phrases(slot.concept)
        case "dose":
            return dose_phrases(float(slot.concept))
        case "finding" | "test" | "specimen":
            return tuple(slot.concept.split("\n"))
        case _:
            return (slot.phrase,)


def dose_phrases(dose: float) -> tuple[str, ...]:
    """How notes write a dose: ``1500`` also as ``1,500``."""
    plain = f"{dose:.6g}"
    return (plain, f"{int(dose):,}") if dose >= 1000 and dose == int(dose) else (plain,)


def person_concept(age: int, sex: str) -> str:
    return f"{age} {sex}"


def _person_phrases(concept: str) -> tuple[str, ...]:
    years, sex = concept.split()
    age = int(years)
    adult, child = ("woman", "girl") if sex == "female" else ("man", "boy")
    noun = adult if age >= _ADULT else child
    article = "An" if age in (8, 11, 18) or 80 <= age <= 89 else "A"
    return (
        f"{article} {age}-year-old {noun}", f"{age}-year-old {noun}", f"{age} y/o {noun}", f"{age} yo {sex}",
        f"{age}-year-old {sex}",
    )  # fmt: skip


def _duration_phrases(concept: str) -> tuple[str, ...]:
    number, unit = concept.split()
    count = int(number)
    shown = unit[:-1] if count == 1 else unit
    phrases = [f"{count} {shown}"]
    if count < len(NUMBER_WORDS):
        phrases.append(f"{NUMBER_WORDS[count]} {shown}")
    if unit in _SHORT_UNITS and count > 1:
        phrases.append(f"{count} {_SHORT_UNITS[unit]}")
    return tuple(phrases)


def group(phrases: tuple[str, ...]) -> str:
    """The concept of a finding, test or specimen: its phrasings, one per line."""
    return "\n".join(phrases)


def benign_edits(table: Table, case: Case) -> Iterator[Edit]:
    """Every edit that says the same in another phrasing: one slot, or the pattern of one sentence."""
    for index, sentence in enumerate(case.sentences):
        for name, slot in sentence.slots.items():
            if name == "side" and not sentence.has_side:
                continue
            for phrase in phrasings(table, slot):
                if phrase != slot.phrase:
                    yield Edit(index, name, sentence.with_slot(name, replace(slot, phrase=phrase)), None)
        for pattern in table.sentences[sentence.kind]:
            if pattern != sentence.pattern:
                yield Edit(index, "pattern", replace(sentence, pattern=pattern), None)


def error_edits(table: Table, case: Case) -> Iterator[Edit]:
    """Every edit that puts one of the table's wrong facts into one sentence."""
    condition = table.conditions[case.patient.condition]
    for index, sentence in enumerate(case.sentences):
        for name, error_type, field, concept in _wrong_facts(table, condition, sentence):
            for phrase in phrasings(table, Slot(field, concept, concept)):
                yield Edit(index, name, sentence.with_slot(name, Slot(field, concept, phrase)), error_type)
        yield from _side_errors(table, case, index)


def _wrong_facts(table: Table, condition: Condition, sentence: Sentence) -> Iterator[tuple[str, str, str, str]]:
    """(slot, error type, field, wrong concept) for the facts of one sentence."""
    for name in slots_of(sentence.pattern):
        if name == "diagnosis":
            yield from ((name, "diagnosis", name, wrong) for wrong in condition.wrong_diagnoses)
        elif name == "management":
            yield from ((name, "management", name, wrong) for wrong in condition.wrong_managements)
        elif name == "treatment" and condition.treatment:
            yield from ((name, "treatment", name, wrong) for wrong in condition.treatment.wrong)
        elif name == "organism" and condition.organism:
            yield from ((name, "causalorganism", name, wrong) for wrong in condition.organism.wrong)
        elif name == "drug" and condition.drug:
            yield from ((name, "pharmacotherapy", name, wrong) for wrong in condition.drug.wrong)
        elif name == "dose" and condition.drug:
            doses = wrong_doses(table, condition.drug)
            yield from ((name, "pharmacotherapy", name, f"{dose:.6g}") for dose in doses)


def wrong_doses(table: Table, drug: Drug) -> tuple[float, ...]:
    """Doses far outside the drug's range that nevertheless look like doses: decimal slips, other drugs' doses."""
    slips = {dose * factor for dose in drug.doses for factor in (10, 0.1)}
    others = {dose for c in table.conditions.values() if c.drug and c.drug.unit == drug.unit for dose in c.drug.doses}
    return tuple(sorted(d for d in slips | others if d > drug.high * _FAR_OFF or d < drug.low / _FAR_OFF))


def _side_errors(table: Table, case: Case, index: int) -> Iterator[Edit]:
    """The other side, in a sentence whose side another sentence gives too."""
    sentence = case.sentences[index]
    if not sentence.has_side or sum(other.has_side for other in case.sentences) < 2:
        return
    other = "left" if sentence.slots["side"].concept == "right" else "right"
    error_type = "treatment" if sentence.kind == "treatment" else "diagnosis"
    for phrase in table.concepts["side"][other]:
        yield Edit(index, "side", sentence.with_slot("side", Slot("side", other, phrase)), error_type)
