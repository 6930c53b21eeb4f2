"""Seeded ward notes: the same split, count and seed give the same notes on every machine.

A patient belongs to the split that a hash of the patient's facts says, so no patient, in whatever phrasing and
under whatever seed, is in two of train, validation and test. The split ``test_heldout`` has test patients again, and
each of its notes says a fact in a phrasing that no note of the other splits has (`medserl.ward.heldout`).
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Iterator, Sequence
from itertools import islice, product
from typing import Any, NamedTuple

from medserl.errors import ConfigError
from medserl.game.records import Note
from medserl.game.vcf import apply_vcf
from medserl.ward.cases import (
    ERROR_TYPES,
    Case,
    Edit,
    Patient,
    Sentence,
    Slot,
    benign_edits,
    error_edits,
    group,
    person_concept,
    phrasings,
)
from medserl.ward.heldout import conditions_with_unseen, has_unseen_fact, seen_table
from medserl.ward.table import Condition, Table, load_table, slots_of

PATIENT_SPLITS = ("train", "validation", "test")
HELDOUT_SPLIT = "test_heldout"
SPLITS = (*PATIENT_SPLITS, HELDOUT_SPLIT)
MIN_WORDS, MAX_WORDS = 30, 80
_SHARES = (70, 85)  # of 100 hash buckets: train below the first, validation below the second, test above
_ORDER = ("presentation", "denial", "vitals", "exam", "test", "organism", "diagnosis", "drug", "treatment",
          "management")  # fmt: skip
_KIND_OF_ERROR = {"diagnosis": "diagnosis", "management": "management", "treatment": "treatment",
                  "pharmacotherapy": "drug", "causalorganism": "organism"}  # fmt: skip
_SENTENCES = (4, 5, 5, 6, 6)
_TRIES = 200
_BLIND_DRAWS = 50


class GoldCase(NamedTuple):
    """A case with the error variant that its note carries."""

    case: Case
    error: Edit


def split_of(patient: Patient) -> str:
    """The split a patient belongs to: 70 % train, 15 % validation, 15 % test, by SHA-256 of the facts."""
    bucket = int.from_bytes(hashlib.sha256(patient.key.encode()).digest()[:8], "big") % 100
    return PATIENT_SPLITS[sum(bucket >= share for share in _SHARES)]


def ward_notes(
    split: str, count: int, seed: int, table: Table | None = None, conditions: Collection[str] | None = None
) -> list[Note]:
    """``count`` notes of different patients of one split, each with a gold error variant; only those of them whose
    condition is in ``conditions``, where these are given.

    Conditions come equally often, error types as equally as the conditions allow. Raises ConfigError for an
    unknown split, a negative count, or more notes than the split has patients.
    """
    return [_note(gold, f"ward-{split}-{seed}-{i:05d}")
            for i, gold in enumerate(ward_cases(split, count, seed, table))
            if conditions is None or gold.case.patient.condition in conditions]  # fmt: skip


def some_conditions(table: Table, count: int) -> frozenset[str]:
    """``count`` of the table's conditions, those whose names have the lowest hashes: more of them are the same ones
    and others, and a condition that is added to the table changes one at most.

    Raises:
        ConfigError: the table has fewer.
    """
    if count > len(table.conditions):
        raise ConfigError(f"medserl.notes.labelled_conditions: {count}, but the table has {len(table.conditions)}")
    return frozenset(sorted(table.conditions, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])


def ward_cases(split: str, count: int, seed: int, table: Table | None = None) -> list[GoldCase]:
    """The cases behind `ward_notes`, for whoever needs the facts (demonstrations, the oracle).

    ``table`` is the complete one: the splits other than ``test_heldout`` leave its held-out phrasings out themselves.
    """
    if split not in SPLITS:
        raise ConfigError(f"ward split '{split}' does not exist; choose one of {', '.join(SPLITS)}.")
    if count < 0:
        raise ConfigError(f"ward count={count} must not be negative.")
    table = table or load_table()
    if split != HELDOUT_SPLIT:
        table = seen_table(table)
    if count > sum(map(_patient_count, table.conditions.values())):
        raise ConfigError(_too_many(split, count))
    rng = random.Random(f"medserl ward {split} {seed}")
    cases = [_gold_case(table, patient, rng) for patient in islice(_patients(table, split, rng), count)]
    if len(cases) < count:
        raise ConfigError(_too_many(split, count))
    return cases


def _too_many(split: str, count: int) -> str:
    return f"the ward's {split} split has fewer than {count} patients; ask for fewer notes."


def _patients(table: Table, split: str, rng: random.Random) -> Iterator[Patient]:
    """Patients of a split in random order, each once, the conditions taking turns until their patients run out."""
    conditions = conditions_with_unseen(table) if split == HELDOUT_SPLIT else table.conditions
    seen: dict[str, set[Patient]] = {name: set() for name in table.conditions if name in conditions}
    split = PATIENT_SPLITS[-1] if split == HELDOUT_SPLIT else split
    while seen:
        names = list(seen)
        rng.shuffle(names)
        for name in names:
            patient = _new_patient(table.conditions[name], split, seen[name], rng)
            if patient is None:
                del seen[name]
            else:
                seen[name].add(patient)
                yield patient


def _new_patient(condition: Condition, split: str, seen: set[Patient], rng: random.Random) -> Patient | None:
    """A patient that is not in ``seen``; None where all are. Draws blindly first: listing all is slow."""
    parts = _patient_parts(condition)
    for _ in range(_BLIND_DRAWS):
        patient = Patient(*(rng.choice(part) for part in parts))
        if patient not in seen and split_of(patient) == split:
            return patient
    everyone = (Patient(*values) for values in product(*parts))
    left = [patient for patient in everyone if patient not in seen and split_of(patient) == split]
    return rng.choice(left) if left else None


def _patient_parts(condition: Condition) -> tuple[Sequence[Any], ...]:
    """What each field of the condition's patients can be."""
    return (
        (condition.name,),
        range(condition.age[0], condition.age[1] + 1),
        ("female", "male") if condition.sex == "any" else (condition.sex,),
        range(condition.duration[0], condition.duration[1] + 1),
        ("right", "left") if condition.sided else ("",),
    )


