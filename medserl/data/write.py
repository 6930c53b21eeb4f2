"""Labelled examples as Parquet in verl's schema.

verl's examples/data_preprocess files define the columns: ``data_source``, ``prompt`` (chat messages),
``ability``, ``reward_model`` (``style``, ``ground_truth``) and ``extra_info``, which is ours to fill.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medserl.data.records import LabelledExample
from medserl.files import create_private, replace_durably, sync
from medserl.game.prompts import Message, PromptSet
from medserl.game.records import base_id

ABILITY = "medical_error_detection"
REWARD_STYLE = "rule"
ROW_GROUP = 4096
_TEXT = pa.string()
_MESSAGE = pa.struct([("role", _TEXT), ("content", _TEXT)])
_REWARD = pa.struct([("style", _TEXT), ("ground_truth", _TEXT)])
_INFO = pa.struct(
    [
        ("note_id", _TEXT),
        ("text", _TEXT),
        ("label", _TEXT),
        ("error_type", _TEXT),
        ("error_sentence_id", pa.int64()),
        ("error_sentence", _TEXT),
        ("corrected_sentence", _TEXT),
        ("corrected_text", _TEXT),
        ("sentences", pa.list_(_TEXT)),
        ("split", _TEXT),
        ("source", _TEXT),
        ("source_row", pa.int64()),
        ("index", pa.int64()),
    ]
)
SCHEMA = pa.schema(
    [
        ("data_source", _TEXT),
        ("prompt", pa.list_(_MESSAGE)),
        ("ability", _TEXT),
        ("reward_model", _REWARD),
        ("extra_info", _INFO),
    ]
)
"""The columns of a prepared file. ``index`` counts the rows of the file from 0."""
# Columns that repeat a few values; trying a dictionary on texts only costs time.
_DICTIONARY = [
    "data_source",
    "ability",
    "prompt.list.element.role",
    "reward_model.style",
    "reward_model.ground_truth",
    *(f"extra_info.{name}" for name in ("label", "error_type", "split", "source")),
]
_NOTE = "\ue000note\ue000"  # private use: stands for the note while the prompt set is rendered once


class Entry(NamedTuple):
    """An example and where it comes from."""

    example: LabelledExample
    data_source: str
    source: str
    source_row: int


class Counts:
    """What a split holds."""

    def __init__(self) -> None:
        self.rows = 0
        self.labels: Counter[str] = Counter()
        self.types: Counter[str] = Counter()

    def add(self, label: str, error_type: str | None) -> None:
        """Count one row."""
        self.rows += 1
        self.labels[str(label)] += 1
        if label == "INCORRECT":
            self.types[error_type or "unknown"] += 1

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for the manifest."""
        return {
            "rows": self.rows,
            "labels": dict(sorted(self.labels.items())),
            "error_types": dict(sorted(self.types.items())),
        }


class SplitWriter:
    """Writes one split, a row group at a time."""

    def __init__(self, path: Path, split: str, prompts: PromptSet) -> None:
        self.path, self.split = path, split
        self.counts = Counts()
        self._messages = prompts.assessor(_NOTE)
        self._writer = _Writer(path)
        self._waiting: list[Entry] = []

    def write(self, entry: Entry) -> None:
        """Add a row."""
        self._waiting.append(entry)
        self.counts.add(entry.example.label, entry.example.error_type)
        if len(self._waiting) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Write what waits, and the footer."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        first = self.counts.rows - len(self._waiting)
        self._writer.write_batch(to_batch(self._waiting, self.split, self._messages, first))
        self._waiting = []


class _Writer(pq.ParquetWriter):  # type: ignore[misc]  # pyarrow has no types
    """A Parquet writer of ``SCHEMA`` whose file only its owner can read.

    Python opens it: pyarrow knows no path that is not UTF-8.
    """

    def __init__(self, path: Path) -> None:
        create_private(path).close()
        self._opened = path.open("wb")
        super().__init__(self._opened, SCHEMA, compression="zstd", use_dictionary=_DICTIONARY)

    def close(self) -> None:
        """Write the footer and close the file."""
        super().close()
        self._opened.close()


