"""What a person sees of a run on a terminal: the log, a short line a round, and below them what is going on now.

Where output goes to a file or a pipe, and in train.log, the log stands as it is, with key=value lines a round.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TextIO

PHASE = "medserl.phase"
"""The logger of phases: records that only a terminal shows."""
ROUND = "medserl.round"
WIDTH = 100
"""Columns that a round's line may take."""
CHECK, RAY, VERL, ENGINES, LOAD = STEPS = (
    "checking the configuration",
    "starting Ray",
    "loading verl",
    "starting Megatron and vLLM",
    "loading the checkpoint",
)
"""Of a start, in this order."""
USUAL = dict(zip(STEPS, (4, 6, 8, 25, 1), strict=True))
"""Seconds of each, as seen with the embedded default on two idle cores."""


def first_line(config: str, stream: TextIO) -> None:
    """Said before anything else is loaded, so that nobody waits for a sign of life."""
    if is_terminal(stream):
        print(f"medserl train: {CHECK} {config} and what it needs (1/{len(STEPS)})", file=stream, flush=True)


def phase(text: str) -> None:
    """Say what is going on from now on; empty: nothing to wait for."""
    logging.getLogger(PHASE).info(text)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at this stream, on a terminal that can redraw a line."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


@dataclass
class RoundLine:
    """One round in at most 100 columns: what a person wants to know, in words.

    Args:
        metric: The held-out metric that decides which checkpoint is the best.
        start: Its value before the first round; unknown until a validation.
    """

    metric: str
    start: float | None = None

    def see(self, metrics: Mapping[str, float]) -> None:
        """Take the start from the first validation that measures it."""
        value = metrics.get(self.metric)
        if self.start is None and value is not None and math.isfinite(value):
            self.start = value

    def __call__(self, number: int, total: int, metrics: Mapping[str, float], left: float | None) -> str:
        """The line.

        Args:
            number: The round, from 1.
            total: Rounds of the run.
            metrics: Metrics by name; what is missing or undefined is shown as ``-``.
            left: Seconds to the end of the run; None: not known.
        """
        known = {name: value for name, value in metrics.items() if math.isfinite(value)}
        parts = [f"round {number:>{len(str(total))}}/{total}"]
        held_out = known.get(self.metric)
        if held_out is None:
            parts.append("held-out    -        ")
        else:
            change = "" if self.start is None else f" ({held_out - self.start:+.2f})"
            parts.append(f"held-out {held_out:.2f}{change:<8}")
        parts.append(f"accepted {_shown(known, 'vcf_acceptance_rate', '4.0%')}")
        parts.append(f"assessor {_shown(known, 'assessor/balanced_accuracy', '.2f')}")
        parts.append(f"KL {_shown(known, 'actor/reward_kl_penalty', '.4f')}")
        parts.append(f"{_shown(known, 'timing_s/step', '.1f')} s")
        if left is not None and number < total:
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)[:WIDTH]


def _shown(known: Mapping[str, float], name: str, form: str) -> str:
    text = f"{known[name]:{form}}" if name in known else "-"
    return "-" if "inf" in text else text  # a percentage of what is no share


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 05 min``, ``2 d 04 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} d {hours % 24:02} h"


class TerminalHandler(logging.Handler):
    """Shows log records, and the phase under way with its seconds as the last line.

    Args:
        stream: A terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        super().__init__()
        self._console = Console(file=stream, force_terminal=True, highlight=False, soft_wrap=True)
        self._text, self._began = "", time.monotonic()
        # Redrawn twice a second: a round takes seconds, and what is drawn costs processor time of the run.
        self._live = Live(get_renderable=self._line, console=self._console, refresh_per_second=2, transient=True)
        self._live.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record above the last line, or change that line."""
        try:
            if record.name == PHASE:
                self._text, self._began = record.getMessage(), time.monotonic()
                return
            from rich.text import Text

            style = {logging.WARNING: "yellow", logging.ERROR: "bold red"}.get(record.levelno, "")
            shown = getattr(record, "short", None)
            self._console.print(Text(self.format(record) if shown is None else shown, style=style))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Take the last line away."""
        self._live.stop()
        super().close()

    def _line(self) -> Any:
        from rich.text import Text

        if not self._text:
            return Text("")
        usual = USUAL.get(self._text)
        step = f"{STEPS.index(self._text) + 1}/{len(STEPS)} " if self._text in STEPS else ""
        expected = f" (usually {usual:.0f} s)" if usual else ""
        return Text(f"{step}{self._text} … {time.monotonic() - self._began:.0f} s{expected}", style="dim", no_wrap=True)


def no_phases(record: logging.LogRecord) -> bool:
    """A filter for handlers that keep what they are given."""
    return record.name != PHASE
