"""MEDEC's column ``Sentences``: numbered lines, in the ways of numbering that circulate."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from medserl.game.cells import LINE_ENDS, without_spreadsheet_marks

_MARKED = re.compile(r"\s*([\[(]?)(\d{1,4})([\])]?)[^\S\n]*([.:|)]?)(?=\s|$)[^\S\n]?")
"""``0 ``, ``1.``, ``(1)``, ``[0]``, ``0 |``, ``0:``, ``0<tab>``: opener, number, closer, mark."""


class Numbered(NamedTuple):
    """Sentences, and the number that their source gives the first of them."""

    sentences: tuple[str, ...]
    first: int


def numbered_sentences(cell: str) -> Numbered:
    """The sentences of a cell whose lines begin with the numbers 0, 1, 2, … or 1, 2, 3, …

    A line without the next number goes on with the sentence before it. No sentences where the first line is neither
    number 0 nor number 1.
    """
    cell = without_spreadsheet_marks(cell) if "_x00" in cell else cell
    lines = cell.strip().split("\n")
    if not all(map(str.isprintable, lines)):  # other line ends, or control characters; the usual cell has none
        lines = LINE_ENDS.split(cell.strip())
    start = _MARKED.match(lines[0])
    if start is None or int(start.group(2)) > 1:
        return Numbered((), 0)
    first = int(start.group(2))
    plain = _parse(lines, first, ("", "", ""))
    style = start.group(1), start.group(3), start.group(4)
    if not any(style):
        return Numbered(plain, first)
    marked = _parse(lines, first, style)
    return Numbered(marked if len(marked) >= len(plain) else plain, first)


def numbered_lines(cell: str) -> tuple[str, ...]:
    """The sentences of `numbered_sentences`."""
    return numbered_sentences(cell).sentences


def _parse(lines: Sequence[str], first: int, style: tuple[str, str, str]) -> tuple[str, ...]:
    """``style``: what stands before the number, at once behind it, and behind white space."""
    opener, closer, mark = style
    found: list[list[str]] = []  # lines of each sentence
    for line in lines:
        head = f"{opener}{first + len(found)}{closer}"
        rest = line.lstrip()
        if rest.startswith(head):
            rest = rest[len(head) :]
            marked = not mark or rest.lstrip().startswith(mark)
            rest = rest.lstrip()[1:] if mark else rest
            if marked and (not rest or rest[0].isspace()):
                found.append([rest.strip()])
                continue
        if not found:
            return ()
        found[-1].append(line.rstrip())
    return tuple("\n".join(sentence) for sentence in found)


def squeezed(text: str) -> str:
    """Without white space: published sentences are cut at other places than their texts."""
    return "".join(text.split())


def find_sentence(sentence: str | None, sentences: Sequence[str]) -> int:
    """Number of the sentence that is, or else holds, ``sentence``; -1 where none does."""
    if sentence is None:
        return -1
    wanted = squeezed(sentence)
    items = [squeezed(item) for item in sentences]
    if wanted in items:
        return items.index(wanted)
    return next((i for i, item in enumerate(items) if wanted in item or (item and item in wanted)), -1)
