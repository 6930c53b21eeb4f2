"""VCF, the verifiable change filter: is an edited note a small, single-sentence, leak-free change?

Checks, in this order (cheapest first): both texts hold words; the words differ; at most ``max_word_edits``
word edits (Levenshtein, a substitution counts 1); more than case, punctuation and typography changed; Jaccard
similarity of the sets of character 3-gram shingles (Broder 1997) within bounds; exactly one sentence changed; no
answer leaked into the note.

Every check sees the words joined by single spaces; only for the sentences do line breaks of the original matter, as
they do in the prompt. Control and invisible format characters (zero-width space, soft hyphen, …) count as nothing.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from medserl.errors import ConfigError
from medserl.game.align import Alignment, align_words
from medserl.game.changes import changed_sentences
from medserl.game.cosmetic import only_cosmetic
from medserl.game.sentences import visible_lines, visible_words

__all__ = [
    "MAX_JACCARD",
    "MAX_WORD_EDITS",
    "MIN_JACCARD",
    "UNPARSEABLE",
    "Reason",
    "VcfVerdict",
    "apply_vcf",
    "changed_sentences",
    "check_bounds",
    "leak_markers",
    "shingle_similarity",
    "shingles",
    "visible_words",
]

MIN_JACCARD = 0.85
MAX_JACCARD = 0.99
MAX_WORD_EDITS = 6


class Reason(StrEnum):
    """Why an attempt was rejected; the set is closed."""

    UNPARSEABLE = "unparseable"
    """The reply does not follow the injector's output format (set by the parser, never by `apply_vcf`)."""
    EMPTY = "empty"
    IDENTICAL = "identical"
    TOO_MANY_EDITS = "too_many_edits"
    COSMETIC = "cosmetic"
    """Only the writing differs: case, punctuation, typography, look-alike letters (`only_cosmetic`)."""
    JACCARD_LOW = "jaccard_low"
    JACCARD_HIGH = "jaccard_high"
    SEVERAL_SENTENCES = "several_sentences"
    LEAK = "leak"


@dataclass(frozen=True, slots=True)
class VcfVerdict:
    """What the filter says of one edit. A measure is None where an earlier check already decided."""

    passed: bool
    reason: Reason | None = None
    """None if and only if the edit passed."""
    word_edits: int | None = None
    """Word-level Levenshtein distance."""
    jaccard: float | None = None
    """Similarity of the two shingle sets, 0 to 1."""
    changed_sentence: int | None = None
    """Index in the original of the (first) changed sentence; for an inserted one, of the sentence it
    precedes.

    Sentences are numbered as in the prompt (`split_sentences`)."""
    sentence_count: int | None = None
    """Sentences of the original."""

    @property
    def position(self) -> float | None:
        """Place of the changed sentence in the original, 0 (first) to 1 (last); 0 in a one-sentence note."""
        if self.changed_sentence is None or self.sentence_count is None:
            return None
        return self.changed_sentence / (self.sentence_count - 1) if self.sentence_count > 1 else 0.0


UNPARSEABLE = VcfVerdict(passed=False, reason=Reason.UNPARSEABLE)


def check_bounds(min_jaccard: float, max_jaccard: float, max_word_edits: int) -> None:
    """Raise ConfigError where no edit could ever pass, or a bound is no similarity."""
    if not 0.0 <= min_jaccard <= max_jaccard <= 1.0:
        raise ConfigError(
            f"vcf.min_jaccard={min_jaccard} and vcf.max_jaccard={max_jaccard} must satisfy "
            "0 <= min_jaccard <= max_jaccard <= 1"
        )
    if max_word_edits < 1:
        raise ConfigError(f"vcf.max_word_edits={max_word_edits} must be at least 1")


def apply_vcf(
    original: str,
    modified: str,
    min_jaccard: float = MIN_JACCARD,
    max_jaccard: float = MAX_JACCARD,
    max_word_edits: int = MAX_WORD_EDITS,
) -> VcfVerdict:
    """Judge the edit that turned ``original`` into ``modified``.

    Linear in the length of the texts (times ``max_word_edits``). Raises ConfigError for impossible bounds.
    """
    check_bounds(min_jaccard, max_jaccard, max_word_edits)
    (before, breaks), (after, breaks_after) = visible_lines(original), visible_lines(modified)
    if not before or not after:
        return VcfVerdict(False, Reason.EMPTY)
    if before == after:
        return VcfVerdict(False, Reason.IDENTICAL, 0)
    alignment = align_words(before, after, max_word_edits)
    if alignment is None:
        return VcfVerdict(False, Reason.TOO_MANY_EDITS)
    edits = alignment.distance
    if only_cosmetic(before, after, alignment):
        return VcfVerdict(False, Reason.COSMETIC, edits)
    jaccard = _aligned_similarity(before, after, alignment)
    if jaccard < min_jaccard:
        return VcfVerdict(False, Reason.JACCARD_LOW, edits, jaccard)
    if jaccard > max_jaccard:
        return VcfVerdict(False, Reason.JACCARD_HIGH, edits, jaccard)
    change = changed_sentences(before, after, alignment, breaks, breaks_after)
    if change.changed != 1:
        reason: Reason | None = Reason.SEVERAL_SENTENCES
    elif _leaks(before, after, alignment):
        reason = Reason.LEAK
    else:
        reason = None
    return VcfVerdict(reason is None, reason, edits, jaccard, change.first, change.total)


