"""Small hand-made files in the forms that the data commands read."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HEADER = ("Text ID", "Text", "Sentences", "Error Flag", "Error Type", "Error Sentence ID", "Error Sentence",
          "Corrected Sentence", "Corrected Text")  # fmt: skip
SUBJECTS = ("fever and cough", "a swollen left knee", "blurred vision", "burning feet", "a dry mouth", "chest pain",
            "night sweats", "a stiff neck", "weight loss", "double vision")  # fmt: skip


def note_text(number: int, drug: str = "ibuprofen") -> str:
    """A note that shares few shingles with any other number's."""
    subject = SUBJECTS[number % len(SUBJECTS)]
    words = " ".join(f"{chr(97 + (number * 7 + i * i) % 26) * 3}{number * 31 + i}" for i in range(25))
    return f"Case {number} has {subject}. Findings: {words}. The patient takes {drug} daily."


def numbered(text: str) -> str:
    return "\n".join(f"{i} {part.strip()}." for i, part in enumerate(text.rstrip(". ").split(". ")))


def clean_row(note_id: str, text: str) -> list[str]:
    return [note_id, text, numbered(text), "0", "NA", "-1", "NA", "NA", "NA"]


def error_row(note_id: str, number: int, kind: str = "pharmacotherapy") -> list[str]:
    wrong, right = note_text(number, "warfarin"), note_text(number)
    sentences = ["The patient takes warfarin daily.", "The patient takes ibuprofen daily."]
    return [note_id, wrong, numbered(wrong), "1", kind, "2", *sentences, right]


def pair(note_id: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "note_id": note_id,
        "correct_note": note_text(number),
        "incorrect_note": note_text(number, "warfarin"),
        "error_type": "pharmacotherapy",
        "error_sentence": "The patient takes warfarin daily.",
        "corrected_sentence": "The patient takes ibuprofen daily.",
        "split": None,
        **more,
    }


def write_csv(path: Path, rows: Iterable[list[str]], header: Iterable[str] = HEADER, delimiter: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([list(header), *rows])
    return path


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path
