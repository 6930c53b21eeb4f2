"""The injector's format ``phrase``: words of the note, and what stands in their place."""

from __future__ import annotations

import re
from collections.abc import Sequence

from medserl.game.parse import InjectorEdit, ParseFailure, strip_think, without_number
from medserl.game.reply import once, read_body, undressed

MOST_WORDS = 40
"""Of an old phrase that is demonstrated: gold errors of MEDEC name 18 at most, and a reply has room for some 40 twice.
"""
_STOPS, _ENDS = tuple(".,;:"), tuple(".?!")
_MARKED_NUMBER = re.compile(r"[\[(]?([0-9]{1,6})[\]).:]")
_ACCENTS = "\u0300-\u036f"  # that stand on the letter before them


def parse_phrase(text: str, original_note: str, opened: bool = False) -> InjectorEdit | ParseFailure:
    """Parse ``old_phrase: …`` and, after it, ``new_phrase: …``, each on one line; rebuild the note.

    The old phrase stands in ``original_note`` as whole words (`phrase_places`), and its first place is meant. Only the
    words that differ are replaced, and all else stays as it is, byte for byte. Not strict, but read: quotes around a
    phrase, the old one in another case, a full stop behind the new one where the note has one. ``opened``: as in
    `split_think`.
    """
    fields = once(read_body(strip_think(text, opened)).fields)
    places = [i for i, field in enumerate(fields) if field.key == "old_phrase"]
    if len(places) != 1:
        return ParseFailure(f"expected one line 'old_phrase: …', found {len(places)}")
    news = [field for field in fields[places[0] + 1 :] if field.key == "new_phrase"]
    if len(news) != 1:
        return ParseFailure(f"expected one line 'new_phrase: …' after old_phrase, found {len(news)}")
    old, new = fields[places[0]], news[0]
    found, bare, number = _old_places(original_note, old.value)
    if not found:
        return ParseFailure("old_phrase does not stand in the note")
    start, end = found[0]
    was = original_note[start:end]
    said = new.value if number is None else without_number(new.value, number, was)
    phrase = _dressed(undressed(said, was), was, original_note[end : end + 1], bare)
    if not phrase:
        return ParseFailure("new_phrase is empty")
    strict = old.strict and new.strict and was.split() == old.value.split() and phrase == new.value
    return InjectorEdit(original_note[:start] + _replaced(was, phrase.split()) + original_note[end:], strict=strict)


def _old_places(note: str, value: str) -> tuple[list[tuple[int, int]], str, int | None]:
    """Where an old phrase stands, what it is without marks, and the number of its sentence where one was in front."""
    bare = undressed(value)
    marked = _MARKED_NUMBER.match(bare)
    whole: list[tuple[str, int | None]] = [(value, None), (bare, None)]
    if marked is not None:
        number = int(marked.group(1))
        whole.append((undressed(without_number(bare, number, "")), number))
    for same_case in (True, False):
        for phrase, number_ in whole:
            if found := phrase_places(note, phrase, same_case):
                return found, phrase, number_
    return [], bare, None


def _dressed(phrase: str, was: str, after: str, said: str) -> str:
    """A new phrase with a full stop where the old one in the note has one, not twice where ``after`` it comes one, and,
    where the reply ``said`` the old one in another case, with the note's case at its beginning."""
    if phrase[-1:] in _STOPS and phrase[-1:] == after != was[-1]:
        phrase = phrase[:-1]
    elif was[-1] in _ENDS and phrase and phrase[-1] not in (*_STOPS, *_ENDS):
        phrase += was[-1]
    if was[:1] != said[:1] and was[:1].lower() == said[:1].lower() and phrase[1:2].islower():
        phrase = (phrase[:1].upper() if was[0].isupper() else phrase[:1].lower()) + phrase[1:]
    return phrase


def _replaced(phrase: str, new: Sequence[str]) -> str:
    """A phrase with the words of another in the place of those that differ, and the white space around these kept."""
    words = list(re.finditer(r"\S+", phrase))
    old = [word.group() for word in words]
    most = min(len(old), len(new)) - 1  # one word at least is replaced, by one at least: there is no space to invent
    head = next((i for i in range(most) if old[i] != new[i]), most)
    tail = next((i for i in range(most - head) if old[-1 - i] != new[-1 - i]), most - head)
    start, end = words[head].start(), words[len(old) - tail - 1].end()
    return phrase[:start] + " ".join(new[head : len(new) - tail]) + phrase[end:]


def phrase_places(text: str, phrase: str, same_case: bool = True) -> list[tuple[int, int]]:
    """From and to which character of a text a phrase stands, as whole words and numbers with any white space between
    them; places may overlap."""
    words = phrase.split()
    if not words:
        return []
    first, last = words[0], words[-1]
    before = r"(?<!\w)" if first[0].isalnum() or (first[0] in "+-" and first[1:2].isdigit()) else ""
    behind = rf"(?![\w{_ACCENTS}])" if last[-1].isalnum() else ""
    before += r"(?<!\d[.,/:-])" if first[0].isdigit() else ""  # not the 5 of 1.5, nor of 120/5
    behind += r"(?![.,/:-]\d)" if last[-1].isdigit() else ""
    pattern = r"\s+".join(re.escape(word) for word in words)
    found = re.finditer(f"(?={before}({pattern}){behind})", text, re.NOFLAG if same_case else re.IGNORECASE)
    return [match.span(1) for match in found]


def phrase_answer(old: str, new: str) -> str:
    """The injector's answer in the ``phrase`` format."""
    return f"old_phrase: {old}\nnew_phrase: {new}"


def changed_phrase(before: str, after: str) -> tuple[str, str] | None:
    """The words of one note that another has others for, and those, as the format ``phrase`` wants them.

    Neither is empty, and the place meant is the old ones' first in the note, for which words around them come along.
    None where no word differs, or where more than `MOST_WORDS` would have to be named.
    """
    old, new = before.split(), after.split()
    if old == new or not old or not new:
        return None
    text = " ".join(old)
    most = min(len(old), len(new))
    left = next((i for i in range(most) if old[i] != new[i]), most)
    right = next((i for i in range(most - left) if old[-1 - i] != new[-1 - i]), most - left)
    while (left or right) and len(old) - left - right <= MOST_WORDS:
        was, now = " ".join(old[left : len(old) - right]), " ".join(new[left : len(new) - right])
        if was and now and was[-1] == now[-1] and was[-1] in ".,;:":
            was, now = was[:-1].rstrip(), now[:-1].rstrip()
        if was and now and phrase_places(text, was)[0][0] == len(" ".join([*old[:left], ""])):
            return was, now
        if left and (old[left - 1][-1] not in ".:?!" or not right):  # rather not into the sentence before
            left -= 1
        else:
            right -= 1
    return (text, " ".join(new)) if len(old) <= MOST_WORDS else None
