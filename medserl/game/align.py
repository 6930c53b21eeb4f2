"""Minimal word alignments with a bound on the number of edits.

The diagonal method of Ukkonen (1985) and Landau & Vishkin (1989): for e = 0, 1, … edits, how far along each
diagonal can one get? O(words + bound²) on ordinary text, O(words · bound) at worst.

Our own, since the game imports no package and difflib finds no minimal alignment.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

_UNREACHED = -(10**12)
_CHUNK = 16  # comparing slices of this many words at once is several times faster than word by word


class Alignment(NamedTuple):
    """A minimal edit script between word sequences a and b (indices count words).

    Of several minimal scripts it is the one that a backward walk through the textbook matrix finds when it
    prefers a match, then a substitution, then a deletion, then an insertion.
    """

    distance: int
    prefix: int
    """Words that a and b share at the front."""
    suffix: int
    """Words that a and b share at the back, not counting words of the prefix twice."""
    substituted: tuple[tuple[int, int], ...]
    deleted: tuple[int, ...]
    inserted: tuple[tuple[int, int], ...]
    """(position in a before which, index in b of) each inserted word."""
    runs: tuple[tuple[int, int, int], ...]
    """Matched stretches: start in a, start in b, length; in order."""


def align_words(a: Sequence[Hashable], b: Sequence[Hashable], bound: int) -> Alignment | None:
    """The alignment of ``a`` and ``b``, or None where they are more than ``bound`` word edits apart."""
    table = _furthest_rows(a, b, bound)
    return None if table is None else _walk_back(a, b, table)


def _furthest_rows(a: Sequence[Hashable], b: Sequence[Hashable], bound: int) -> list[dict[int, int]] | None:
    """Per number of edits: diagonal (index in b − index in a) → furthest index in a that can be reached."""
    rows, goal = len(a), len(b) - len(a)
    if abs(goal) > bound:
        return None
    table: list[dict[int, int]] = []
    previous: dict[int, int] = {}
    for edits in range(bound + 1):
        slack = bound - edits
        current: dict[int, int] = {}
        for diagonal in range(max(-edits, goal - slack), min(edits, goal + slack) + 1):
            limit = min(rows, len(b) - diagonal)
            if edits == 0:
                row = 0
            else:
                row = max(
                    previous.get(diagonal, _UNREACHED) + 1,
                    previous.get(diagonal + 1, _UNREACHED) + 1,
                    previous.get(diagonal - 1, _UNREACHED),
                )
                row = min(row, limit)
            if row < limit and a[row] == b[row + diagonal]:
                row = _slide(a, b, row, row + diagonal)
            current[diagonal] = row
        table.append(current)
        if current.get(goal, _UNREACHED) >= rows:
            return table
        previous = current
    return None


def _slide(a: Sequence[Hashable], b: Sequence[Hashable], i: int, j: int) -> int:
    """Where in a the matching stretch ends that begins at a[i], b[j]."""
    while (chunk := a[i : i + _CHUNK]) and chunk == b[j : j + _CHUNK]:
        i, j = i + len(chunk), j + len(chunk)
    while i < len(a) and j < len(b) and a[i] == b[j]:
        i, j = i + 1, j + 1
    return i


def _slide_back(a: Sequence[Hashable], b: Sequence[Hashable], i: int, j: int) -> int:
    """Length of the matching stretch that ends before a[i], b[j]."""
    end = i
    while min(i, j) >= _CHUNK and a[i - _CHUNK : i] == b[j - _CHUNK : j]:
        i, j = i - _CHUNK, j - _CHUNK
    while i and j and a[i - 1] == b[j - 1]:
        i, j = i - 1, j - 1
    return end - i


def _walk_back(a: Sequence[Hashable], b: Sequence[Hashable], table: list[dict[int, int]]) -> Alignment:
    i, j = len(a), len(b)
    edits = distance = len(table) - 1
    substituted: list[tuple[int, int]] = []
    deleted: list[int] = []
    inserted: list[tuple[int, int]] = []
    runs: list[tuple[int, int, int]] = []
    while i or j:
        if edits == 0:  # nothing but matches is left
            runs.append((0, 0, i))
            break
        if length := _slide_back(a, b, i, j):
            i, j = i - length, j - length
            runs.append((i, j, length))
        if not (i or j):
            break
        edits -= 1
        reached, diagonal = table[edits], j - i
        if i and j and reached.get(diagonal, _UNREACHED) >= i - 1:
            i, j = i - 1, j - 1
            substituted.append((i, j))
        elif i and reached.get(diagonal + 1, _UNREACHED) >= i - 1:
            i -= 1
            deleted.append(i)
        else:
            j -= 1
            inserted.append((i, j))
    prefix = table[0][0]
    ends_alike = bool(runs) and runs[0][0] + runs[0][2] == len(a) and runs[0][1] + runs[0][2] == len(b)
    suffix = min(runs[0][2] if ends_alike else 0, len(a) - prefix, len(b) - prefix)
    return Alignment(
        distance,
        prefix,
        suffix,
        tuple(reversed(substituted)),
        tuple(reversed(deleted)),
        tuple(reversed(inserted)),
        tuple(reversed(runs)),
    )
