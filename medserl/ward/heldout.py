"""Phrasings that no training note has: they tell an assessor that learnt facts from one that learnt words.

About a tenth of the other phrasings of the facts that a verdict rests on are held out. A concept keeps two
phrasings or more, so that the world without them has the same facts and the same kinds of edits.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from medserl.ward.cases import Case
from medserl.ward.table import Table

DECISIVE = ("diagnosis", "management", "treatment", "drug", "organism", "finding", "test")
"""Fields whose facts make a note right or wrong."""

_SHARE = 40  # of 100 concepts with three phrasings or more; together a tenth of all other phrasings
_WORD = re.compile(r"\{side\}|[a-z0-9]+")


@lru_cache(maxsize=8)
def held_out(table: Table) -> frozenset[tuple[str, str]]:
    """(field, phrase) of the phrasings that only the split ``test_heldout`` uses.

    A hash of the concept says whether one of its phrasings is held out, a hash of the phrase which one; neither
    depends on the rest of the table. Never the first (canonical) phrasing, nor one that another phrasing contains.
    """
    if not table.complete:
        return frozenset()
    concepts = list(_decisive_concepts(table))
    everything = [_words(phrase) for phrase in _all_phrases(table)]
    found = set()
    for field, phrases in concepts:
        if len(phrases) < 3 or _bucket(f"{field}|{phrases[0]}") >= _SHARE:
            continue
        free = [p for p in phrases[1:] if sum(_words(p) in other for other in everything) == 1]
        if free:
            found.add((field, min(free, key=lambda phrase: hashlib.sha256(phrase.encode()).digest())))
    return frozenset(found)


@lru_cache(maxsize=8)
def seen_table(table: Table) -> Table:
    """The table without its held-out phrasings: the world of the splits train, validation and test."""
    if not table.complete:
        return table
    unseen = held_out(table)

    def keep(field: str, phrases: Iterable[str]) -> tuple[str, ...]:
        return tuple(phrase for phrase in phrases if (field, phrase) not in unseen)

    concepts = {
        field: {name: keep(field, phrases) for name, phrases in named.items()}
        for field, named in table.concepts.items()
    }
    conditions = {
        name: replace(c, exam=tuple(keep("finding", found) for found in c.exam), test=keep("test", c.test))
        for name, c in table.conditions.items()
    }
    return replace(table, concepts=concepts, conditions=conditions, complete=False)


def has_unseen_fact(table: Table, case: Case) -> bool:
    """Whether a decisive fact of the case is said in a held-out phrasing of ``table``."""
    unseen = held_out(table)
    return any((slot.field, slot.phrase) in unseen for s in case.sentences for slot in s.slots.values())


def conditions_with_unseen(table: Table) -> frozenset[str]:
    """Names of the conditions whose notes can say a decisive fact of theirs in a held-out phrasing."""
    unseen = held_out(table)
    found = set()
    for name, c in table.conditions.items():
        named = [("diagnosis", name), ("management", c.management)]
        named += [(field, part.name) for field, part in (("organism", c.organism), ("drug", c.drug),
                                                         ("treatment", c.treatment)) if part]  # fmt: skip
        own = [(field, phrase) for field, concept in named for phrase in table.concepts[field][concept]]
        own += [("finding", phrase) for phrases in c.exam for phrase in phrases] + [("test", p) for p in c.test]
        if unseen.intersection(own):
            found.add(name)
    return frozenset(found)


def says(text: str, phrase: str) -> bool:
    """Whether ``text`` holds the words of ``phrase`` one after the other; ``{side}`` stands for any side."""
    pattern = _words(phrase).replace("{side}", "(?:right|left|r|l)")
    return re.search(pattern, _words(text)) is not None


def _decisive_concepts(table: Table) -> Iterator[tuple[str, tuple[str, ...]]]:
    for field in DECISIVE:
        for phrases in table.concepts.get(field, {}).values():
            yield field, phrases
    for c in table.conditions.values():
        yield from (("finding", phrases) for phrases in c.exam)
        yield "test", c.test


def _all_phrases(table: Table) -> Iterator[str]:
    for concepts in table.concepts.values():
        for phrases in concepts.values():
            yield from phrases
    for c in table.conditions.values():
        yield from (phrase for phrases in (*c.exam, c.test) for phrase in phrases)
    for patterns in table.sentences.values():
        yield from patterns


def _words(text: str) -> str:
    """The words in lower case between single spaces, with a space at both ends."""
    return f" {' '.join(_WORD.findall(text.lower()))} "


def _bucket(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % 100
