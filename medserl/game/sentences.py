"""Sentence boundaries that survive clinical text; one splitter for the prompt's numbers and for the filter.

A boundary comes from words or from lines. From words (`sentence_ends`): a word with a full stop, the words around it,
and the numbers of a list, whatever white space is between them. From lines (`line_ends`): a blank line, a bullet, a
header, or a line that begins like an entry of its own. `split_sentences` has both.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from medserl.game.clinical_words import (
    ABBREVIATIONS,
    CONTINUERS,
    DOSING,
    ENDING_TITLES,
    LEADERS,
    LETTERED,
    NUMBERED,
    SPECIES,
    SPECIES_ENDINGS,
    STARTERS,
    TITLES,
    UNIT_TAILS,
    UNITS,
)

_OPENERS = "\"'([{<“‘«*_"
_CLOSERS = "\"')]}>”’»*_"
_TERMINATORS = ".!?…"
_LAST_CHARS = frozenset(_TERMINATORS + _CLOSERS)
_AROUND = _OPENERS + _CLOSERS + _TERMINATORS + ",;:"
_BULLET = re.compile(r"(?:[-–—−•●○■□▪*·‣◦+#|>→✓✔☐☑]+|\(?(?:\d{1,2}|[A-Za-z]|[ivx]{1,4})\)|\d{1,2}\.\)?|\[[ xX]?\])$")
_RULE = re.compile(r"[^\w\s]{3,}$")
_STAMP = re.compile(r"(?:\d{1,2}:\d{2}|\d{4}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/\d{2,4})[-:,]?$")
_HEADER_WORDS = 4
_DOTTED = re.compile(r"(?:[A-Za-z]{1,2}\.){2,}$")
_ENUMERATOR = re.compile(r"\d{1,2}\.$")
_ITEM = re.compile(r"(\(?)(\d{1,2})([.)])\)?$")
_WORD = re.compile(r"\S+")
# Control characters, and what Unicode has fonts show nothing for (Default_Ignorable_Code_Point): some of these are
# letters to Python, and printable.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


class Span(NamedTuple):
    """Half-open character range [start, end) of one sentence, without the white space around it."""

    start: int
    end: int


class LineBreak(NamedTuple):
    """A line ends after the word of this index."""

    word: int
    blank: bool
    """Whether an empty line follows."""


def visible(text: str) -> str:
    """The text without control and format characters that a reader cannot see; white space stays."""
    return text if text.isascii() and text.isprintable() else _INVISIBLE.sub("", text)


def visible_words(text: str) -> list[str]:
    """The text's words, without what a reader cannot see."""
    words = text.split()
    joined = " ".join(words)
    return words if joined.isascii() and joined.isprintable() else _INVISIBLE.sub("", joined).split()


def visible_lines(text: str) -> tuple[list[str], list[LineBreak]]:
    """`visible_words`, and where among them lines end; for `line_ends`."""
    words = visible_words(text)
    if len(lines := text.splitlines()) < 2:
        return words, []
    breaks: list[LineBreak] = []
    count, empty = 0, 0
    for line in lines:
        own = len(visible_words(line))
        if own and count:
            breaks.append(LineBreak(count - 1, empty > 0))
        count, empty = count + own, 0 if own else empty + 1
    return words, breaks


def split_sentences(text: str, *, lines: bool = True) -> list[Span]:
    """Sentences of ``text`` as character spans, in order; linear in the length of the text.

    Between two spans, before the first and after the last there is white space only, so the spans and the
    gaps together give the text back. Without ``lines`` white space plays no part at all, and the sentences are those
    of `sentence_ends`.
    """
    if not (stripped := text.strip()):
        return []
    offset = text.index(stripped[0])
    matches = [match for match in _WORD.finditer(text) if visible(match.group())]
    if not matches:
        return [Span(offset, offset + len(stripped))]
    words = [visible(match.group()) for match in matches]
    ends = sentence_ends(words)
    if lines:
        ends = sorted({*ends, *line_ends(words, visible_lines(text)[1])})
    # What cannot be seen may stand between two words: it belongs to the sentence before.
    starts = [offset, *(matches[end + 1].start() for end in ends[:-1])]
    stops = [*starts[1:], len(text)]
    return [Span(a, a + len(text[a:b].rstrip())) for a, b in zip(starts, stops, strict=True)]


def sentence_texts(text: str) -> list[str]:
    """The sentences that a prompt numbers from 0: those of `split_sentences`, each on one line."""
    return [" ".join(text[span.start : span.end].split()) for span in split_sentences(text)]


# ------------------------------------------------------------------------------------------------ words