def to_batch(entries: list[Entry], split: str, messages: list[Message], first: int) -> Any:
    """A record batch; ``messages`` is the assessor's prompt with ``_NOTE`` in the place of the note."""
    size = len(entries)
    examples = [entry.example for entry in entries]
    labels = pa.array([str(example.label) for example in examples], _TEXT)
    columns = [
        pa.array([entry.data_source for entry in entries], _TEXT),
        _prompts([example.text.strip() for example in examples], messages),
        _repeated(ABILITY, size),
        pa.StructArray.from_arrays([_repeated(REWARD_STYLE, size), labels], fields=list(_REWARD)),
        pa.StructArray.from_arrays(
            [
                pa.array([example.note_id for example in examples], _TEXT),
                pa.array([example.text for example in examples], _TEXT),
                labels,
                pa.array([example.error_type for example in examples], _TEXT),
                pa.array([example.error_sentence_id for example in examples], pa.int64()),
                pa.array([example.error_sentence for example in examples], _TEXT),
                pa.array([example.corrected_sentence for example in examples], _TEXT),
                pa.array([example.corrected_text for example in examples], _TEXT),
                _lists([example.sentences for example in examples]),
                _repeated(split, size),
                pa.array([entry.source for entry in entries], _TEXT),
                pa.array([entry.source_row for entry in entries], pa.int64()),
                pa.array(np.arange(first, first + size)),
            ],
            fields=list(_INFO),
        ),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _repeated(value: str, count: int) -> Any:
    return pa.array([value] * count, _TEXT)


def _lists(items: list[tuple[str, ...]]) -> Any:
    ends = np.cumsum([0, *map(len, items)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array([text for item in items for text in item], _TEXT))


def _prompts(texts: list[str], messages: list[Message]) -> Any:
    contents: list[str] = []
    around = [message["content"].split(_NOTE) for message in messages]
    for text in texts:
        contents += [text.join(parts) for parts in around]
    values = pa.StructArray.from_arrays(
        [pa.array([message["role"] for message in messages] * len(texts), _TEXT), pa.array(contents, _TEXT)],
        fields=list(_MESSAGE),
    )
    offsets = np.arange(len(texts) + 1, dtype=np.int32) * len(messages)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def rewrite_without(path: Path, dropped: Collection[str], on_drop: Callable[[str], None]) -> Counts:
    """Write a prepared file anew without the notes ``dropped`` (ids that all versions share).

    Returns the counts of what is left; ``on_drop`` is told the id of each row that goes.
    """
    counts = Counts()
    beside = path.with_suffix(".rewritten")
    writer = _Writer(beside)
    with path.open("rb") as opened, pq.ParquetFile(opened) as file:
        for batch in file.iter_batches(ROW_GROUP):
            info = batch.column("extra_info")
            ids = info.field("note_id").to_pylist()
            keep = [base_id(note_id) not in dropped for note_id in ids]
            for note_id, kept in zip(ids, keep, strict=True):
                if not kept:
                    on_drop(note_id)
            batch = batch.filter(pa.array(keep))
            info = batch.column("extra_info")
            renumbered = [info.field(i) for i in range(info.type.num_fields - 1)]
            renumbered.append(pa.array(np.arange(counts.rows, counts.rows + batch.num_rows)))
            info = pa.StructArray.from_arrays(renumbered, fields=list(_INFO))
            columns = [*batch.columns[:-1], info]
            for label, kind in zip(info.field("label").to_pylist(), info.field("error_type").to_pylist(), strict=True):
                counts.add(label, kind)
            if batch.num_rows:
                writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
    writer.close()
    sync(beside)
    replace_durably(beside, path)
    return counts
