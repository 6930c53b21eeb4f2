"""The knowledge table: what the ward's notes say, which phrasings mean the same, and what counts as an error.

`load_table` reads a YAML file (the shipped one is ``table.yaml``) and refuses one that lacks a field or
contradicts itself, naming file, line and key. Over 350 lines, because each field is read and refused in one place.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Formatter

from medserl.game.sentences import sentence_texts
from medserl.ward.located import Located, read_yaml

TABLE_FILE = Path(__file__).parent / "table.yaml"
"""The shipped knowledge table."""

SLOTS: Mapping[str, tuple[str, ...]] = {
    "presentation": ("person", "complaint", "complaint_2", "duration"),
    "denial": ("denied",),
    "vitals": ("temperature", "pulse", "pressure"),
    "exam": ("finding",),
    "test": ("test",),
    "organism": ("specimen", "organism"),
    "diagnosis": ("diagnosis",),
    "drug": ("drug", "dose", "unit", "route", "frequency"),
    "treatment": ("treatment",),
    "management": ("management",),
}
"""Kinds of sentences and the slots that every pattern of the kind fills."""

_SECTIONS: Mapping[str, str] = {
    "sides": "side", "routes": "route", "frequencies": "frequency", "units": "unit", "symptoms": "symptom",
    "organisms": "organism", "drugs": "drug", "treatments": "treatment", "managements": "management",
}  # fmt: skip
_SENTENCE_END = re.compile(r"[.?!;]\s")
_DURATION_UNITS = ("minutes", "hours", "days", "weeks", "months")
_VITALS = ("temperature", "pulse", "systolic", "diastolic")


@dataclass(frozen=True)
class Organism:
    """The organism that causes a condition, where the specimen comes from, and wrong organisms."""

    name: str
    specimen: tuple[str, ...]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Drug:
    """First-line drug: single doses ``doses`` inside the accepted ``low``–``high``, both in ``unit``."""

    name: str
    low: float
    high: float
    doses: tuple[float, ...]
    unit: str
    route: str
    frequency: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Treatment:
    """Treatment other than a drug, and wrong ones."""

    name: str
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Condition:
    """All that the ward knows of one condition; its name is the canonical phrase of its diagnosis."""

    name: str
    age: tuple[int, int]
    sex: str
    duration: tuple[int, int, str]
    vitals: str
    symptoms: tuple[str, ...]
    denied: tuple[str, ...]
    sided: bool
    exam: tuple[tuple[str, ...], ...]
    test: tuple[str, ...]
    organism: Organism | None
    drug: Drug | None
    treatment: Treatment | None
    management: str
    wrong_diagnoses: tuple[str, ...]
    wrong_managements: tuple[str, ...]

    @property
    def terms(self) -> dict[str, str]:
        """The right concept of each field that has one; a field that the condition has nothing of is left out."""
        terms = {"diagnosis": self.name, "management": self.management}
        if self.drug:
            terms |= {"drug": self.drug.name, "route": self.drug.route, "frequency": self.drug.frequency}
        if self.organism:
            terms["organism"] = self.organism.name
        if self.treatment:
            terms["treatment"] = self.treatment.name
        return terms

    @property
    def found(self) -> list[tuple[str, tuple[str, ...]]]:
        """Field and phrasings of each finding, of the test and of the specimen."""
        found = [*(("finding", phrases) for phrases in self.exam), ("test", self.test)]
        return [*found, ("specimen", self.organism.specimen)] if self.organism else found


@dataclass(frozen=True, eq=False)
class Table:
    """A validated knowledge table, equal to itself only.

    ``concepts[field][canonical]`` are all phrasings of a concept, the canonical one first; the fields are
    side, route, frequency, unit, symptom, organism, drug, treatment, management and diagnosis.
    ``sha256`` is that of the file's bytes.
    """

    file: str
    sha256: str
    sentences: Mapping[str, tuple[str, ...]]
    concepts: Mapping[str, Mapping[str, tuple[str, ...]]]
    vitals: Mapping[str, Mapping[str, tuple[float, float]]]
    conditions: Mapping[str, Condition]
    complete: bool = True
    """False where phrasings are held out (`medserl.ward.heldout.seen_table`)."""


@lru_cache(maxsize=4)
def load_table(path: Path = TABLE_FILE) -> Table:
    """Read and check a table. Raises `ConfigError` with file, line and key of the first thing wrong."""
    root, content = read_yaml(path)
    sections = tuple(_SECTIONS)
    top = root.fields(("version", "sentences", "vitals", "conditions", *sections))
    if top["version"].number() != 1:
        top["version"].fail("this program reads version 1")
    concepts = {field: _read_concepts(top[section]) for section, field in _SECTIONS.items()}
    if set(concepts["side"]) != {"right", "left"}:
        top["sides"].fail("the sides are right and left")
    blocks = [(item, _condition_fields(item)) for item in top["conditions"].items()]
    if not blocks:
        top["conditions"].fail("the list is empty; give at least one entry")
    concepts["diagnosis"] = _read_diagnoses(blocks)
    vitals = {name: _read_vitals(value) for name, value in top["vitals"].entries().items()}
    conditions = {}
    for _, fields in blocks:
        condition = _read_condition(fields, concepts, vitals)
        conditions[condition.name] = condition
    _check_wrong_terms(top, blocks, conditions.values())
    return Table(
        str(path), hashlib.sha256(content).hexdigest(), _read_sentences(top["sentences"]), concepts, vitals, conditions
    )


def slots_of(pattern: str) -> tuple[str, ...]:
    """Names of the ``{slots}`` of a pattern, in order. Raises ValueError where the braces do not match."""
    return tuple(name for _, name, _, _ in Formatter().parse(pattern) if name is not None)


def _read_sentences(section: Located) -> dict[str, tuple[str, ...]]:
    found = section.fields(tuple(SLOTS))
    for kind, value in found.items():
        for item in value.items():
            pattern = item.text()
            if sorted(_slots(item)) != sorted(SLOTS[kind]):
                item.fail(f"a pattern of kind '{kind}' uses each of {{{'}, {'.join(SLOTS[kind])}}} once")
            if not pattern.endswith("."):
                item.fail("a sentence pattern ends with a full stop")
    return {kind: value.texts() for kind, value in found.items()}


def _slots(item: Located) -> tuple[str, ...]:
    try:
        return slots_of(item.text())
    except ValueError:
        item.fail("the braces do not match; write {slot}")


def _read_concepts(section: Located) -> dict[str, tuple[str, ...]]:
    groups = {}
    for name, value in section.entries().items():
        sides = section.key == "treatments"
        _check_phrase(value, name, sides)
        groups[name] = value, (name, *_phrases(value, sides, least=0))
    if not groups:
        section.fail("the section is empty")
    _refuse_shared_phrases(groups)
    return {name: phrases for name, (_, phrases) in groups.items()}


def _check_phrase(place: Located, phrase: str, sides: bool) -> None:
    """A phrase is part of one sentence; its only slot is the side, where it can have one."""
    if set(phrase.replace("{side}", "") if sides else phrase) & set("{}"):
        place.fail(f"'{phrase}' has braces; the only slot is {{side}}, of findings, tests, specimens and treatments")
    if _SENTENCE_END.search(phrase) and len(sentence_texts(f"Has {phrase} today.")) > 1:
        place.fail(f"'{phrase}' is more than one sentence; say it in one")


def _phrases(value: Located, sides: bool, least: int = 1) -> tuple[str, ...]:
    found = value.texts() if least else tuple(item.text() for item in value.items())
    for item, phrase in zip(value.items(), found, strict=True):
        _check_phrase(item, phrase, sides)
    return found


def _refuse_shared_phrases(groups: Mapping[str, tuple[Located, tuple[str, ...]]]) -> None:
    owner: dict[str, str] = {}
    for name, (place, phrases) in groups.items():
        for phrase in phrases:
            if phrase.lower() in owner:
                place.fail(f"'{phrase}' already stands for '{owner[phrase.lower()]}'; a phrase means one thing")
            owner[phrase.lower()] = name


def _condition_fields(item: Located) -> dict[str, Located]:
    required = ("diagnosis", "age", "duration", "vitals", "symptoms", "denied", "exam", "test", "management",
                "wrong_diagnoses", "wrong_managements")  # fmt: skip
    fields = item.fields(required, ("sex", "side", "organism", "drug", "treatment"))
    if "drug" not in fields and "treatment" not in fields:
        item.fail("the field 'drug' or the field 'treatment' is missing; a condition needs one of them")
    name = fields["diagnosis"].texts()[0]
    return {key: Located(v.node, v.file, f"conditions.{name}.{v.key.split('.', 1)[1]}") for key, v in fields.items()}


def _read_diagnoses(blocks: Iterable[tuple[Located, dict[str, Located]]]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[Located, tuple[str, ...]]] = {}
    for _, fields in blocks:
        phrases = _phrases(fields["diagnosis"], sides=False)
        if phrases[0] in groups:
            fields["diagnosis"].fail(f"the condition '{phrases[0]}' is in the table twice")
        groups[phrases[0]] = (fields["diagnosis"], phrases)
    _refuse_shared_phrases(groups)
    return {name: phrases for name, (_, phrases) in groups.items()}


def _read_vitals(value: Located) -> dict[str, tuple[float, float]]:
    return {name: _range(part) for name, part in value.fields(_VITALS).items()}


def _range(value: Located) -> tuple[float, float]:
    parts = [item.number() for item in value.items()]
    if len(parts) != 2 or parts[0] > parts[1]:
        value.fail("expected [lowest, highest]")
    return parts[0], parts[1]


def _whole_range(value: Located) -> tuple[int, int]:
    _range(value)
    low, high = (item.whole() for item in value.items())
    return low, high


def _known(item: Located, field: str, names: Mapping[str, object]) -> str:
    name = item.text()
    if name not in names:
        section = next((section for section, one in _SECTIONS.items() if one == field), f"{field.removesuffix('s')}s")
        section = "conditions" if field == "diagnosis" else section
        item.fail(f"'{name}' is not in the table's {section}; add it there or correct the spelling")
    return name


def _read_condition(
    fields: dict[str, Located],
    concepts: Mapping[str, Mapping[str, tuple[str, ...]]],
    vitals: Mapping[str, object],
) -> Condition:
    def several(key: str, field: str) -> tuple[str, ...]:
        fields[key].texts()
        return tuple(_known(item, field, concepts[field]) for item in fields[key].items())

    name = fields["diagnosis"].texts()[0]
    low, high = _whole_range(fields["age"])
    sided = "side" in fields and fields["side"].flag()
    symptoms, denied = several("symptoms", "symptom"), several("denied", "symptom")
    if len(set(symptoms)) < 2:
        fields["symptoms"].fail("a presentation names two symptoms; give at least two")
    for symptom in set(symptoms) & set(denied):
        fields["denied"].fail(f"'{symptom}' is both a symptom and denied; keep one")
    sex = fields["sex"].text() if "sex" in fields else "any"
    if sex not in ("any", "male", "female"):
        fields["sex"].fail("expected male, female or any")
    wrong_diagnoses = several("wrong_diagnoses", "diagnosis")
    management = _known(fields["management"], "management", concepts["management"])
    wrong_managements = several("wrong_managements", "management")
    _refuse_right(fields["wrong_diagnoses"], name, wrong_diagnoses)
    _refuse_right(fields["wrong_managements"], management, wrong_managements)
    condition = Condition(
        name=name,
        age=(low, high),
        sex=sex,
        duration=_read_duration(fields["duration"]),
        vitals=_known(fields["vitals"], "vital", vitals),
        symptoms=symptoms,
        denied=denied,
        sided=sided,
        exam=tuple(_phrases(item, sides=True) for item in fields["exam"].items()),
        test=_phrases(fields["test"], sides=True),
        organism=_read_organism(fields["organism"], concepts) if "organism" in fields else None,
        drug=_read_drug(fields["drug"], concepts) if "drug" in fields else None,
        treatment=_read_treatment(fields["treatment"], concepts) if "treatment" in fields else None,
        management=management,
        wrong_diagnoses=wrong_diagnoses,
        wrong_managements=wrong_managements,
    )
    _check_sides(fields, condition)
    return condition


def _read_duration(value: Located) -> tuple[int, int, str]:
    parts = value.items()
    if len(parts) != 3 or parts[0].whole() > parts[1].whole():
        value.fail("expected [lowest, highest, unit]")
    unit = parts[2].text()
    if unit not in _DURATION_UNITS:
        parts[2].fail(f"expected one of {', '.join(_DURATION_UNITS)}")
    return parts[0].whole(), parts[1].whole(), unit


def _refuse_right(place: Located, right: str, wrong: Iterable[str]) -> None:
    if right in wrong:
        place.fail(f"'{right}' is the right answer here and cannot be a wrong one; remove it")


def _wrong(fields: dict[str, Located], field: str, names: Mapping[str, object], right: str) -> tuple[str, ...]:
    fields["wrong"].texts()
    wrong = tuple(_known(item, field, names) for item in fields["wrong"].items())
    _refuse_right(fields["wrong"], right, wrong)
    return wrong


def _read_organism(value: Located, concepts: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Organism:
    fields = value.fields(("name", "specimen", "wrong"))
    name = _known(fields["name"], "organism", concepts["organism"])
    return Organism(
        name, _phrases(fields["specimen"], sides=True), _wrong(fields, "organism", concepts["organism"], name)
    )


def _read_treatment(value: Located, concepts: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Treatment:
    fields = value.fields(("name", "wrong"))
    name = _known(fields["name"], "treatment", concepts["treatment"])
    return Treatment(name, _wrong(fields, "treatment", concepts["treatment"], name))


def _read_drug(value: Located, concepts: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Drug:
    fields = value.fields(("name", "range", "doses", "unit", "route", "frequency", "wrong"))
    name = _known(fields["name"], "drug", concepts["drug"])
    low, high = _range(fields["range"])
    fields["doses"].texts()
    for item in fields["doses"].items():
        if not low <= item.number() <= high:
            item.fail(f"the dose lies outside the range {low:g}–{high:g} of '{name}'; correct one of them")
    return Drug(
        name=name,
        low=low,
        high=high,
        doses=tuple(item.number() for item in fields["doses"].items()),
        unit=_known(fields["unit"], "unit", concepts["unit"]),
        route=_known(fields["route"], "route", concepts["route"]),
        frequency=_known(fields["frequency"], "frequency", concepts["frequency"]),
        wrong=_wrong(fields, "drug", concepts["drug"], name),
    )


def _check_sides(fields: dict[str, Located], condition: Condition) -> None:
    """Every {side} stands in a condition that has one, and such a condition says its side in exam and test."""
    phrased = [("test", condition.test), *(("exam", group) for group in condition.exam)]
    for key, group in phrased:
        for phrase in group:
            if ("{side}" in phrase) != condition.sided:
                expected = "needs {side}" if condition.sided else "must not have {side}"
                fields[key].fail(f"'{phrase}' {expected}, as the condition's field 'side' says")
    if condition.treatment is not None and not condition.sided:
        for name in (condition.treatment.name, *condition.treatment.wrong):
            if "{side}" in name:
                fields["treatment"].fail(f"'{name}' has a side but the condition has none; add side: true")


def _check_wrong_terms(
    top: dict[str, Located],
    blocks: list[tuple[Located, dict[str, Located]]],
    conditions: Iterable[Condition],
) -> None:
    """A term that is only ever wrong gives every error away: the assessor would learn the word, not the fact."""
    listed = list(conditions)
    right = {
        "organism": {c.organism.name for c in listed if c.organism},
        "drug": {c.drug.name for c in listed if c.drug},
        "treatment": {c.treatment.name for c in listed if c.treatment},
        "management": {c.management for c in listed},
    }
    for (_, fields), condition in zip(blocks, listed, strict=True):
        wrong: list[tuple[str, str, tuple[str, ...]]] = [
            ("management", "wrong_managements", condition.wrong_managements)
        ]
        for field in ("organism", "drug", "treatment"):
            part: Organism | Drug | Treatment | None = getattr(condition, field)
            if part is not None:
                wrong.append((field, field, part.wrong))
        for field, key, names in wrong:
            for name in names:
                if name not in right[field]:
                    fields[key].fail(f"'{name}' is never the right {field} of a condition, so it gives errors away")
