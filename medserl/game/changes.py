"""How many sentences an edit touched."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from medserl.game.align import Alignment
from medserl.game.sentences import LineBreak, ends_and_numbers, is_number, line_ends, local_ends


class SentenceChange(NamedTuple):
    """How many sentences an edit changed, the first of them, and how many the original has."""

    changed: int
    first: int
    total: int


def changed_sentences(
    before: Sequence[str],
    after: Sequence[str],
    alignment: Alignment,
    breaks: Sequence[LineBreak] = (),
    breaks_after: Sequence[LineBreak] = (),
) -> SentenceChange:
    """Count the sentences that the edit touched.

    ``breaks``, ``breaks_after``: where lines of the two texts end. Lines of the original bound sentences as they do in
    the prompt, in both texts; those of the edit count for new words only, and only in a note that is made of lines.

    A sentence is touched where one of its words was deleted, inserted or substituted. Touched sentences of
    the two texts that share an aligned word are versions of each other; each such group counts as the larger
    of its two sides. So one swapped word is one changed sentence even where it adds or removes a full stop,
    and an inserted or deleted sentence counts as a change.
    """
    ends_a, numbered = ends_and_numbers(before)
    ends_b = _word_ends(ends_a, numbered, before, after, alignment)
    if breaks and (lines := line_ends(before, breaks)):
        own = line_ends(after, breaks_after)
        ends_a = sorted({*ends_a, *lines})
        ends_b = sorted({*ends_b, *_carried(lines, own, len(before), len(after), alignment)})
    in_a = {bisect_left(ends_a, i) for i, _ in alignment.substituted}
    in_a.update(bisect_left(ends_a, i) for i in alignment.deleted)
    in_b = {bisect_left(ends_b, j) for _, j in alignment.substituted}
    in_b.update(bisect_left(ends_b, j) for _, j in alignment.inserted)
    if alignment.distance == 0:
        return SentenceChange(0, 0, len(ends_a))
    last = len(before) - 1
    first = min(in_a) if in_a else bisect_left(ends_a, min(alignment.inserted[0][0], last))
    if len(in_a) <= 1 and len(in_b) <= 1:
        linked = not in_a or not in_b or _linked(ends_a, min(in_a), ends_b, min(in_b), alignment)
        return SentenceChange(1 if linked else 2, first, len(ends_a))
    return SentenceChange(_grouped(ends_a, in_a, ends_b, in_b, alignment), first, len(ends_a))


def _word_ends(
    ends_a: list[int], numbered: bool, before: Sequence[str], after: Sequence[str], alignment: Alignment
) -> list[int]:
    """``sentence_ends(after)``, decided anew only where a word or one of its neighbours differs."""
    changed = after[alignment.prefix : len(after) - alignment.suffix]
    if numbered or any(map(is_number, changed)):  # the items of a list depend on each other
        return ends_and_numbers(after)[0]
    start = max(alignment.prefix - 1, 0)
    stop = min(len(after) - alignment.suffix + 2, len(after))
    shift = len(after) - len(before)
    ends = ends_a[: bisect_left(ends_a, start)]
    ends += local_ends(after, start, stop)
    ends.extend(end + shift for end in ends_a[bisect_left(ends_a, stop - shift) :])
    return ends


def _carried(lines: list[int], own: list[int], size_a: int, size_b: int, alignment: Alignment) -> list[int]:
    """The line ends of the original at their places in the edit; among new words the edit's own."""
    ends: list[int] = []
    i = j = 0
    for start_a, start_b, length in (*alignment.runs, (size_a, size_b, 0)):
        # Between the matched words a[i - 1] and a[start_a]: a line may end after any word from i - 1 on.
        old = _within(lines, i - 1, start_a)
        new = [end for end in _within(own, j - 1, start_b) if start_a > i or start_b > j]
        ends += new or [max(start_b - (start_a - end), j - 1) for end in old]
        ends += [end - start_a + start_b for end in _within(lines, start_a, start_a + length - 1)]
        i, j = start_a + length, start_b + length
    return [end for end in ends if 0 <= end < size_b]


def _within(ends: list[int], start: int, stop: int) -> list[int]:
    return ends[bisect_left(ends, start) : bisect_left(ends, stop)]


def _linked(ends_a: list[int], s: int, ends_b: list[int], t: int, alignment: Alignment) -> bool:
    """Whether sentence ``s`` of the original and ``t`` of the edit share an aligned pair of words."""
    start_a, stop_a = (ends_a[s - 1] + 1 if s else 0), ends_a[s] + 1
    start_b, stop_b = (ends_b[t - 1] + 1 if t else 0), ends_b[t] + 1
    for i, j, length in alignment.runs:
        low = max(start_a, i, start_b - j + i)
        if low < min(stop_a, i + length, stop_b - j + i):
            return True
    return any(start_a <= i < stop_a and start_b <= j < stop_b for i, j in alignment.substituted)


def _grouped(ends_a: list[int], in_a: set[int], ends_b: list[int], in_b: set[int], alignment: Alignment) -> int:
    groups: list[tuple[set[int], set[int]]] = [({s}, set()) for s in in_a]
    for t in in_b:
        near = [group for group in groups if any(_linked(ends_a, s, ends_b, t, alignment) for s in group[0])]
        merged: tuple[set[int], set[int]] = (set(), {t})
        for group in near:
            merged[0].update(group[0])
            merged[1].update(group[1])
        groups = [group for group in groups if group not in near] + [merged]
    return sum(max(len(left), len(right)) for left, right in groups)
