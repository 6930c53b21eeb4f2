"""Shared by the tests of the data commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.data.files import clean_row, error_row, note_text, write_csv


@pytest.fixture
def medec_files(tmp_path: Path) -> Callable[..., list[Path]]:
    """MEDEC-like train, validation and test files of different notes."""

    def write(train: int = 6, validation: int = 2, test: int = 2) -> list[Path]:
        paths, number = [], 0
        for name, count in (("Training", train), ("Validation", validation), ("Test", test)):
            rows = []
            for _ in range(count):
                note_id = f"toy-{name.lower()}-{number}"
                rows.append(error_row(note_id, number) if number % 2 else clean_row(note_id, note_text(number)))
                number += 1
            paths.append(write_csv(tmp_path / f"MEDEC-TOY-{name}Set-with-ErrorType.csv", rows))
        return paths

    return write
