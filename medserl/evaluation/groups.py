"""Which labelled texts belong together, because what a model says to one says much about the others."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations

from medserl.data.near import THRESHOLD, Signer
from medserl.data.records import LabelledExample, base_id
from medserl.data.text import normalised
from medserl.game.vcf import shingle_similarity


def note_groups(examples: Sequence[LabelledExample], threshold: float = THRESHOLD) -> list[int]:
    """A number per text, the same for texts of one note and for near-duplicates, whatever their ids.

    Near-duplicates are what `medserl data prepare` takes for them (`medserl.data.near`: candidates by MinHash, then
    the exact similarity, at least ``threshold``); a chain of them is one group.
    """
    signer = Signer(threshold)
    texts = [normalised(example.text) for example in examples]
    buckets: dict[Hashable, list[int]] = {}
    for number, (example, text) in enumerate(zip(examples, texts, strict=True)):
        buckets.setdefault(base_id(example.note_id), []).append(number)
        for band, key in enumerate(signer.sign(text)[0].tolist()):
            buckets.setdefault((band, key), []).append(number)
    together = _Merged(len(texts))
    for key, members in buckets.items():
        for one, other in combinations(members, 2):
            if not together.connected(one, other) and (
                isinstance(key, str) or shingle_similarity(texts[one], texts[other]) >= threshold
            ):
                together.merge(one, other)
    return together.numbers()


def joined(keys: Sequence[Iterable[Hashable]]) -> list[int]:
    """A number per item, the same for items that share a key, directly or through others."""
    together, first = _Merged(len(keys)), dict[Hashable, int]()
    for number, own in enumerate(keys):
        for key in own:
            together.merge(first.setdefault(key, number), number)
    return together.numbers()


class _Merged:
    """scipy's disjoint sets over the numbers below ``size``."""

    def __init__(self, size: int) -> None:
        from scipy.cluster.hierarchy import DisjointSet

        self._sets = DisjointSet(range(size))
        self.connected, self.merge = self._sets.connected, self._sets.merge

    def numbers(self) -> list[int]:
        """The number of each item's set, in the order of first occurrence."""
        found: dict[int, int] = {}
        return [found.setdefault(self._sets[item], len(found)) for item in self._sets]
