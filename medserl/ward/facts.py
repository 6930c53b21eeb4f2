"""Reading facts out of ward text: longest phrases of the table first, then numbers by their surroundings.

Case, punctuation and white space play no part, so reformatting changes no fact. What is neither a phrase nor a
known number is kept as leftover words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from medserl.ward.cases import NUMBER_WORDS, group
from medserl.ward.table import Table

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[a-z]+\d*[a-z]*|\+")
_THOUSANDS = re.compile(r"\d+(?:,\d{3})+$")
_SLOT = re.compile(r"\{[^{}]*\}")
_DURATIONS = {"minutes": "minutes", "minute": "minutes", "min": "minutes", "mins": "minutes", "hours": "hours",
              "hour": "hours", "hrs": "hours", "hr": "hours", "h": "hours", "days": "days", "day": "days",
              "d": "days", "weeks": "weeks", "week": "weeks", "wks": "weeks", "wk": "weeks", "months": "months",
              "month": "months", "mos": "months", "mo": "months"}  # fmt: skip
_NUMBERS = {word: float(i) for i, word in enumerate(NUMBER_WORDS)}
_AGE_MARKS = (("year", "old"), ("years", "old"), ("y", "o"), ("yo",))
_SEXES = {"woman": "female", "girl": "female", "female": "female", "f": "female",
          "man": "male", "boy": "male", "male": "male", "m": "male"}  # fmt: skip
NEGATIONS = frozenset({"no", "denies", "without", "not", "denied", "negative"})
_ARTICLES = frozenset({"a", "an", "the"})


class Fact(NamedTuple):
    """One statement: ``concept`` of ``field``, on a ``side`` where the phrase has one."""

    field: str
    concept: str
    side: str = ""


@dataclass(slots=True)
class Reading:
    """What a text says. ``words`` are those that belong to no fact and to no sentence pattern; ``content`` are they and
    the words of the facts."""

    facts: Counter[Fact] = field(default_factory=Counter)
    words: Counter[str] = field(default_factory=Counter)
    content: Counter[str] = field(default_factory=Counter)

    def add(self, other: Reading) -> None:
        """Take in what another text says."""
        self.facts.update(other.facts)
        self.words.update(other.words)
        self.content.update(other.content)


def tokens(text: str) -> tuple[str, ...]:
    """Words and numbers in lower case, ``1,500`` as ``1500``."""
    found = _TOKEN.findall(text.lower())
    return tuple(t.replace(",", "") if _THOUSANDS.match(t) else t for t in found)


class Reader:
    """Reads sentences by one table."""

    def __init__(self, table: Table) -> None:
        self._phrases: dict[tuple[str, ...], list[Fact]] = {}
        self._add_concepts(table)
        self._longest = max(map(len, self._phrases))
        # What the sentence patterns say around their slots carries no fact, negations apart.
        patterns = (pattern for kind in table.sentences.values() for pattern in kind)
        self._filler = {word for pattern in patterns for word in tokens(_SLOT.sub(" ", pattern))} - NEGATIONS
        self._filler |= _ARTICLES | {"and"}

    def sentence(self, text: str) -> Reading:
        """The facts of one sentence. Its symptoms are of the field ``denied`` after a negation."""
        reading = Reading()
        negated = False
        for fact, words in self._scan(tokens(text)):
            reading.content.update(word for word in words if fact is not None or word not in self._filler)
            if fact is None:
                if words[0] in NEGATIONS:
                    negated = True
                elif words[0] not in self._filler:
                    reading.words[words[0]] += 1
            elif negated and fact.field == "symptom":
                reading.facts[fact._replace(field="denied")] += 1
            else:
                reading.facts[fact] += 1
        return reading

    def _add_concepts(self, table: Table) -> None:
        sides = [(side, word) for side, words in table.concepts["side"].items() for word in words]

        def add(name: str, concept: str, phrase: str) -> None:
            for side, word in sides if "{side}" in phrase else [("", "")]:
                key = tokens(phrase.replace("{side}", word))
                facts = self._phrases.setdefault(key, [])
                if Fact(name, concept, side) not in facts:
                    facts.append(Fact(name, concept, side))

        for name, concepts in table.concepts.items():
            for concept, phrases in concepts.items():
                for phrase in phrases:
                    add(name, concept, phrase)
        for condition in table.conditions.values():
            for name, phrases in condition.found:
                for phrase in phrases:
                    add(name, group(phrases), phrase)

    def _scan(self, found: Sequence[str]) -> Iterator[tuple[Fact | None, tuple[str, ...]]]:
        i = 0
        while i < len(found):
            fact, used = self._phrase_at(found, i)
            if fact is None:
                fact, used = _number_at(found, i)
            yield fact, tuple(found[i : i + used])
            i += used

    def _phrase_at(self, found: Sequence[str], start: int) -> tuple[Fact | None, int]:
        for size in range(min(self._longest, len(found) - start), 0, -1):
            facts = self._phrases.get(tuple(found[start : start + size]))
            if facts:
                return facts[0], size
        return None, 1


@lru_cache(maxsize=4)
def reader(table: Table) -> Reader:
    """The reader of a table, built once."""
    return Reader(table)


def _number(token: str) -> float | None:
    if token in _NUMBERS:
        return _NUMBERS[token]
    return float(token) if token[0].isdigit() and "," not in token and token.count(".") < 2 else None


def _number_at(found: Sequence[str], i: int) -> tuple[Fact | None, int]:
    """A fact made of a number and the words around it, and how many words it takes; a plain word takes one."""
    value = _number(found[i])
    if value is None:
        return None, 1
    before = found[i - 1] if i else ""
    rest = tuple(found[i + 1 : i + 4])
    for mark in _AGE_MARKS:
        if rest[: len(mark)] == mark:
            sex = _SEXES.get(rest[len(mark)] if len(rest) > len(mark) else "")
            return Fact("person", f"{value:g} {sex or '?'}"), 1 + len(mark) + (sex is not None)
    # Vital signs before durations: "pulse 66/min" is no 66 minutes.
    if before in ("t", "temp", "temperature"):
        return Fact("temperature", f"{value:g}"), 1
    if before in ("bp", "pressure") and rest and _number(rest[0]) is not None:
        return Fact("pressure", f"{value:g}/{_number(rest[0]):g}"), 2
    if before in ("hr", "pulse", "rate"):
        return Fact("pulse", f"{value:g}"), 1 + (rest[:1] == ("min",))
    if rest and rest[0] in _DURATIONS:
        return Fact("duration", f"{value:g} {_DURATIONS[rest[0]]}"), 2
    return Fact("number", f"{value:g}"), 1
