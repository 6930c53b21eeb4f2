"""Which validation is the best so far, and which checkpoint is marked for it. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medserl.run import checkpoint


class BestSoFar:
    """Follows one metric over a run's validations; greater is better.

    Args:
        metric: Its name.
    """

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.found: dict[str, Any] | None = None
        self.without_better = 0

    def see(self, metrics: Mapping[str, float], number: int) -> bool:
        """Whether round ``number``'s validation, if it had one, is the best so far."""
        value = metrics.get(self.metric)
        if value is None or math.isnan(value):
            return False
        if self.found is None or value > self.found["value"]:
            self.found = {"step": number, "metric": self.metric, "value": value}
            self.without_better = 0
            return True
        self.without_better += 1
        return False

    def take_up(self, rows: Iterable[Mapping[str, Any]], root: Path, resumed_at: int) -> None:
        """Go on where an interrupted start was.

        Args:
            rows: Rows of metrics.jsonl of the rounds that count.
            root: The folder of all checkpoints; its mark is set right where it names a round that is played again, or
                was not set before the interruption.
            resumed_at: Last round that counts.
        """
        for row in rows:
            if not row.get("validation"):
                self.see(row, row["round"])
        marked = checkpoint.best(root)
        if self.found is None and marked is not None and 0 < marked["step"] <= resumed_at:
            self.found = marked  # of a directory whose metrics.jsonl is not there any more
        if marked != self.found:
            checkpoint.unmark_best(root)
            if self.found is not None and checkpoint.damage(checkpoint.folder(root, self.found["step"])) is None:
                checkpoint.mark_best(root, **self.found)

    def mark(self, root: Path, saved: int) -> None:
        """Mark the checkpoint that was just saved if it is the best one's."""
        if self.found is not None and self.found["step"] == saved:
            checkpoint.mark_best(root, **self.found)
