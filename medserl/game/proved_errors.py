"""Errors that can be made in any note and are proved to be ones: the ``rules`` referee knows that they exclude what was
there.

Notes with a gold error have it in one place, often in the same kind of sentence. These errors stand anywhere.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from random import Random
from typing import NamedTuple

from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee.base import RulingKind
from medserl.game.referee.canonical import shipped_lexicon
from medserl.game.referee.rules import RulesReferee
from medserl.game.sentences import split_sentences
from medserl.game.vcf import apply_vcf

_AMOUNT = re.compile(r"(?<![\w.,/-])(\d{1,3})(?=[ -](?:mc?g|days?|weeks?|months?|hours?|years?|times)\b)(?!.{0,7}-old)")
_FACTORS = (2, 3, 5, 10)
_DENIED = re.compile(r"(?<=[a-z] )(?:is|was|are|were|can|(?:has|had|have)(?= \w+ed\b| been\b))(?= [a-z])(?! not?\b)")
"""Where "not" makes the contrary of a sentence in plain English: behind a word, and before one."""


def proved_error(note: Note, rng: Random, habit: float = 0.0, drawn: Counter[str] | None = None) -> str | None:
    """The note with one word exchanged for one that excludes it (left for right, elevated for decreased), with another
    dose or time, or with "not" put in; only where the ``rules`` referee calls that an error and the filter passes it.

    Args:
        note: Its gold error, where it has one, is not looked at.
        rng: Draws among all places, and among the words that may stand there.
        habit, drawn: How often the usual word comes at a sentence's first place instead, and what was changed before
            (`drawn_places`).

    Returns:
        None where no place offers such an error.
    """
    places = [Place(match.span(), others) for pattern, others in _opposites() for match in pattern.finditer(note.text)]
    amounts = ((match, int(match[1])) for match in _AMOUNT.finditer(note.text))
    places += [Place(match.span(1), tuple(str(amount * factor) for factor in _FACTORS)) for match, amount in amounts]
    places += [Place(match.span(), (f"{match[0]} not",)) for match in _DENIED.finditer(note.text)]
    bare, rules = Note(note.note_id, note.text), RulesReferee()
    for modified in drawn_places(note.text, places, rng, habit, drawn):
        ruling = rules.rule(bare, Mode.ERROR, modified)
        if ruling.kind is RulingKind.ERROR and apply_vcf(note.text, modified).passed:
            return modified
    return None


class Place(NamedTuple):
    """Where in a text a phrase stands, and what may come in its place, the usual one first."""

    span: tuple[int, int]
    others: tuple[str, ...]


def drawn_places(
    text: str, places: Sequence[Place], rng: Random, habit: float, drawn: Counter[str] | None = None
) -> Iterator[str]:
    """The text with one of the places changed, again and again, each place at most once.

    With ``habit`` as its probability the first place of a drawn sentence comes with its usual other phrase. A model
    that is to copy a sentence up to a place which could be any, for a phrase which could be any, does best by copying
    all of it: one likely answer per sentence is learnt (medserl.ward.demonstrations has the same).

    Phrases that came seldom before come first, and ``drawn`` counts them: some words stand in nearly every note, and a
    model that meets them in most demonstrations names them for any note.
    """
    usual = rng.random() < habit
    if usual:
        starts = [sentence.start for sentence in split_sentences(text)]
        first: dict[int, Place] = {}
        for place in sorted(places):
            first.setdefault(bisect_right(starts, place.span[0]), place)
        places = list(first.values())
    order, drawn = rng.sample(places, len(places)), Counter() if drawn is None else drawn
    for (start, end), others in sorted(order, key=lambda place: drawn[text[slice(*place.span)].lower()]):
        drawn[text[start:end].lower()] += 1
        new = others[0] if usual else rng.choice(others)
        yield text[:start] + (new[0].upper() + new[1:] if text[start].isupper() else new) + text[end:]


@cache
def _opposites() -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    """A pattern for each word of the lexicon that others exclude, and those."""
    others: dict[str, list[str]] = {}
    for group in shipped_lexicon().exclusive_groups:
        for word in group:
            others.setdefault(word, []).extend(other for other in group if other != word)
    return tuple(
        (re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE), tuple(dict.fromkeys(words)))
        for word, words in others.items()
    )
