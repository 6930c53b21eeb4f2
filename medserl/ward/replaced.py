"""What became of a decisive fact, a specimen or a dose that an edit put something else in the place of: an error, lost,
said otherwise, or undecidable.

The words that replace it say which. A word that the table has for something else is no slip of spelling; a word that is
nearly one of the fact's own may be one, or belong to a phrasing that the table does not have.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import pairwise

from medserl.game.referee import Ruling, RulingKind
from medserl.ward.cases import group
from medserl.ward.facts import NEGATIONS, Fact, Reading, reader, tokens
from medserl.ward.table import Condition, Table

DECISIVE = ("diagnosis", "organism", "drug", "treatment", "management")
_DESCRIBED = ("diagnosis", "treatment", "management")
"""What is said in words that can be put together anew; drugs and organisms have names."""
_DOSING = ("number", "unit", "route", "frequency")
_EVERY = re.compile(r"q\d+h")
_PREPOSITIONS = frozenset({"of", "for", "in", "with", "at", "after", "if", "on", "to"})


def rule_on_replaced(table: Table, condition: Condition, before: Reading, after: Reading) -> Ruling | None:
    """The ruling on the sentences that an edit touched, ``before`` and ``after`` it; None where it stays undecided.

    Only for edits that left words or facts which the table does not know here.
    """
    lost, gained = before.facts - after.facts, after.facts - before.facts
    fields = {fact.field for fact in gained}
    gone = sorted((fact for fact in lost if fact.field not in fields), key=lambda fact: fact.field not in DECISIVE)
    less = any(fact.field in DECISIVE for fact in gone) and _words(after.content) < _words(before.content)
    if less and not gained:
        return Ruling(RulingKind.LOSSY, "a fact is lost")
    for fact in gone:
        if fact.field in DECISIVE and _names_another(table, condition, fact, before, after):
            return Ruling(RulingKind.ERROR, fact.field)
        if (fact.field in DECISIVE or fact.field == "specimen") and _gave_way(table, condition, fact, before, after):
            return Ruling(RulingKind.ERROR, fact.field)
        if fact.field in _DOSING and _misdosed(table, condition, fact, before, after):
            return Ruling(RulingKind.ERROR, "dose" if fact.field in ("number", "unit") else fact.field)
    return Ruling(RulingKind.LOSSY, "a fact is lost") if less else _said_anew(table, gone, before, after)


def _said_anew(table: Table, gone: list[Fact], before: Reading, after: Reading) -> Ruling | None:
    """The ruling where all words that belong to no fact are words of the same concepts: what was said is said in words
    that no one phrasing has ("acute gout arthritis"), or less of it is said ("severe falciparum"); else None."""
    words = _words(after.content)
    decisive = [fact for fact in gone if fact.field in DECISIVE]
    own = [phrase for fact in decisive or gone or after.facts for phrase in _phrases(table, fact)]
    if not set(after.words) <= _words_said(own) or words & NEGATIONS - _words(before.content) - _words_said(own):
        return None
    heads = {_head(phrase) for fact in decisive if fact.field in _DESCRIBED for phrase in _phrases(table, fact)}
    if not gone or words & heads or any(_words(phrase) <= words for phrase in own):
        return Ruling(RulingKind.BENIGN, "words of the same concept")
    return Ruling(RulingKind.LOSSY, "a fact is lost")


def _names_another(table: Table, condition: Condition, fact: Fact, before: Reading, after: Reading) -> bool:
    """Whether a decisive fact gave way to something that is not it.

    So it is where nothing near its words is left; where what its phrases are about or end with ("anemia" in "pernicious
    anemia") is gone and there is a word of other conditions, or one that other phrases are about; where a word or fact
    stands by it that tells another condition ("meningococcal endocarditis"); and where it is denied, or its time is
    another now.
    """
    phrases = _phrases(table, fact)
    own = {word for phrase in phrases for word in phrase if len(word) > 1}
    words = _words(after.content)
    new = words - _words(before.content) - own
    foreign = new & _words_of_others(table, condition)
    headless = any(not _near(ends, words) for ends in ({_head(p) for p in phrases}, {p[-1] for p in phrases}))
    if not _near(own, set(after.words - before.words) or words) or new & NEGATIONS:
        return True
    if (headless and foreign | (new & _heads(table))) or new & _telling_words(table, condition):
        return True
    gained = after.facts - before.facts
    if any(other.field in DECISIVE and other.concept != condition.terms.get(other.field) for other in gained):
        return True
    times = {found.concept for found in gained if found.field == "duration"}
    when = {found.concept for phrase in phrases for found in _durations(table, phrase)}
    return bool(when and (times - when if times else foreign))


def _gave_way(table: Table, condition: Condition, fact: Fact, before: Reading, after: Reading) -> bool:
    """Whether words of the table stand where a fact stood that none of its phrasings says any more.

    Words of other conditions replace it unless a phrasing is there as a whole ("knee splint" is no wrist splint); words
    of the condition's other facts where a phrasing's head, or half of it, is gone too ("hip fixation" is no fracture,
    "ferrous deficiency anemia" may be one). Signs and organs tell nothing beside a diagnosis ("lung tuberculosis").
    """
    phrases = _phrases(table, fact) or _found_phrases(condition, fact)
    own = _words_said(phrases)
    words = _words(after.content)
    new = (words - _words(before.content) - own) & _vocabulary(table) - _common(table) - _words_under(table, "side")
    if fact.field == "diagnosis":
        headed = words & set(map(_head, phrases))
        new -= _words_of_patients(table) - (frozenset() if headed else _words_under(table, *DECISIVE))
    elif fact.field == "drug":
        new -= _words_under(table, "unit", "route", "frequency")
    if not new:
        return False
    foreign = new & _words_of_others(table, condition)
    slips = words - own - _vocabulary(table)
    for phrase in phrases:
        telling = _words(phrase) - _PREPOSITIONS - _common(table)
        said = {word for word in telling if word in words or _near({word}, slips)}
        if said >= telling:
            return False
        if not foreign and _head(phrase) in said and 2 * len(said) > len(telling):
            return False
    return True


def _misdosed(table: Table, condition: Condition, fact: Fact, before: Reading, after: Reading) -> bool:
    """Whether something that is no other known dose, route or frequency stands where one stood."""
    new = _words(after.content) - _words(before.content)
    gained = after.facts - before.facts
    if new & _words_of_others(table, condition):
        return True
    if fact.field == "unit":  # "2.4 kg" for 2.4 g, or another number of nothing
        others = _words_under(table, "unit") - _words_said(_phrases(table, fact))
        return bool(new & others) or any(found.field == "number" for found in gained)
    return fact.field == "frequency" and (
        any(_EVERY.fullmatch(word) for word in new) or any(found.field == "duration" for found in gained)
    )


def _long(words: set[str]) -> set[str]:
    return {word for word in words if len(word) > 2}


def _near(own: set[str], words: set[str]) -> bool:
    """Whether a word of one set is one of the other or looks like one; short ones are in many a word."""
    pairs = ((word, other) for word in _long(own) for other in words)
    return bool(own & words) or any(
        word in other or get_close_matches(other, [word], cutoff=0.7) for word, other in pairs
    )


def _words(said: Iterable[str]) -> set[str]:
    return {word for word in said if word in NEGATIONS or (len(word) > 1 and not word[0].isdigit())}


def _words_said(phrases: list[tuple[str, ...]]) -> set[str]:
    return {word for phrase in phrases for word in phrase}


def _phrases(table: Table, fact: Fact) -> list[tuple[str, ...]]:
    """How the table says a fact; none for a number, and for what `_found_phrases` has."""
    phrases = table.concepts.get(fact.field, {}).get(fact.concept, ())
    return [tokens(phrase.replace("{side}", " ")) for phrase in phrases]


def _found_phrases(condition: Condition, fact: Fact) -> list[tuple[str, ...]]:
    """How a specimen is said, where it is the condition's own."""
    phrases = next((found for _, found in condition.found if group(found) == fact.concept), ())
    return [tokens(phrase.replace("{side}", " ")) for phrase in phrases]


def _head(phrase: Sequence[str]) -> str:
    """What a phrase is about: the word before its first preposition, else its last one."""
    for word, following in pairwise(phrase):
        if following in _PREPOSITIONS:
            return word
    return phrase[-1]


@lru_cache(maxsize=4)
def _heads(table: Table) -> frozenset[str]:
    """What all phrases of decisive concepts are about."""
    phrases = _phrases_under(table, *DECISIVE)
    return frozenset(_long({word for phrase in phrases for word in (_head(phrase), phrase[-1])}))


def _durations(table: Table, phrase: Sequence[str]) -> Iterator[Fact]:
    """Times that a phrase says, as a reader finds them where the phrase itself is not whole."""
    for start in range(len(phrase) - 1):
        for fact in reader(table).sentence(" ".join(phrase[start : start + 2])).facts:
            if fact.field == "duration":
                yield fact


@lru_cache(maxsize=256)
def _words_of(table: Table, condition: Condition) -> frozenset[str]:
    """Every word that the table says about a condition."""
    said = [*condition.terms.items(), *(("symptom", symptom) for symptom in condition.symptoms)]
    phrases = [phrase for field, concept in said for phrase in table.concepts[field][concept]]
    phrases += [phrase for side in table.concepts["side"].values() for phrase in side]
    phrases += [phrase for _, found in condition.found for phrase in found]
    return frozenset(word for phrase in phrases for word in tokens(phrase))


@lru_cache(maxsize=256)
def _words_of_others(table: Table, condition: Condition) -> frozenset[str]:
    """Words that the table says about other conditions only."""
    every = frozenset(word for other in table.conditions.values() for word in _words_of(table, other))
    return frozenset(word for word in every - _words_of(table, condition) if len(word) > 2)


@lru_cache(maxsize=256)
def _telling_words(table: Table, condition: Condition) -> frozenset[str]:
    """Words of decisive concepts that are said of one or two other conditions, and not of this one.

    Left out are those that a phrase is about, and those that describe patients too: "lung" tells nothing.
    """
    counts: Counter[str] = Counter()
    heads: set[str] = set()
    for other in table.conditions.values():
        terms = [(field, concept) for field, concept in other.terms.items() if field in DECISIVE]
        phrases = [tokens(phrase) for field, concept in terms for phrase in table.concepts[field][concept]]
        counts.update({word for phrase in phrases for word in phrase})
        heads.update(map(_head, phrases))
    words = _words_of_others(table, condition) - heads - _words_of_patients(table)
    return frozenset(word for word in words if 1 <= counts[word] <= 2)


@lru_cache(maxsize=4)
def _words_of_patients(table: Table) -> frozenset[str]:
    """Words of symptoms, examinations and tests."""
    phrases = [phrase for symptom in table.concepts["symptom"].values() for phrase in symptom]
    phrases += [phrase for condition in table.conditions.values() for _, found in condition.found for phrase in found]
    return frozenset(word for phrase in phrases for word in tokens(phrase))


def _phrases_under(table: Table, *fields: str) -> list[tuple[str, ...]]:
    return [tokens(phrase) for name in fields for concept in table.concepts[name].values() for phrase in concept]


@lru_cache(maxsize=64)
def _words_under(table: Table, *fields: str) -> frozenset[str]:
    """Words of all concepts of some fields."""
    return frozenset(_words_said(_phrases_under(table, *fields)))


@lru_cache(maxsize=4)
def _vocabulary(table: Table) -> frozenset[str]:
    """Every word with which the table says a fact."""
    return _words_under(table, *table.concepts) | _words_of_patients(table)


@lru_cache(maxsize=4)
def _common(table: Table) -> frozenset[str]:
    """Words of four or more diagnoses or plans that none of them is about: "acute", "repeat"."""
    found: set[str] = set()
    for name in _DESCRIBED:
        concepts = [[tokens(phrase) for phrase in phrases] for phrases in table.concepts[name].values()]
        counts = Counter(word for phrases in concepts for word in _words_said(phrases))
        heads = {_head(phrase) for phrases in concepts for phrase in phrases}
        found |= {word for word, count in counts.items() if count >= 4} - heads
    return frozenset(found)