def sentence_ends(words: Sequence[str], start: int = 0, stop: int | None = None) -> list[int]:
    """Indices in [start, stop) of the words that end a sentence, ascending; the last word always does.

    ``words`` are non-empty and hold no white space. The rule at one word looks at two words before it and one after
    it, and at the numbers of a list (`list_items`) wherever they are.
    """
    stop = len(words) if stop is None else stop
    ends, _ = ends_and_numbers(words)
    return [end for end in ends if start <= end < stop]


def ends_and_numbers(words: Sequence[str]) -> tuple[list[int], bool]:
    """`sentence_ends`, and whether a word might number an item; where none does, boundaries are a local matter."""
    # Nine words in ten end in no terminator; this comprehension is the whole cost for them.
    candidates = [i for i, word in enumerate(words) if word[-1] in _LAST_CHARS]
    if words and words[-1][-1] not in _LAST_CHARS:
        candidates.append(len(words) - 1)
    numbers = [i for i in candidates if words[i][0] in "(0123456789" and is_number(words[i])]
    ends = _ends_among(words, candidates)
    if len(numbers) > 1 and (items := list_items(words, numbers)):
        begun = {i - 1 for i, begins in items.items() if begins}
        ends = sorted({*(i for i in ends if i not in items), *begun})
    return ends, bool(numbers)


def local_ends(words: Sequence[str], start: int, stop: int) -> list[int]:
    """`sentence_ends` in a range, of words none of which numbers an item; costs as much as the range is long."""
    return _ends_among(words, [i for i in range(start, stop) if words[i][-1] in _LAST_CHARS or i + 1 == len(words)])


def _ends_among(words: Sequence[str], candidates: Sequence[int]) -> list[int]:
    last = len(words) - 1
    return [i for i in candidates if i == last or _ends_sentence(words, i)]


def is_number(word: str) -> bool:
    """Whether a word could number an item of a list."""
    return word[0] in "(0123456789" and word[-1] in ".)" and _ITEM.match(word) is not None


def list_items(words: Sequence[str], numbers: Sequence[int]) -> dict[int, bool]:
    """Words that number the items of a list, "1." "2." or "(1)" "(2)", and whether a sentence begins at each.

    ``numbers``: the words to look at. Two numbers in order make a list. An item within a sentence ("with 1) fever,
    2) cough") begins none.
    """
    items: dict[int, bool] = {}
    chain: list[int] = []
    style, wanted = "", 1
    for i in numbers:
        match = _ITEM.match(words[i])
        if match is None or i + 1 == len(words) or _takes_number(words[i - 1] if i else ""):
            continue
        number, found = int(match.group(2)), match.group(1) + match.group(3)
        if number == wanted > 1 and found == style:
            chain.append(i)
            # The first is reached by what stands before it, as a header or a sentence.
            items |= {chain[0]: False, i: not _goes_on(words[i - 1])}
            wanted += 1
        elif number == 1:
            chain, style, wanted = [i], found, 2
    return items


def _takes_number(word: str) -> bool:
    return word.strip(_AROUND).lower() in NUMBERED and word[-1:] not in ":.;"


def _goes_on(word: str) -> bool:
    return word[-1] == "," or word.lower() in ("and", "or", "&")


def _ends_sentence(words: Sequence[str], i: int) -> bool:
    before, word, following = words[i - 1] if i else "", words[i], words[i + 1]
    if word[-1] == "." and len(word) > 4 and following[0].isupper() and word[1].islower() and word[:-1].isalpha():
        return word[:-1].lower() not in TITLES  # the usual end; what follows decides the same, slower
    core = word.rstrip(_CLOSERS)
    if not core or core[-1] not in _TERMINATORS:
        return False
    start = following.lstrip(_OPENERS)
    stem = core.rstrip(_TERMINATORS).lstrip(_OPENERS)
    if not stem and len(core) == 1:  # it stands alone, as in tokenised text: "mg . he", but not "37 . 2"
        return before != "" and not (before[-1].isdigit() and start[:1].isdigit())
    if not stem or core[-1] != ".":
        return not start[:1].islower()
    lowered = stem.lower()
    shouted = start.isupper() and ((stem.isupper() and len(stem) > 1) or (len(before) > 1 and before.isupper()))
    if lowered in TITLES:
        return lowered in ENDING_TITLES and _opens(start, shouted)
    if stem == "Ms" or (stem == "MS" and shouted and (not before or before[-1] in _LAST_CHARS)):
        return False
    if start[:1].isdigit() and (lowered == "no" or lowered in ABBREVIATIONS):
        return False
    if start[:1].islower():
        # Notes in lower case: an ordinary word with its full stop ends a sentence there too.
        plain = len(stem) >= 4 and stem.isalpha() and not core.endswith("..")
        return plain and lowered not in ABBREVIATIONS
    if len(stem) == 1 and stem.isalpha():
        return _single_letter_ends(words, i, stem, start, shouted)
    if _DOTTED.match(core):
        if lowered in DOSING:
            return not (shouted and _bare(start) in CONTINUERS)
        return _opens(start, shouted)
    if shouted and lowered in ABBREVIATIONS:
        return _opens(start, True) or (lowered in UNITS and _bare(start) not in CONTINUERS)
    if _ENUMERATOR.match(core):  # "Plan: 1. Aspirin" and "… daily. 2. Metformin"
        if before[-1:] == "." and _bare(before) in (*TITLES, "no"):  # "Fig. 2. He"
            return True
        if before == "" or before[-1] in ":.;" or _goes_on(before):
            return False
        return stem != "1" or _takes_number(before)
    return True


