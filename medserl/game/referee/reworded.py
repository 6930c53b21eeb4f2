"""When an exchange of words changes no statement: order, repeated negation, and doses said in another way."""

import re
from collections import Counter
from collections.abc import Sequence

from medserl.game.referee.canonical import Lexicon, Token
from medserl.game.sentences import sentence_texts

_REACH = 8  # words around a difference that may belong to the phrases that changed places
_COPULAS = frozenset(("is", "was", "are", "were"))
_PARTS = re.compile(r"[;:()\[\]]|,(?!\d)|\s[-–—]\s|\b(?:and|or|nor|but|while|whereas|plus|with)\b", re.IGNORECASE)


def reordered(before: str, after: str, words: Lexicon) -> bool:
    """Whether the same phrases stand in another order: "left and right" for "right and left"."""
    old, new = ([t for t in words.tokens(text) if t.text not in words.fillers] for text in (before, after))
    return _swapped(old, new, words) or _phrases(before, words) == _phrases(after, words)


def _phrases(text: str, words: Lexicon) -> Counter[tuple[Token, ...]]:
    found: Counter[tuple[Token, ...]] = Counter()
    for sentence in sentence_texts(text):
        for part in _PARTS.split(sentence):
            tokens = tuple(token for token in words.tokens(part) if token.text not in words.fillers | _COPULAS)
            if tokens:
                found[tokens] += 1
    return found


def _swapped(old: Sequence[Token], new: Sequence[Token], words: Lexicon) -> bool:
    """Whether "X and Y" became "Y and X", whatever the two phrases."""
    if len(old) != len(new):
        return False
    start, stop = 0, len(old)
    while start < stop and old[start] == new[start]:
        start += 1
    while stop > start and old[stop - 1] == new[stop - 1]:
        stop -= 1
    if _opposite_pair(old[start:stop], new[start:stop], words):
        return True
    joints = [i for i in range(start, stop) if old[i].text in words.joints]
    for first in range(start, max(start - _REACH, 0) - 1, -1):
        for last in range(stop, min(stop + _REACH, len(old)) + 1):
            for joint in joints:
                x, y = old[first:joint], old[joint + 1 : last]
                if x and y and new[first:last] == [*y, old[joint], *x]:
                    return True
    return False


def _opposite_pair(old: Sequence[Token], new: Sequence[Token], words: Lexicon) -> bool:
    """ "Left, right" for "right, left": the comma between them is no token."""
    if len(old) != 2 or list(new) != [old[1], old[0]]:
        return False
    return words.exclusive_class(old[0].text, old[1].text) is not None


def negated_already(tokens: Sequence[Token], place: int, starts: Sequence[int], words: Lexicon) -> bool:
    """Whether what stands at ``place`` is denied by a negation before it: "no fever, chills or cough".

    ``starts``: where sentences begin. A verb or a contrast between the two ends the reach of the negation.
    """
    first = max(start for start in starts if start <= place)
    for token in reversed(tokens[first:place]):
        if token.text in words.denials:
            return True
        if token.text in words.negation_ends:
            return False
    return False


def other_measure(old: Token, new: Token, words: Lexicon) -> bool:
    """Whether two doses are said in measures that cannot be compared: "one tablet", "81 mg"; "10 mL", "400 mg".

    The same number with another unit ("5 mL", "5 mg") is no such pair.
    """
    if old.dimension == new.dimension or old.kind != "dose" or new.kind != "dose":
        return False
    dimensions = {old.dimension.partition("/")[0], new.dimension.partition("/")[0]}
    return "count" in dimensions or not any(
        abs(a - b) <= 1e-6 * max(a, b) for a in words.written(old) for b in words.written(new)
    )
