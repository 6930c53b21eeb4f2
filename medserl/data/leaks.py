"""Notes that are in two splits: by id, by text, or nearly.

Every text of a row counts: what is published and, of an erroneous note, its corrected version too, for training
sees both. A published text and its correction are near-duplicates by nature: in one split that is as it should
be, across splits it is a leak.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from medserl.data.near import Signatures, Signer, TextSpool, near_pairs, sign_texts
from medserl.data.splits import SPLITS
from medserl.data.text import normalised
from medserl.game.convert import Converted, Dropped
from medserl.game.labels import Label
from medserl.game.reader import REPEATED, used_before
from medserl.game.records import CORRECTED_SUFFIX, base_id
from medserl.game.rows import Row, shown_path

_WRONG = 1  # folded into a row's digest, so that one text with two labels is no repeated row
Mask = npt.NDArray[np.bool_]


class LeakKind(StrEnum):
    """How a note is in two splits."""

    ID = "same id"
    TEXT = "same text"
    NEAR = "near-duplicate"


@dataclass(frozen=True, slots=True)
class Leak:
    """A note of one split and the note of a later split (train < validation < test) that it gives away."""

    split: str
    note: int
    """Number of the note in the register."""
    other: int
    kind: LeakKind
    similarity: float


class NoteRegister:
    """Every example that was kept: id, split, place, and a hash of each text. About 300 bytes each."""

    def __init__(self, spool: TextSpool | None) -> None:
        self.spool = spool
        self.ids: list[str] = []
        self.files: list[str] = []
        self._by_id: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
        self._split, self._file, self._row = array("B"), array("H"), array("Q")
        self._digest = array("Q")
        self._text_note, self._text_digest = array("Q"), array("Q")
        self._suffixed = False

    def add(self, row: Row, converted: Converted, split: str) -> None:
        """Enter a row. Raises Dropped for a repeated one, DataError for an id with another text or label."""
        texts = [normalised(example.text).encode("utf-8") for example in converted.examples]
        digests = [_digest(text) for text in texts]
        known_ids = self._by_id[split]
        for example, digest in zip(converted.examples, digests, strict=True):
            known = known_ids.get(example.note_id)
            if known is None:
                continue
            if self._digest[known] == _labelled(digest, example.label):
                raise Dropped(REPEATED)
            raise used_before(row, example.note_id, self.place(known))
        for example, text, digest in zip(converted.examples, texts, digests, strict=True):
            note = self._enter(row, example.note_id, split, _labelled(digest, example.label))
            self._add_text(note, text, digest)
        corrected = converted.examples[0].corrected_text
        if corrected is not None and len(texts) == 1:  # of a pair it is the second example
            text = normalised(corrected).encode("utf-8")
            self._add_text(note, text, _digest(text))

    def _add_text(self, note: int, text: bytes, digest: int) -> None:
        self._text_note.append(note)
        self._text_digest.append(digest)
        if self.spool is not None:
            self.spool.append(text)

    def _enter(self, row: Row, note_id: str, split: str, digest: int) -> int:
        number = len(self.ids)
        self._by_id[split][note_id] = number
        self.ids.append(note_id)
        if not self.files or self.files[-1] != str(row.path):
            self.files.append(str(row.path))
        self._split.append(SPLITS.index(split))
        self._file.append(len(self.files) - 1)
        self._row.append(row.number)
        self._digest.append(digest)
        self._suffixed = self._suffixed or note_id.endswith(CORRECTED_SUFFIX)
        return number

    def place(self, note: int) -> str:
        """File and row of a note."""
        return f"{shown_path(self.files[self._file[note]])}, row {self._row[note]}"

    def row(self, note: int) -> int:
        """Row of a note in its file."""
        return int(self._row[note])

    def file(self, note: int) -> str:
        """File of a note."""
        return self.files[self._file[note]]

    def split(self, note: int) -> str:
        """Split of a note."""
        return SPLITS[self._split[note]]

    def notes_in(self, split: str) -> int:
        """Number of notes of a split."""
        return len(self._by_id[split])

    def same_ids(self, split: str, others: Sequence[str]) -> Iterator[tuple[int, int]]:
        """Notes of a split whose id another split has, with the note there."""
        mine = self._bases(split)
        for other in others:
            theirs = self._bases(other)
            for note_id in mine.keys() & theirs.keys():
                yield mine[note_id], theirs[note_id]

    def _bases(self, split: str) -> dict[str, int]:
        known = self._by_id[split]
        return {base_id(note_id): note for note_id, note in known.items()} if self._suffixed else known

    def texts(self) -> _Texts:
        """Number of the note, hash and split of every text."""
        notes = np.frombuffer(self._text_note, np.uint64).astype(np.int64)
        splits = np.frombuffer(self._split, np.uint8)
        return _Texts(notes, np.frombuffer(self._text_digest, np.uint64), splits[notes])


@dataclass(frozen=True, slots=True)
class _Texts:
    notes: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint64]
    splits: npt.NDArray[np.uint8]

    def of(self, splits: Sequence[str]) -> Mask:
        wanted: Mask = np.isin(self.splits, [SPLITS.index(split) for split in splits])
        return wanted

    def distinct(self, mask: Mask) -> npt.NDArray[np.int64]:
        """Numbers of texts in ``mask``, one for each hash."""
        numbers = np.flatnonzero(mask)
        return np.sort(numbers[np.unique(self.digests[numbers], return_index=True)[1]])


def _digest(data: bytes) -> int:
    """64 bits: among a million texts two differing ones agree with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little") & ~_WRONG


