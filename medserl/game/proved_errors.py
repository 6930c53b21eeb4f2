"""Errors that can be made in any note and are proved to be ones: the ``rules`` referee knows that they exclude what was
there.

Notes with a gold error have it in one place, often in the same kind of sentence. These errors stand anywhere.
"""

from __future__ import annotations

import re
from functools import cache
from random import Random

from medserl.game.labels import Mode
from medserl.game.records import Note
from medserl.game.referee.base import RulingKind
from medserl.game.referee.canonical import shipped_lexicon
from medserl.game.referee.rules import RulesReferee
from medserl.game.vcf import apply_vcf

_AMOUNT = re.compile(r"(?<![\w.,/-])(\d{1,3})(?=[ -](?:mc?g|days?|weeks?|months?|hours?|years?|times)\b)(?!.{0,7}-old)")
_FACTORS = (2, 3, 5, 10)


def proved_error(note: Note, rng: Random) -> str | None:
    """The note with one word exchanged for one that excludes it (left for right, elevated for decreased), or with
    another dose or time; only where the ``rules`` referee calls that an error and the filter lets it pass.

    Args:
        note: Its gold error, where it has one, is not looked at.
        rng: Draws among all places, and among the words that may stand there.

    Returns:
        None where no place offers such an error.
    """
    places = [
        (match.span(), rng.choice(others)) for pattern, others in _opposites() for match in pattern.finditer(note.text)
    ]
    places += [(match.span(1), str(int(match[1]) * rng.choice(_FACTORS))) for match in _AMOUNT.finditer(note.text)]
    bare = Note(note.note_id, note.text)
    for (start, end), new in rng.sample(places, len(places)):
        word = new[0].upper() + new[1:] if note.text[start].isupper() else new
        modified = note.text[:start] + word + note.text[end:]
        ruling = RulesReferee().rule(bare, Mode.ERROR, modified)
        if ruling.kind is RulingKind.ERROR and apply_vcf(note.text, modified).passed:
            return modified
    return None


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
