"""Where the labelled texts of an evaluation come from: files, or the synthetic ward."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medserl.data.labelled import one_class
from medserl.data.records import CORRECTED_SUFFIX, LabelledExample
from medserl.errors import DataError
from medserl.game.labels import Label
from medserl.game.parse import NO_SENTENCE
from medserl.game.sentences import sentence_texts

WARD = "ward:"
DEFAULT_COUNT = 300
MOST_WARD_NOTES = 100_000  # more would be made for an hour before the first is asked about


@dataclass(frozen=True, slots=True)
class EvaluationData:
    """Labelled texts with unique ids, and their fingerprint."""

    source: str
    examples: tuple[LabelledExample, ...]
    sha256: str
    notes: tuple[str, ...] = ()
    """What was dropped or is odd in the files, a sentence each."""


def load_examples(sources: Sequence[str], count: int | None, seed: int) -> EvaluationData:
    """Texts of all ``sources``: files, ``ward:SPLIT``, in order.

    Args:
        sources: MEDEC CSV, prepared Parquet or whatever `medserl.data.read_labelled` reads; ``ward:validation``
            or ``ward:test`` for synthetic notes, each with and without its error.
        count: Number of synthetic notes (default 300), or of texts to take from the start of the files
            (default all).
        seed: Of the synthetic notes.

    Raises:
        DataError: no source, an unknown one, no text at all, an id that occurs twice.
    """
    if not sources:
        raise DataError("--data: say what to evaluate on: a file of labelled notes, ward:validation or ward:test")
    if count is not None and count < 1:
        raise DataError(f"--count: {count} is less than 1")
    if count is not None and count > MOST_WARD_NOTES and any(source.startswith(WARD) for source in sources):
        raise DataError(f"--count: {count} is more than {MOST_WARD_NOTES}, the most of the ward's notes at a time")
    examples: list[LabelledExample] = []
    notes: list[str] = []
    for source in sources:
        if source.startswith(WARD):
            examples += _ward(source, count, seed)
        else:
            found, remarks = _file(Path(source), count)
            examples += found
            notes += remarks
    _check_ids(examples)
    if warning := one_class(example.label for example in examples):
        notes.append(warning)
    names = [source if source.startswith(WARD) else Path(source).name for source in sources]
    return EvaluationData(" + ".join(names), tuple(examples), fingerprint(examples), tuple(notes))


def _file(path: Path, count: int | None) -> tuple[list[LabelledExample], list[str]]:
    from medserl.data import read_labelled_with_report

    examples, report = read_labelled_with_report(path)
    if not report.labelled:  # a plain file of notes is all CORRECT because nothing else is known
        raise DataError(
            f"{path}: holds notes without labels; give a file with MEDEC's column 'Error Flag', pairs of notes, "
            "or one of `medserl data prepare`"
        )
    notes = []
    for what, rows in (("dropped", report.dropped), ("kept despite an irregularity", report.remarks)):
        for reason, times in sorted(Counter(row.reason for row in rows).items()):
            notes.append(f"{path.name}: {times} of {report.rows} rows {what}: {reason}")
    if count is not None and count < len(examples):
        notes.append(f"{path.name}: the first {count} of {len(examples)} texts, as --count says")
    return examples[:count], notes


def _ward(source: str, count: int | None, seed: int) -> list[LabelledExample]:
    from medserl.ward import SPLITS, ward_notes

    split = source.removeprefix(WARD)
    if split not in SPLITS:
        raise DataError(f"--data {source}: the ward has no such split; known: {', '.join(WARD + s for s in SPLITS)}")
    examples = []
    for note in ward_notes(split, DEFAULT_COUNT if count is None else count, seed):
        right = tuple(sentence_texts(note.text))
        examples.append(
            LabelledExample(
                note.note_id + CORRECTED_SUFFIX, note.text, Label.CORRECT, None, NO_SENTENCE, None, None, right
            )
        )
        if note.error_text is not None and note.error_sentence is not None:
            wrong = tuple(sentence_texts(note.error_text))
            examples.append(
                LabelledExample(
                    note_id=note.note_id,
                    text=note.error_text,
                    label=Label.INCORRECT,
                    error_type=note.error_type,
                    error_sentence_id=wrong.index(note.error_sentence),
                    error_sentence=note.error_sentence,
                    corrected_sentence=note.corrected_sentence,
                    sentences=wrong,
                    corrected_text=note.text,
                )
            )
    return examples


def _check_ids(examples: Iterable[LabelledExample]) -> None:
    seen: set[str] = set()
    for example in examples:
        if example.note_id in seen:
            raise DataError(f"--data: the note id {example.note_id!r} occurs twice; give each text once")
        seen.add(example.note_id)


def text_sha256(example: LabelledExample) -> str:
    """SHA-256 of what the assessor may see of an example and of its gold label."""
    seen = [example.text, list(example.sentences), example.label.value, example.error_sentence_id]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def fingerprint(examples: Iterable[LabelledExample]) -> str:
    """SHA-256 of ids, texts and labels; the order does not matter."""
    digest = hashlib.sha256()
    for line in sorted(f"{example.note_id}\0{text_sha256(example)}" for example in examples):
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()
