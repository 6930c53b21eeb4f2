"""The two verdicts as words of a reply: alone, in quotes or marks, or opening a line."""

import re

from medserl.game.labels import Label
from medserl.game.reply import QUOTES, without_tags

_BY = "✅❌✓✔✗✘☑☒"
VERDICT = re.compile(
    rf"([{_BY}\s]*+[*_`{re.escape(QUOTES)}]*+)((?:in)?correct)[.!]?([*_`{re.escape(QUOTES)}]*+)[.!,;]?[*_`]*+"
    rf"[{_BY}\s]*+",
    re.IGNORECASE,
)
BOXED = re.compile(r"\$?\\boxed\{(?:\\text\{)?((?:in)?correct)\}{1,2}\$?", re.IGNORECASE)
_OPENS = re.compile(
    rf"[{_BY}\s]*+[*_`{re.escape(QUOTES)}]*+((?:in)?correct)(?:[*_`{re.escape(QUOTES)}]*+[.!])[*_`{re.escape(QUOTES)}]*+\s",
    re.IGNORECASE,
)
"""A verdict as a line's first sentence; not "Correct dosing was …", nor "Correct: 5 mg"."""


def label_of(word: str) -> Label:
    """Not by name: letters that match in another case may be none of the name's."""
    return Label.INCORRECT if len(word) > len(Label.CORRECT) else Label.CORRECT


def verdicts(text: str) -> set[Label]:
    """The verdicts of a text that holds nothing else; empty where it does."""
    text = without_tags(BOXED.sub(r"\1", text))
    whole = VERDICT.fullmatch(text)
    words = [whole] if whole else [VERDICT.fullmatch(word) for word in text.split()]
    read = [word for word in words if word is not None and balanced(word)]
    return {label_of(word.group(2)) for word in read} if len(read) == len(words) else set()


def lone_verdicts(text: str) -> set[Label]:
    """The verdicts that lines of a text are as a whole, or that are a line's first sentence."""
    found: set[Label] = set()
    for line in text.splitlines():
        if (opening := _OPENS.match(line)) is not None:
            found.add(label_of(opening.group(1)))
        elif line.strip():
            found |= verdicts(line)
    return found


def balanced(match: re.Match[str]) -> bool:
    """Whether a verdict has as many quotes before as behind."""
    before, behind = (sum(mark in QUOTES for mark in match.group(i)) for i in (1, 3))
    return before == behind