def _labelled(digest: int, label: Label) -> int:
    return digest ^ (_WRONG if label is Label.INCORRECT else 0)


def find_leaks(register: NoteRegister, threshold: float | None, progress: Callable[[str, int], None]) -> list[Leak]:
    """One leak for every note that gives a note of a later split away, strongest kind first.

    Without a threshold near-duplicates are not looked for.
    """
    leaks: dict[int, Leak] = {}
    texts = register.texts()
    searches = [
        (split, [other for other in SPLITS[i + 1 :] if register.notes_in(other)])
        for i, split in enumerate(SPLITS)
        if register.notes_in(split)
    ]
    signer = _Signing(register, texts, threshold, progress) if threshold is not None else None
    for split, others in searches:
        if not others:
            continue
        for note, other in register.same_ids(split, others):
            leaks.setdefault(note, Leak(split, note, other, LeakKind.ID, 1.0))
        _same_texts(texts, split, others, leaks)
        if signer is not None:
            signer.near(split, others, leaks)
    return sorted(leaks.values(), key=lambda leak: (SPLITS.index(leak.split), leak.note))


def _same_texts(texts: _Texts, split: str, others: Sequence[str], leaks: dict[int, Leak]) -> None:
    theirs = np.flatnonzero(texts.of(others))
    order = theirs[np.argsort(texts.digests[theirs], kind="stable")]
    mine = np.flatnonzero(texts.of([split]))
    place = np.searchsorted(texts.digests[order], texts.digests[mine])
    place[place == len(order)] = 0
    same = texts.digests[order[place]] == texts.digests[mine]
    for number, other in zip(mine[same].tolist(), order[place[same]].tolist(), strict=True):
        note = int(texts.notes[number])
        leaks.setdefault(note, Leak(split, note, int(texts.notes[other]), LeakKind.TEXT, 1.0))


class _Signing:
    """Near-duplicate search over the splits; each split's texts are signed once."""

    def __init__(
        self, register: NoteRegister, texts: _Texts, threshold: float, progress: Callable[[str, int], None]
    ) -> None:
        assert register.spool is not None
        self._spool, self._texts, self._threshold = register.spool, texts, threshold
        self._signer = Signer(threshold)
        self._progress = progress
        self._signed: dict[tuple[str, ...], Signatures] = {}

    def _sign(self, splits: Sequence[str], mask: Mask) -> Signatures:
        numbers = self._texts.distinct(mask)
        return sign_texts(
            self._signer, self._spool, numbers, lambda done: self._progress(f"signed ({'+'.join(splits)})", done)
        )

    def near(self, split: str, others: Sequence[str], leaks: dict[int, Leak]) -> None:
        """Add the near-duplicates among notes that do not leak already."""
        texts = self._texts
        known = np.isin(texts.notes, np.fromiter(leaks, np.int64, len(leaks)))
        mine = texts.of([split])
        queries = self._sign([split], mine & ~known)
        theirs = self._sign(others, texts.of(others))
        order = np.flatnonzero(mine)
        order = order[np.argsort(texts.digests[order], kind="stable")]
        ordered: Any = texts.digests[order]
        for count, pair in enumerate(near_pairs(self._spool, self._signer, self._threshold, queries, theirs)):
            self._progress("near-duplicates found", count + 1)
            digest = texts.digests[pair.text]
            low, high = np.searchsorted(ordered, digest, "left"), np.searchsorted(ordered, digest, "right")
            for number in order[low:high]:
                note = int(texts.notes[number])
                other = int(texts.notes[pair.other])
                leaks.setdefault(note, Leak(split, note, other, LeakKind.NEAR, pair.similarity))