def _bare(word: str) -> str:
    return word.strip(_AROUND).lower()


def _opens(start: str, shouted: bool) -> bool:
    """Whether a word is one that opens sentences; in capitals one that only opens them."""
    bare = _bare(start)
    return start[:1].isupper() and bare in STARTERS and not (shouted and bare in CONTINUERS)


def _single_letter_ends(words: Sequence[str], i: int, letter: str, following: str, shouted: bool) -> bool:
    """ "98.6 F. He" and "hepatitis B. She" end a sentence, "J. Smith" and "S. Aureus" do not."""
    name = _bare(following)
    if letter.isupper() and (name in SPECIES or (len(name) > 6 and name.endswith(SPECIES_ENDINGS))):
        return False
    if _opens(following, shouted) or letter.islower():
        return True
    before = words[i - 1] if i else ""
    stem = before.strip(_AROUND)
    if stem.lower() in LETTERED:
        return True
    if before[-1:] in _TERMINATORS:
        return False
    if stem[-1:].isdigit():
        return True
    if stem.lower() in ("and", "or", "&") and i > 1:  # "vitamins D and K.", but "Smith and A. Jones"
        earlier = words[i - 2].strip(_AROUND)
        return len(earlier) == 1 or (earlier.islower() and not shouted)
    if stem.lower() in ("is", "was") and i > 1 and _bare(words[i - 2]) in LETTERED:  # "Blood type is O."
        return True
    if stem.lower() in LEADERS or stem.lower() in ("patient", "seen", "called"):
        return False
    return stem.isalpha() and stem.islower()


# ------------------------------------------------------------------------------------------------ lines


def line_ends(words: Sequence[str], breaks: Sequence[LineBreak]) -> list[int]:
    """Indices of the words whose line break ends a sentence, ascending; the others are accidents of reflowing.

    ``breaks``: where lines end, ascending.
    """
    ends: list[int] = []
    first = 0
    for place, (last, blank) in enumerate(breaks):
        stop = breaks[place + 1].word + 1 if place + 1 < len(breaks) else len(words)
        if _line_ends(words, first, last, blank, stop):
            ends.append(last)
        first = last + 1
    return ends


def _closes(word: str) -> bool:
    """Whether a word with its full stop closes a line, whatever follows: "mg.", but not "Dr." or "q.d." """
    core = word.rstrip(_CLOSERS)
    stem = core.rstrip(_TERMINATORS).lstrip(_OPENERS)
    if core == stem or len(stem) < 2 or _DOTTED.match(core) or _ENUMERATOR.match(core):
        return False
    return stem.lower() not in TITLES and stem.lower() not in (*ABBREVIATIONS, "no") and not core.endswith("..")


def _line_ends(words: Sequence[str], first: int, last: int, blank: bool, stop: int) -> bool:
    """Whether the line words[first:last + 1] ends a sentence before the next one, words[last + 1:stop]."""
    ending, following = words[last], words[last + 1]
    if first == last and _BULLET.match(ending) and not _RULE.match(ending):
        return False  # a bullet with a line of its own stays with what it marks
    if blank or _RULE.match(following) or _RULE.match(ending) or ending[-1] == ":":
        return True
    if _closes(ending):
        return True
    if _BULLET.match(following):
        return not (following[0].isdigit() and _takes_number(ending))
    if _STAMP.match(following) and not _takes_number(ending):
        return True
    head = next((word for word in words[last + 1 : min(stop, last + 1 + _HEADER_WORDS)] if word[-1] in ":.,;"), "")
    if head[-1:] == ":" and head[:1].isalpha():
        return following[:1].isupper() or ending not in LEADERS
    word = following.strip(_AROUND)
    if not word[:1].isupper() or word.lower() in UNIT_TAILS:
        return False
    if word.isupper() and len(word) > 1 and (word.lower() in CONTINUERS or (ending.isupper() and len(ending) > 1)):
        return word.lower() not in CONTINUERS and ending.lower() not in LEADERS
    return ending not in LEADERS