def _patient_count(condition: Condition) -> int:
    return math.prod(map(len, _patient_parts(condition)))


def _gold_case(table: Table, patient: Patient, rng: random.Random) -> GoldCase:
    """A case of fitting length with an error that the filter accepts."""
    condition = table.conditions[patient.condition]
    possible = [kind for kind in ERROR_TYPES if _KIND_OF_ERROR[kind] in _kinds(condition)]
    for _ in range(_TRIES):
        error_type = rng.choice(possible)
        case = _draw_case(table, condition, patient, _KIND_OF_ERROR[error_type], rng)
        if not MIN_WORDS <= len(case.text.split()) <= MAX_WORDS:
            continue
        errors = [edit for edit in error_edits(table, case) if edit.error_type == error_type]
        if table.complete:  # of the split test_heldout: both variants of the note say a fact in an unseen phrasing
            errors = [edit for edit in errors if has_unseen_fact(table, edit.case(case))]
            if not has_unseen_fact(table, case):
                continue
        error = first_accepted(case, errors, rng)
        if error is not None:
            return GoldCase(case, error)
    raise ConfigError(
        f"{table.file}: no note of '{condition.name}' has {MIN_WORDS} to {MAX_WORDS} words and an error that the "
        "filter accepts; give it longer findings or shorter wrong terms."
    )


def first_accepted(case: Case, edits: Sequence[Edit], rng: random.Random) -> Edit | None:
    """The first of the edits, in random order over slots and then phrasings, that passes the filter.

    Slots first, or the drug's many wrong doses would crowd out its few wrong names.
    """
    by_slot: dict[tuple[int, str], list[Edit]] = {}
    for edit in edits:
        by_slot.setdefault((edit.index, edit.slot), []).append(edit)
    groups = list(by_slot.values())
    rng.shuffle(groups)
    for choices in groups:
        rng.shuffle(choices)
        for edit in choices:
            if apply_vcf(case.text, edit.apply(case)).passed:
                return edit
    return None


def benign_edit(table: Table, case: Case, rng: random.Random) -> Edit | None:
    """A random benign edit of the case that the filter accepts."""
    return first_accepted(case, list(benign_edits(table, case)), rng)


def error_edit(table: Table, case: Case, rng: random.Random) -> Edit | None:
    """A random erroneous edit of the case that the filter accepts."""
    return first_accepted(case, list(error_edits(table, case)), rng)


def _kinds(condition: Condition) -> tuple[str, ...]:
    lacking = {kind for kind in ("organism", "drug", "treatment") if getattr(condition, kind) is None}
    return tuple(kind for kind in _ORDER if kind not in lacking)


