"""Sentence boundaries that survive clinical text.

A boundary is decided from a word, the word before it and the word after it, never from the amount or kind of
white space, so that reflowing a note cannot change what the filter sees (`sentence_ends`). For numbering the
sentences of a prompt, line breaks may add boundaries (`split_sentences`).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

_OPENERS = "\"'([{<“‘«*_"
_CLOSERS = "\"')]}>”’»*_"
_TERMINATORS = ".!?…"
_LAST_CHARS = frozenset(_TERMINATORS + _CLOSERS)
_BULLET = re.compile(r"(?:[-–—•*·‣◦+#]|\d{1,2}[.)]|[A-Za-z]\))$")
_DOTTED = re.compile(r"(?:[A-Za-z]{1,2}\.){2,}$")
_ENUMERATOR = re.compile(r"\d{1,2}\.$")
_WORD = re.compile(r"\S+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Never the end of a sentence, whatever follows.
_TITLES = _words("dr drs mr mrs prof st vs e.g i.e cf viz fig figs eq ref refs al approx ca pt pts dept jr sr")
# The end of a sentence only before an upper-case word.
_ABBREVIATIONS = _words(
    """abd adm appt assoc avg bilat cap caps chol chr conc cont diag diff disch disp dist esp est etc exam
    freq hosp hist htn hx incl inj lab labs lat lbs max meds meth min mins mod neg norm occ path phys pos
    post prev prob prox pulm rehab resp rt lt rx sec secs sol solut subq susp sx symp sys tab tabs temp
    therap tx vol wk wks wt yr yrs mo mos hr hrs dx fx"""
)
# Dosing times: a sentence may well end on one, so an upper-case word after it starts a new sentence.
_DOSING = _words("q.d q.o.d b.i.d t.i.d q.i.d q.h.s h.s p.r.n a.m p.m a.c p.c q.a.m q.p.m")
# Openers that settle the doubtful cases ("98.6 F. He", "vitamin K. The").
_STARTERS = _words(
    """A After All Although An And As At Before Both But By Current Currently During Examination Family
    Following For From He Her Hers His However I If In It Its Laboratory No Not On One Otherwise Our Over
    Past Patient Physical She Since Some Temperature That The Their Then There These They This Those Today
    Upon Vital We What When Which While With You"""
)
# Second words of units; a break in front of one is an accident of reflowing.
_UNIT_TAILS = _words("Hg H2O")


class Span(NamedTuple):
    """Half-open character range [start, end) of one sentence, without the white space around it."""

    start: int
    end: int


def split_sentences(text: str, *, lines: bool = True) -> list[Span]:
    """Sentences of ``text`` as character spans, in order; linear in the length of the text.

    Between two spans, before the first and after the last there is white space only, so the spans and the
    gaps together give the text back. With ``lines`` a line break ends a sentence too where the next line
    looks like a new entry (blank line, bullet, upper-case start); without it white space plays no part at
    all, and the sentences are those of `sentence_ends`.
    """
    matches = list(_WORD.finditer(text))
    if not matches:
        return []
    words = [match.group() for match in matches]
    ends = set(sentence_ends(words))
    spans: list[Span] = []
    start = matches[0].start()
    for index, match in enumerate(matches):
        last = index + 1 == len(matches)
        if not last and index not in ends:
            gap = text[match.end() : matches[index + 1].start()]
            if not (lines and _breaks_line(gap, words[index + 1])):
                continue
        spans.append(Span(start, match.end()))
        if not last:
            start = matches[index + 1].start()
    return spans


def sentence_texts(text: str) -> list[str]:
    """The sentences that a prompt numbers from 0: those of `split_sentences`, each on one line."""
    return [" ".join(text[span.start : span.end].split()) for span in split_sentences(text)]


def sentence_ends(words: Sequence[str], start: int = 0, stop: int | None = None) -> list[int]:
    """Indices in [start, stop) of the words that end a sentence, ascending; the last word always does.

    ``words`` are non-empty and hold no white space. The rule at one word looks at its two neighbours only.
    """
    last = len(words) - 1
    stop = len(words) if stop is None else stop
    # Nine words in ten end in no terminator; this comprehension is the whole cost for them.
    candidates = [i for i, word in enumerate(words[start:stop], start) if word[-1] in _LAST_CHARS]
    ends: list[int] = []
    for i in candidates:
        if i < last and _ends_sentence(words[i - 1] if i else "", words[i], words[i + 1]):
            ends.append(i)
    if start <= last < stop:
        ends.append(last)
    return ends


def _breaks_line(gap: str, following: str) -> bool:
    breaks = gap.count("\n") + gap.count("\r") - gap.count("\r\n")
    if breaks == 0:
        return False
    if breaks > 1 or _BULLET.match(following) is not None:
        return True
    word = following.strip(_OPENERS + _CLOSERS + _TERMINATORS + ",;:")
    return word[:1].isupper() and word not in _UNIT_TAILS


def _ends_sentence(before: str, word: str, following: str) -> bool:
    if word[-1] == "." and len(word) > 4 and following[0].isupper() and word[:-1].isalpha():
        return word[:-1].lower() not in _TITLES  # the usual end; what follows decides the same, slower
    core = word.rstrip(_CLOSERS)
    if not core or core[-1] not in _TERMINATORS:
        return False
    start = following.lstrip(_OPENERS)
    stem = core.rstrip(_TERMINATORS).lstrip(_OPENERS)
    if not stem and len(core) == 1:  # it stands alone, as in tokenised text: "mg . he", but not "37 . 2"
        return not (before[-1:].isdigit() and start[:1].isdigit())
    if not stem or core[-1] != ".":
        return not start[:1].islower()
    lowered = stem.lower()
    if lowered in _TITLES or stem == "Ms":
        return False
    if start[:1].isdigit() and (lowered == "no" or lowered in _ABBREVIATIONS):
        return False
    if start[:1].islower():
        # Notes in lower case: an ordinary word with its full stop ends a sentence there too.
        plain = len(stem) >= 4 and stem.isalpha() and not core.endswith("..")
        return plain and lowered not in _ABBREVIATIONS
    if len(stem) == 1 and stem.isalpha():
        return _single_letter_ends(before, stem, start)
    if _DOTTED.match(core):
        return lowered in _DOSING or start in _STARTERS
    if _ENUMERATOR.match(core):  # "Plan: 1. Aspirin" and "… daily. 2. Metformin"
        return not (before == "" or before[-1] in ":.;")
    return True


def _single_letter_ends(before: str, letter: str, following: str) -> bool:
    """ "98.6 F. He" and "hepatitis B. She" end a sentence, "J. Smith" and "Dr. A. Jones" do not."""
    if following in _STARTERS or letter.islower():
        return True
    stem = before.strip(_OPENERS + _CLOSERS)
    return stem[-1:].isdigit() or (stem.isalpha() and stem.islower())
