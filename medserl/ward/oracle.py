"""The oracle: says from the knowledge table, never from the mode, whether an edit made a ward note wrong.

It reads the facts that the edit took away and brought in (`medserl.ward.facts`) and judges each new one against
the condition that the note is about. Unknown words make an edit undecidable; an edit that only removes facts is
lossy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee import Referee, Ruling, RulingKind, register_referee
from medserl.game.sentences import sentence_texts
from medserl.ward.cases import group
from medserl.ward.facts import Fact, Reading, reader
from medserl.ward.replaced import DECISIVE, rule_on_replaced
from medserl.ward.table import TABLE_FILE, Condition, Drug, Table, load_table

_GRAMS = {"mg": 1e-3, "g": 1.0, "mcg": 1e-6}
_HOURS = {"minutes": 1 / 60, "hours": 1.0, "days": 24.0, "weeks": 168.0, "months": 730.0}
_NEUTRAL = frozenset({"unit", "number", "side"})
"""Fields that mean something together with others only; `_dose_ruling` and the facts' own sides see to them."""


@dataclass(frozen=True, slots=True)
class _Change:
    """What an edit did, and what the note said."""

    table: Table
    condition: Condition
    side: str
    """The side that the original note gives most often; empty where it gives none."""
    note: Counter[Fact]
    """Facts of the original."""
    kept: Counter[Fact]
    """Facts of the sentences that the edit did not touch."""
    before: Reading
    after: Reading

    @property
    def lost(self) -> Counter[Fact]:
        return self.before.facts - self.after.facts

    @property
    def fields(self) -> set[str]:
        """Those of all facts of the sentences that were touched."""
        return {fact.field for fact in (*self.before.facts, *self.after.facts)}

    @property
    def gained(self) -> Counter[Fact]:
        return self.after.facts - self.before.facts


@register_referee
class OracleReferee(Referee):
    """Knows the truth of every ward note; rules VOID on any other text.

    The first ruling that applies counts: an error among the new facts; a decisive fact that gave way to something else
    (`medserl.ward.replaced`); unknown words; an undecidable fact; facts lost without new ones; else benign.
    """

    name = "oracle"

    def __init__(self, table: str | None = None) -> None:
        """``table``: path of the knowledge table that the notes were made from; None for the shipped one."""
        self._table = load_table(TABLE_FILE if table is None else Path(table))

    def knows(self, text: str) -> bool:
        """Whether a note is about a condition of the table; edits of another are void."""
        return _change(self._table, text, text) is not None

    def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        change = _change(self._table, note.text, modified)
        if change is None:
            return Ruling(RulingKind.VOID, "no condition of the ward")
        rulings = [*(_fact_ruling(change, fact) for fact in change.gained), _dose_ruling(change), _flip_ruling(change)]
        for ruling in rulings:
            if ruling.kind is RulingKind.ERROR:
                return ruling
        unknown = change.after.words - change.before.words
        undecided = [ruling for ruling in rulings if ruling.kind is RulingKind.VOID]
        if unknown or undecided:
            replaced = rule_on_replaced(self._table, change.condition, change.before, change.after)
            if replaced is not None and (replaced.kind is not RulingKind.BENIGN or not undecided):
                return replaced
            return Ruling(RulingKind.VOID, "unknown words") if unknown else undecided[0]
        if _only_lost(change):
            return Ruling(RulingKind.LOSSY, "a fact is lost")
        return Ruling(RulingKind.BENIGN, "same facts" if not change.gained else "facts that fit")


def new_facts(table: Table, original: str, modified: str) -> tuple[str, list[tuple[str, str]]]:
    """The condition that a ward note is about, and field and concept of each fact that an edit brought in.

    An empty name and no facts where the note is of no condition.
    """
    change = _change(table, original, modified)
    if change is None:
        return "", []
    return change.condition.name, [(fact.field, fact.concept) for fact in change.gained]


def _change(table: Table, original: str, modified: str) -> _Change | None:
    read = reader(table).sentence
    before, after = sentence_texts(original), sentence_texts(modified)
    shared = Counter(before) & Counter(after)
    kept, touched, new = _facts(map(read, shared.elements())), Reading(), Reading()
    for source, reading in ((before, touched), (after, new)):
        for sentence in (Counter(source) - shared).elements():
            found = read(sentence)
            reading.add(found)
    note = kept + touched.facts
    condition = _condition(table, note)
    if condition is None:
        return None
    sides = Counter(fact.side for fact in note.elements() if fact.side)
    side = sides.most_common(1)[0][0] if sides else ""
    return _Change(table, condition, side, note, kept, touched, new)


def _facts(readings: Iterable[Reading]) -> Counter[Fact]:
    facts: Counter[Fact] = Counter()
    for reading in readings:
        facts.update(reading.facts)
    return facts


def _condition(table: Table, note: Counter[Fact]) -> Condition | None:
    """The condition that most of the note's facts speak for."""
    votes: Counter[str] = Counter()
    for condition in table.conditions.values():
        votes[condition.name] = sum(fact in note for fact in _signature(condition, note))
    name, count = votes.most_common(1)[0]
    return table.conditions[name] if count else None


