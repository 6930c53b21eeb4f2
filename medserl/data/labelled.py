"""Labelled texts of a file, one example per published row: what evaluation reads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from medserl.game.labels import Label
from medserl.game.reader import ReadReport, check_usable, distinct_rows
from medserl.game.records import LabelledExample

_log = logging.getLogger("medserl.data")


def one_class(labels: Iterable[str]) -> str | None:
    """What to say where all texts are of one class; None where both are there."""
    found = set(map(str, labels))
    if found == {Label.CORRECT.value}:
        return "no row has an error: such notes are of no use for measuring"
    if found == {Label.INCORRECT.value}:
        return "every row has an error: such notes measure only how many errors are found"
    return None


def read_labelled_with_report(path: Path | str) -> tuple[list[LabelledExample], ReadReport]:
    """Like `read_labelled`, with an account of what was dropped."""
    path = Path(path)
    report = ReadReport()
    found = [example for _, examples in distinct_rows(path, report) for example in examples]
    check_usable(path, report)
    return found, report


def read_labelled(path: Path | str) -> list[LabelledExample]:
    """The labelled texts of a MEDEC CSV, a pairs or plain file, or a file of ``medserl data prepare``.

    A MEDEC row is one example with exactly its published flag. A pair is two: its erroneous note, and its
    correct one. Rows that cannot be used (blank ones, say) are left out, and a warning says how many.

    Raises:
        DataError: a file or row that is wrong, naming file, row and column; no usable row.
    """
    found, report = read_labelled_with_report(path)
    if report.dropped:
        reasons = sorted({item.reason for item in report.dropped})
        _log.warning("%s: %d of %d rows dropped: %s", path, len(report.dropped), report.rows, ", ".join(reasons))
    return found
