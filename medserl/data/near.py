"""Near-duplicate texts of different splits: MinHash bands find candidates, exact similarity decides.

The similarity is the change filter's own (`medserl.game.vcf.shingle_similarity`, character 3-gram shingles of
the visible words joined by single spaces). Candidates come from locality-sensitive hashing (Broder 1997; Indyk
and Motwani 1998): two texts of similarity s share a band of r MinHashes with probability s^r, so b bands miss a
pair at the threshold with probability (1 - s^r)^b, which is held below ``MISS``. Signatures take about 250 bytes
a text; the texts themselves lie in a file and only candidates are read.

Our own: the pinned packages have no MinHash, and this one ends in the filter's exact similarity.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from medserl.errors import ConfigError
from medserl.game.vcf import shingle_similarity

THRESHOLD = 0.85
MISS = 1e-4
"""Greatest probability that a pair exactly at the threshold is not found."""
MAX_HASHES = 256
SKETCH = 128
"""MinHashes kept, one byte each, to estimate the similarity of a candidate before its texts are read."""
SKETCH_SIGMAS = 5.0
_GLANCE = 32  # bytes of the sketch that are compared first
LEAST_THRESHOLD = 0.5
_SEED = 20_240_601
_BLOCK = 64  # hashes at a time: 64 x ~1000 shingles x 4 bytes stay in the second-level cache
_CHUNK = 2048  # texts per array of keys
_PAIRS = 1 << 18  # candidate pairs looked at together
_MIX_32 = np.uint32(0x9E37_79B1)
_MIX = np.uint64(0x9E37_79B9_7F4A_7C15)

Words = npt.NDArray[np.uint32]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


class NearPair(NamedTuple):
    """A text, another text that it is too similar to, and their exact similarity."""

    text: int
    other: int
    similarity: float


class TextSpool:
    """Normalised texts in one temporary file, read back by number; a text is its bytes and 8 bytes of memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._ends: list[npt.NDArray[np.int64]] = []
        self._recent: list[int] = []
        self._end = 0
        self._all: npt.NDArray[np.int64] | None = None

    def append(self, data: bytes) -> None:
        """Add a text in UTF-8."""
        self._file.write(data)
        self._end += len(data)
        self._recent.append(self._end)
        if len(self._recent) >= 65_536:
            self._seal()

    def _seal(self) -> None:
        self._ends.append(np.array(self._recent, np.int64))
        self._recent = []

    def close_writing(self) -> None:
        """No more texts; from now on they can be read."""
        self._seal()
        self._file.flush()
        self._all = np.concatenate([np.zeros(1, np.int64), *self._ends])
        self._ends = []

    def __len__(self) -> int:
        return len(self._all) - 1 if self._all is not None else sum(map(len, self._ends)) + len(self._recent)

    def read(self, number: int) -> str:
        """Text ``number``."""
        assert self._all is not None, "close_writing() comes first"
        start, stop = int(self._all[number]), int(self._all[number + 1])
        return os.pread(self._file.fileno(), stop - start, start).decode("utf-8")