def _signature(condition: Condition, note: Counter[Fact]) -> list[Fact]:
    """Facts of the note that would tell this condition: its findings, tests and diagnosis, on whatever side."""
    own = {("diagnosis", condition.name), ("test", group(condition.test)),
           *(("finding", group(found)) for found in condition.exam)}  # fmt: skip
    return [fact for fact in note if (fact.field, fact.concept) in own]


_STATED = frozenset({*DECISIVE, "route", "frequency", "finding", "test", "specimen"})
_ERROR, _FITS = RulingKind.ERROR, Ruling(RulingKind.BENIGN)


def _fact_ruling(change: _Change, fact: Fact) -> Ruling:
    """Whether a new fact is right for the note's patient."""
    if fact.field in _NEUTRAL or fact.field == "dose":
        return _FITS
    if fact.field in ("route", "frequency") and not {"drug", "unit"} & change.fields:
        return _FITS  # the "daily" of "daily weights"
    if fact.side and change.side and fact.side != change.side:
        return Ruling(_ERROR, "side")
    if fact.field in _STATED:
        return _stated_ruling(change.condition, fact)
    if fact.field in ("symptom", "denied"):
        return _symptom_ruling(change, fact)
    return _patient_ruling(change, fact)


def _stated_ruling(condition: Condition, fact: Fact) -> Ruling:
    """Against the one concept of a field, or the several findings, that are right for the condition."""
    right = [condition.terms[fact.field]] if fact.field in condition.terms else []
    right += [group(phrases) for field, phrases in condition.found if field == fact.field]
    if not right:
        return Ruling(RulingKind.VOID, f"the table has no {fact.field} here")
    return _FITS if fact.concept in right else Ruling(_ERROR, fact.field)


def _symptom_ruling(change: _Change, fact: Fact) -> Ruling:
    opposite = Fact("denied" if fact.field == "symptom" else "symptom", fact.concept)
    if opposite in change.note:
        return Ruling(_ERROR, "negation")
    if fact.field == "denied" or fact.concept in change.condition.symptoms:
        return _FITS
    return Ruling(RulingKind.VOID, "a symptom that the table does not know here")


def _patient_ruling(change: _Change, fact: Fact) -> Ruling:
    """Age, sex, duration and vital signs: fitting inside the condition's ranges, else undecidable."""
    condition, vitals = change.condition, change.table.vitals[change.condition.vitals]
    if fact.field == "person":
        years, sex = fact.concept.split()
        if condition.sex != "any" and sex not in (condition.sex, "?"):
            return Ruling(_ERROR, "sex")
        fits = sex != "?" and condition.age[0] <= float(years) <= condition.age[1]
    elif fact.field == "duration":
        low, high, unit = condition.duration
        number, said = fact.concept.split()
        fits = low * _HOURS[unit] <= float(number) * _HOURS[said] <= high * _HOURS[unit]
    elif fact.field == "pressure":
        systolic, diastolic = map(float, fact.concept.split("/"))
        fits = _inside(systolic, vitals["systolic"]) and _inside(diastolic, vitals["diastolic"])
    else:
        fits = _inside(float(fact.concept), vitals[fact.field])
    return _FITS if fits else Ruling(RulingKind.VOID, f"{fact.field} outside the condition's range")


def _inside(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]


def _dose_ruling(change: _Change) -> Ruling:
    """Number and unit of a drug sentence together: inside the table's range, in whatever unit, or wrong."""
    before, after = _dose(change.before), _dose(change.after)
    if after is None or after == before:
        return _FITS
    drug = change.condition.drug
    if drug is None:
        return Ruling(RulingKind.VOID, "the table has no dose here")
    return _FITS if _dose_fits(drug, *after) else Ruling(_ERROR, "dose")


def _dose(reading: Reading) -> tuple[float, str] | None:
    numbers = [fact.concept for fact in reading.facts if fact.field == "number"]
    units = [fact.concept for fact in reading.facts if fact.field == "unit"]
    return (float(numbers[0]), units[0]) if len(numbers) == len(units) == 1 else None


def _dose_fits(drug: Drug, value: float, unit: str) -> bool:
    if unit in _GRAMS and drug.unit in _GRAMS:
        value, unit = value * _GRAMS[unit] / _GRAMS[drug.unit], drug.unit
    tolerance = 1e-9 * drug.high
    return unit == drug.unit and drug.low - tolerance <= value <= drug.high + tolerance


def _flip_ruling(change: _Change) -> Ruling:
    """A side in the new sentence, or in one word of it, that the rest of the note contradicts."""
    sides = {fact.concept for fact in change.gained if fact.field == "side"}
    return Ruling(_ERROR, "side") if change.side and sides - {change.side} else _FITS


def _only_lost(change: _Change) -> bool:
    """Whether a field lost more facts than it gained."""
    lost, gained = (Counter(fact.field for fact in facts.elements()) for facts in (change.lost, change.gained))
    return bool(lost - gained)