def _draw_case(table: Table, condition: Condition, patient: Patient, needed: str, rng: random.Random) -> Case:
    """A note with a presentation, evidence, the ``needed`` kind of sentence and others up to the drawn number."""
    total = rng.choice(_SENTENCES)
    kinds = {"presentation", rng.choice(("exam", "test")), needed}
    core = [kind for kind in _kinds(condition) if kind not in kinds and _ORDER.index(kind) >= _ORDER.index("exam")]
    kinds.add(rng.choice(core))  # two statements that can be held against each other beside the evidence
    rest = [kind for kind in _kinds(condition) if kind not in kinds]
    kinds.update(rng.sample(rest, max(0, min(total - len(kinds), len(rest)))))
    facts = _Facts(table, condition, patient, rng)
    return Case(patient, tuple(facts.sentence(kind) for kind in _ORDER if kind in kinds))


class _Facts:
    """Draws the facts and phrasings of one note."""

    def __init__(self, table: Table, condition: Condition, patient: Patient, rng: random.Random) -> None:
        self._table, self._condition, self._patient, self._rng = table, condition, patient, rng
        self._complaints = rng.sample(condition.symptoms, 2)

    def sentence(self, kind: str) -> Sentence:
        pattern = self._rng.choice(self._table.sentences[kind])
        slots = {name: self._slot(name) for name in slots_of(pattern)}
        if self._patient.side:  # also where the sentence does not say it: an edit may bring in a phrase that does
            slots["side"] = self._phrased("side", self._patient.side)
        return Sentence(kind, pattern, slots)

    def _phrased(self, field: str, concept: str) -> Slot:
        return Slot(field, concept, self._rng.choice(phrasings(self._table, Slot(field, concept, concept))))

    def _slot(self, name: str) -> Slot:
        condition, patient, rng = self._condition, self._patient, self._rng
        match name:
            case "person":
                return self._phrased(name, person_concept(patient.age, patient.sex))
            case "complaint" | "complaint_2":
                return self._phrased("symptom", self._complaints[name == "complaint_2"])
            case "denied":
                return self._phrased("symptom", rng.choice(condition.denied))
            case "duration":
                return self._phrased(name, f"{patient.duration} {condition.duration[2]}")
            case "temperature" | "pulse" | "pressure":
                value = self._vital(name)
                return Slot(name, value, value)
            case "finding":
                return self._phrased(name, group(rng.choice(condition.exam)))
            case "test":
                return self._phrased(name, group(condition.test))
            case "diagnosis":
                return self._phrased(name, condition.name)
            case "management":
                return self._phrased(name, condition.management)
            case _:
                return self._treatment_slot(name)

    def _treatment_slot(self, name: str) -> Slot:
        """Slots of the parts that a condition may lack; `_kinds` sees to it that it has them."""
        organism, drug, treatment = self._condition.organism, self._condition.drug, self._condition.treatment
        if name in ("organism", "specimen") and organism:
            return self._phrased(name, organism.name if name == "organism" else group(organism.specimen))
        if name == "treatment" and treatment:
            return self._phrased(name, treatment.name)
        assert drug is not None
        if name == "dose":
            return self._phrased(name, f"{self._rng.choice(drug.doses):.6g}")
        concept = {"drug": drug.name, "unit": drug.unit, "route": drug.route, "frequency": drug.frequency}[name]
        return self._phrased(name, concept)

    def _vital(self, name: str) -> str:
        ranges, rng = self._table.vitals[self._condition.vitals], self._rng
        if name == "temperature":
            low, high = ranges["temperature"]
            return f"{rng.randint(round(low * 10), round(high * 10)) / 10:.1f}"
        if name == "pulse":
            return str(2 * rng.randint(*_halves(ranges["pulse"])))
        return f"{2 * rng.randint(*_halves(ranges['systolic']))}/{2 * rng.randint(*_halves(ranges['diastolic']))}"


def _halves(bounds: tuple[float, float]) -> tuple[int, int]:
    return round(bounds[0] / 2), round(bounds[1] / 2)


def _note(gold: GoldCase, note_id: str) -> Note:
    sentence = gold.case.sentences[gold.error.index].text
    assert gold.error.error_type is not None
    return Note(
        note_id=note_id,
        text=gold.case.text,
        error_text=gold.error.apply(gold.case),
        error_type=gold.error.error_type,
        error_sentence=gold.error.sentence.text,
        corrected_sentence=sentence,
    )