def band_layout(threshold: float) -> tuple[int, int]:
    """MinHashes per band and number of bands: the longest bands that miss at most ``MISS`` at the threshold.

    Raises ConfigError for a threshold that is not in [0.5, 1].
    """
    if not LEAST_THRESHOLD <= threshold <= 1.0:
        raise ConfigError(f"--near-threshold {threshold}: must be between {LEAST_THRESHOLD} and 1")
    best = (1, MAX_HASHES)
    for width in range(1, MAX_HASHES // 4 + 1):
        chance = threshold**width
        bands = 4 if chance >= 1.0 else max(4, math.ceil(math.log(MISS) / math.log1p(-chance)))
        if width * bands > MAX_HASHES:
            break
        best = (width, bands)
    return best


class Signer:
    """MinHash signatures of texts; the same on every machine."""

    def __init__(self, threshold: float) -> None:
        self.width, self.bands = band_layout(threshold)
        self.hashes = max(self.width * self.bands, SKETCH)
        random = np.random.default_rng(_SEED)
        self._factors = (random.integers(0, 2**32, (self.hashes, 1), np.uint32)) | np.uint32(1)
        self._offsets = random.integers(0, 2**32, (self.hashes, 1), np.uint32)
        self._weights = random.integers(0, 2**63, self.width, np.uint64) | np.uint64(1)

    def sign(self, text: str) -> tuple[Words, Bytes]:
        """A key per band, uint32 of shape (bands,), and the sketch, uint8 of shape (SKETCH,)."""
        shingles = _shingle_hashes(text)
        smallest = np.empty(self.hashes, np.uint32)
        for first in range(0, self.hashes, _BLOCK):
            hashed = shingles * self._factors[first : first + _BLOCK]
            hashed += self._offsets[first : first + _BLOCK]
            hashed.min(axis=1, out=smallest[first : first + _BLOCK])
        banded = smallest[: self.width * self.bands].reshape(self.bands, self.width).astype(np.uint64)
        keys = ((banded * self._weights).sum(axis=1, dtype=np.uint64) >> np.uint64(32)).astype(np.uint32)
        # Minima are small numbers: their upper bits say nothing until they are mixed.
        return keys, ((smallest[:SKETCH] * _MIX_32) >> np.uint32(24)).astype(np.uint8)


def _shingle_hashes(text: str) -> Words:
    """A 32-bit hash of each 3-gram (with repetitions, which no minimum notices); one for a shorter text."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
    if len(points) < 3:
        points = np.pad(points, (0, 3 - len(points)))
    codes = points[:-2] | (points[1:-1] << np.uint64(21)) | (points[2:] << np.uint64(42))
    codes *= _MIX
    codes ^= codes >> np.uint64(29)
    codes *= _MIX
    hashes: Words = (codes >> np.uint64(32)).astype(np.uint32)
    return hashes


class Signatures:
    """Signatures of some texts of a spool, in compact arrays."""

    def __init__(self, numbers: Indices, keys: list[Words], sketches: Bytes) -> None:
        self.numbers = numbers
        self._keys = keys
        self.sketches = sketches
        self.glances = np.ascontiguousarray(sketches[:, :_GLANCE])

    def band(self, index: int) -> Words:
        """The keys of one band, shape (texts,)."""
        return np.concatenate([part[:, index] for part in self._keys]) if self._keys else np.empty(0, np.uint32)


def sign_texts(signer: Signer, spool: TextSpool, numbers: Indices, progress: Callable[[int], None]) -> Signatures:
    """Signatures of the texts ``numbers``, in their order; ``progress`` is told how many are done."""
    sketches = np.empty((len(numbers), SKETCH), np.uint8)
    parts: list[Words] = []
    for first in range(0, len(numbers), _CHUNK):
        part = numbers[first : first + _CHUNK]
        keys = np.empty((len(part), signer.bands), np.uint32)
        for row, number in enumerate(part):
            keys[row], sketches[first + row] = signer.sign(spool.read(int(number)))
        parts.append(keys)
        progress(first + len(part))
    return Signatures(numbers, parts, sketches)


def near_pairs(
    spool: TextSpool, signer: Signer, threshold: float, queries: Signatures, others: Signatures
) -> Iterator[NearPair]:
    """For each query text that is at least ``threshold`` similar to one of the others, one such pair."""
    done = np.zeros(len(queries.numbers), bool)
    rejected: set[tuple[int, int]] = set()
    least = _least_agreement(threshold, _GLANCE), _least_agreement(threshold, SKETCH)
    for band in range(signer.bands):
        other_keys = others.band(band)
        order = np.argsort(other_keys, kind="stable")
        ordered = other_keys[order]
        keys = queries.band(band)
        low, high = np.searchsorted(ordered, keys, "left"), np.searchsorted(ordered, keys, "right")
        for query, found in _similar(queries, others, low, np.where(done, low, high), order, least):
            if done[query] or (query, found) in rejected:
                continue
            a, b = int(queries.numbers[query]), int(others.numbers[found])
            similarity = shingle_similarity(spool.read(a), spool.read(b))
            if similarity >= threshold:
                done[query] = True
                yield NearPair(a, b, similarity)
            else:
                rejected.add((query, found))


def _least_agreement(threshold: float, size: int) -> int:
    """Equal bytes among ``size`` of a sketch that a pair at the threshold has: all but about one in 100 000."""
    spread = math.sqrt(threshold * (1 - threshold) / size)
    return max(0, math.floor(size * (threshold - SKETCH_SIGMAS * spread)))


def _similar(
    queries: Signatures, others: Signatures, low: Indices, high: Indices, order: Indices, least: tuple[int, int]
) -> Iterator[tuple[int, int]]:
    """Pairs of one band whose sketches agree in enough bytes, in slices of bounded size."""
    counts = high - low
    candidates = np.flatnonzero(counts)
    ends = np.cumsum(counts[candidates])
    total = int(ends[-1]) if len(ends) else 0
    for first in range(0, total, _PAIRS):
        flat = np.arange(first, min(first + _PAIRS, total))
        place = np.searchsorted(ends, flat, "right")
        query = candidates[place]
        found = order[high[query] - (ends[place] - flat)]
        alike = _agreement(queries.glances[query], others.glances[found]) >= least[0]
        query, found = query[alike], found[alike]
        agree = _agreement(queries.sketches[query], others.sketches[found])
        # The most alike first, so that a query is settled by its first comparison.
        best = np.argsort(-agree, kind="stable")
        best = best[agree[best] >= least[1]]
        yield from zip(query[best].tolist(), found[best].tolist(), strict=True)


def _agreement(left: Bytes, right: Bytes) -> Indices:
    """Equal bytes of the rows of two arrays, shape (rows,)."""
    agree: Indices = (left == right).sum(axis=1)
    return agree
