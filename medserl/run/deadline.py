"""Whether one more round still fits before the time at which the job is killed. No torch.

A cluster's job has a time limit. What a run needs until its next checkpoint is safe is forecast from what rounds,
validations and checkpoints took so far; a run that would be overtaken stops by itself, with a checkpoint.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from medserl.errors import ConfigError

VARIABLE = "MEDSERL_DEADLINE"
SLACK = 1.2
"""A round may take this much longer than the longest of the last ones."""
REMEMBERED = 10
_FIRST_DATE = 1e9  # Unix seconds of 2001: what is less is a duration by mistake


def read_deadline(environ: Mapping[str, str], now: float) -> float | None:
    """The time in ``MEDSERL_DEADLINE``, Unix seconds; None where it is not set.

    Raises:
        ConfigError: it is no such time, or has passed.
    """
    text = environ.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < _FIRST_DATE:
        raise ConfigError(
            f"{VARIABLE}: {text!r} is not a time in Unix seconds; give one such as $(date -d '+2 hours' +%s), "
            "or unset it"
        )
    if value <= now:
        raise ConfigError(f"{VARIABLE}: {text} was {now - value:.0f} s ago; give a later time, or unset it")
    return value


class Deadline:
    """The time by which a run must be over, and the forecast of what it still needs.

    Args:
        at: Unix seconds at which the job is killed; None: never.
        margin: Seconds to keep free for the end: Ray's shutdown, the report.
        clock: Present time, Unix seconds.
    """

    def __init__(self, at: float | None, margin: float, clock: Callable[[], float]) -> None:
        self.at = at
        self.margin = margin
        self.clock = clock
        self._set_up = 0.0
        self._took: dict[str, deque[float]] = {
            what: deque(maxlen=REMEMBERED) for what in ("round", "validation", "save")
        }

    def set_up_took(self, seconds: float) -> None:
        """How long this start needed until it could train: the guess for what was never measured."""
        self._set_up = seconds

    def measured(self, what: str, seconds: float | None) -> None:
        """Remember a duration.

        Args:
            what: ``round`` (without validation and checkpoint), ``validation`` or ``save``.
            seconds: Its duration; None or nan: not known.
        """
        if seconds is not None and math.isfinite(seconds):
            self._took[what].append(seconds)

    def remember(self, rows: Iterable[Mapping[str, Any]], save_seconds: float | None) -> None:
        """Take over what earlier starts of the run measured.

        Args:
            rows: Rows of metrics.jsonl.
            save_seconds: What the checkpoint that the run goes on from took.
        """
        for row in rows:
            self.measured("round", row.get("timing_s/step"))
            self.measured("validation", row.get("timing_s/validate"))
        self.measured("save", save_seconds)

    def forecast(self, what: str) -> float:
        """Seconds that the next one takes at most: the longest of the last ones and a fifth more; where none was
        measured, as long as the set-up (a first validation: as long as a round)."""
        took = self._took[what]
        if took:
            return SLACK * max(took)
        if what == "validation":
            return self.forecast("round")
        return SLACK * self._set_up

    def needed(self, validates: bool) -> float:
        """Seconds for one more round until its checkpoint is safe and the run has ended."""
        parts = ("round", "save", "validation") if validates else ("round", "save")
        return sum(self.forecast(part) for part in parts) + self.margin

    @property
    def left(self) -> float:
        """Seconds until the deadline; infinite where there is none."""
        return math.inf if self.at is None else self.at - self.clock()

    def why_stop(self, validates: bool) -> str | None:
        """Why the next round must not begin, in a phrase; None when it fits.

        Args:
            validates: Whether held-out notes are judged after that round.
        """
        left, needed = self.left, self.needed(validates)
        if left >= needed:
            return None
        return f"{max(left, 0.0):.0f} s are left and one more round with its checkpoint may need {needed:.0f} s"