# ---------------------------------------------------------------------------------------------- shingles


def shingles(text: str) -> set[str]:
    """Character 3-grams of ``text``; a text shorter than three characters is its own only shingle."""
    return {text[i : i + 3] for i in range(max(1, len(text) - 2))}


def shingle_similarity(a: str, b: str) -> float:
    """Jaccard similarity |A∩B| / |A∪B| of two texts' shingle sets."""
    left, right = shingles(a), shingles(b)
    return len(left & right) / len(left | right)


def _aligned_similarity(before: list[str], after: list[str], alignment: Alignment) -> float:
    """`shingle_similarity` of the joined words, exactly, but hashing what both texts share only once."""
    a, b = " ".join(before), " ".join(after)
    if len(a) < 3 or len(b) < 3:
        return shingle_similarity(a, b)
    head, tail = alignment.prefix, alignment.suffix
    shortest = min(len(a), len(b))
    front = min(len(" ".join(before[:head])) + 1, shortest) if head else 0
    back = min(len(" ".join(before[len(before) - tail :])) + 1, shortest - front) if tail else 0
    reach = max(front - 2, 0)
    pieces = (a[:front], a[len(a) - back :], a[reach : len(a) - back + 2], b[reach : len(b) - back + 2])
    first, last, of_a, of_b = _grams(pieces)
    shared = set(first + last)
    left, right = set(of_a) - shared, set(of_b) - shared
    both = len(left & right)
    return (len(shared) + both) / (len(shared) + len(left) + len(right) - both)


def _grams(pieces: Sequence[str]) -> list[list[Any]]:
    """The 3-grams inside each piece, none for a piece shorter than three; comparable between the pieces.

    Hashing integers is more than twice as fast as cutting strings, and most notes are Latin-1.
    """
    try:
        return [_byte_grams(piece.encode("latin-1")) for piece in pieces]
    except UnicodeEncodeError:
        return [[piece[i : i + 3] for i in range(len(piece) - 2)] for piece in pieces]


def _byte_grams(data: bytes) -> list[int]:
    """3-grams of one-byte characters: three shifted copies laid into four-byte slots, read as integers."""
    count = len(data) - 2
    if count < 1:
        return []
    slots = bytearray(4 * count)
    for shift in range(3):
        slots[shift::4] = data[shift : shift + count]
    return memoryview(slots).cast("I").tolist()


# ------------------------------------------------------------------------------------------------- leaks

_LABELLED_KEY = r"\b(?:label|answer|verdict|mode|edit|error[ _](?:type|flag)|is[_ ]error)\s?[:=]\s?[\"']?"
_MARKERS = re.compile(
    r"""
      final[_ ]answer | generated[_ ]note | sentence[_ ]id | new[_ ]sentence   # keys of the output formats
    | \b(?:old|new)[_ ]phrase\b
    | </?\s*think | <\|[^|>\s]{1,40}\|> | </?(?:note|answer|sentence)>         # reasoning, chat markup
    | \b(?:injector|assessor)\b                                                # the game's own roles
    | (?<![\w-])(?:user|assistant)\s?:                                         # turns of a conversation
    | KEY(?:(?:in)?correct|benign|error|yes|no)\b                              # label lines
    | \b(?:error|benign)[ _](?:mode|edit|sentence|injected|introduced)\b
    | \b(?:introduced|injected|contains)\s(?:an?\s)?(?:medical\s)?error\b
    | \b(?:note|error)\s?:\s?[\"']?(?:(?:in)?correct|none|yes|no)\b | \berror(?:[ _](?:type|flag))?\s?:
    | (?-i:\b(?:INCORRECT|CORRECT|BENIGN|ERROR)\b)                             # a bare label
    """.replace("KEY", _LABELLED_KEY),
    re.IGNORECASE | re.VERBOSE,
)
# Every mark holds one of these; looking for them first spares nine notes in ten the expression.
_MARKER_STEMS = (
    *("<", "final", "generated", "sentence", "phrase", "injector", "assessor", "user", "assistant", "correct"),
    *("benign", "error", "label", "answer", "verdict", "mode", "edit", "note"),
)
_MARKER_WORDS = 5  # no marker spans more words than this


def leak_markers(text: str) -> list[str]:
    """The answer-leaking marks in a text (output keys, role names, label lines), in order, lower-cased."""
    lowered = text.casefold()
    if not any(stem in lowered for stem in _MARKER_STEMS):
        return []
    return [" ".join(match.group().lower().split()) for match in _MARKERS.finditer(text)]


def _leaks(before: list[str], after: list[str], alignment: Alignment) -> bool:
    """Whether the edit brought in a mark that the same place of the original does not hold."""
    start = max(alignment.prefix - _MARKER_WORDS, 0)
    stop = max(alignment.suffix - _MARKER_WORDS, 0)
    found = leak_markers(" ".join(after[start : len(after) - stop]))
    if not found:
        return False
    known = Counter(leak_markers(" ".join(before[start : len(before) - stop])))
    return any(count > known[mark] for mark, count in Counter(found).items())
