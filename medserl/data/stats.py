"""``medserl data stats``: classes, error types and prompt lengths of a file, before a run finds out."""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from medserl.data.records import CORRECTED_SUFFIX, LabelledExample
from medserl.data.splits import SPLITS
from medserl.data.write import Counts
from medserl.errors import DataError
from medserl.game.labels import Label
from medserl.game.reader import ReadReport, check_usable, converted_rows
from medserl.game.rows import shown_path

_CHUNK = 512  # notes whose prompts are tokenized together
_LISTED = 20
_QUANTILES = (("median", 50), ("p95", 95), ("p99", 99), ("max", 100))


class Prompt(Protocol):
    """A prompt with the name of its kind (`medserl.preflight.prompt_lengths.Prompt`)."""

    @property
    def kind(self) -> str:
        """What the prompt is for."""


class Counter(Protocol):
    """What counts tokens (`medserl.preflight.prompt_lengths.PromptCounter`)."""

    tokenizer_name: str
    prompt_set: str
    injector_format: str
    limit: int | None

    def prompts(self, text: str, error_text: str | None) -> list[Any]:
        """Every prompt that the game can make of a note."""

    def assessor(self, text: str) -> Any:
        """The assessor's prompt for a text that nobody edits."""

    def needed(self, prompts: Sequence[Any]) -> list[int]:
        """Tokens that each prompt needs."""


def data_files(path: Path) -> list[Path]:
    """The prepared files of a folder, in the order of the splits, or the file itself.

    Raises DataError for a folder without prepared files.
    """
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            return [path]
        files = [file for split in SPLITS if (file := path / f"{split}.parquet").is_file()]
    except FileNotFoundError:
        raise DataError(f"{shown_path(path)}: no such file or folder") from None
    except OSError as error:
        raise DataError(f"{shown_path(path)}: cannot be read ({error.strerror or error})") from error
    if not files:
        raise DataError(
            f"{shown_path(path)}: holds no train.parquet, validation.parquet or test.parquet; run medserl data prepare"
        )
    return files


def data_stats(path: Path, counter: Counter) -> dict[str, Any]:
    """Statistics of a prepared folder or a file of notes, as plain values.

    Raises DataError as reading does.
    """
    return {
        "path": str(path),
        "tokenizer": counter.tokenizer_name,
        "prompt_set": counter.prompt_set,
        "injector_format": counter.injector_format,
        "max_prompt_length": counter.limit,
        "files": {file.name: _file_stats(file, counter) for file in data_files(path)},
    }


def _file_stats(path: Path, counter: Counter) -> dict[str, Any]:
    report, counts = ReadReport(), Counts()
    lengths: dict[str, array[int]] = {}
    over: dict[str, int] = {}
    notes = 0
    over_ids: list[str] = []
    for chunk in _chunks(path, report):
        prompts: list[Any] = []
        owners: list[str] = []
        for example in chunk:
            counts.add(example.label, example.error_type)
            made = _prompts(example, counter)
            notes += bool(made)
            prompts += made
            owners += [example.note_id] * len(made)
        for prompt, owner, needed in zip(prompts, owners, counter.needed(prompts), strict=True):
            lengths.setdefault(prompt.kind, array("I")).append(needed)
            if counter.limit is not None and needed > counter.limit:
                over[prompt.kind] = over.get(prompt.kind, 0) + 1
                if not over_ids or over_ids[-1] != owner:
                    over_ids.append(owner)
    check_usable(path, report)
    stats: dict[str, Any] = {**counts.as_dict(), "notes": notes, "dropped_rows": len(report.dropped)}
    stats["prompts"] = {kind: _summary(values) for kind, values in lengths.items()}
    if counter.limit is not None:
        for kind, summary in stats["prompts"].items():
            summary["over_limit"] = over.get(kind, 0)
        stats["notes_over_limit"] = len(over_ids)
        stats["first_over_limit"] = over_ids[:_LISTED]
    return stats


def long_notes(path: Path, counter: Counter, limit: int) -> list[str]:
    """Ids of the notes of a file of which a prompt needs more than ``limit`` tokens, in file order."""
    found: dict[str, None] = {}
    for chunk in _chunks(path, ReadReport()):
        owned = [(example.note_id, prompt) for example in chunk for prompt in _prompts(example, counter)]
        needs = counter.needed([prompt for _, prompt in owned])
        found |= {owner: None for (owner, _), needed in zip(owned, needs, strict=True) if needed > limit}
    return list(found)


def _chunks(path: Path, report: ReadReport) -> Iterator[list[LabelledExample]]:
    waiting: list[LabelledExample] = []
    for _, converted in converted_rows(path, report):
        waiting += converted.examples
        if len(waiting) >= _CHUNK:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def _prompts(example: LabelledExample, counter: Counter) -> list[Any]:
    """The prompts of the note that a row stands for; a pair's correct note comes with its erroneous one."""
    if example.note_id.endswith(CORRECTED_SUFFIX):
        return []
    if example.label is Label.CORRECT:
        return counter.prompts(example.text, None)
    if example.corrected_text is None:
        return [counter.assessor(example.text)]
    return counter.prompts(example.corrected_text, example.text)


def _summary(values: array[int]) -> dict[str, Any]:
    lengths = np.frombuffer(values, np.uintc)
    quantiles = np.percentile(lengths, [percent for _, percent in _QUANTILES], method="higher")
    found = {name: int(value) for (name, _), value in zip(_QUANTILES, quantiles, strict=True)}
    return {"prompts": len(lengths), "min": int(lengths.min()), "mean": round(float(lengths.mean()), 1), **found}


# ------------------------------------------------------------------------------------------------ table

_COLUMNS = ("prompts", "min", "mean", "median", "p95", "p99", "max", "over_limit")


def stats_table(stats: dict[str, Any]) -> str:
    """The statistics as text in columns."""
    limit = stats["max_prompt_length"]
    shown = limit if limit is not None else "not given"
    lines = [
        f"tokenizer  {stats['tokenizer']}",
        f"prompts    {stats['prompt_set']}, replies in the format {stats['injector_format']}",
        f"limit      {shown} (data.max_prompt_length)",
    ]
    for name, file in stats["files"].items():
        lines += ["", f"{name}: {file['rows']} texts of {file['notes']} notes, {file['dropped_rows']} rows dropped"]
        lines += [_shares("classes", file["labels"]), _shares("errors", file["error_types"])]
        if set(file["labels"]) == {Label.CORRECT.value}:
            lines.append("  no row says that its text has an error: all count as CORRECT")
        names = [column for column in _COLUMNS if column != "over_limit" or limit is not None]
        heads = [f"> {limit}" if column == "over_limit" else column for column in names]
        lines.append(f"  {'tokens needed':<24}" + "".join(f"{head:>9}" for head in heads))
        for kind, summary in file["prompts"].items():
            lines.append(f"  {kind:<24}" + "".join(f"{summary[column]:>9}" for column in names))
        if limit is not None:
            first = ", ".join(file["first_over_limit"][:5])
            count = file["notes_over_limit"]
            lines.append(f"  notes that do not fit: {count}" + (f" (first: {first})" if count else ""))
    return "\n".join(lines)


def _shares(title: str, counts: dict[str, int]) -> str:
    total = sum(counts.values())
    shares = ", ".join(f"{name} {count} ({100 * count / total:.1f} %)" for name, count in counts.items())
    return f"  {title:<8} {shares or 'none'}"
