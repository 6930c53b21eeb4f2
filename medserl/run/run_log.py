"""What a run tells while it works: a line per round, train.log, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

from medserl.files import open_private, write_atomically
from medserl.run.console import ROUND, RoundLine, TerminalHandler, is_terminal, no_phases
from medserl.run.curves import Curves
from medserl.run.trackers import Trackers, numbers_of

METRICS_FILE = "metrics.jsonl"
ASIDE_FILE = "metrics.aside.jsonl"
"""What left metrics.jsonl: rows of rounds that were played again, and lines that cannot be read."""
LOG_FILE = "train.log"
_ROW_BEGINS = b'{"round"'
logger = logging.getLogger("medserl.run")
INVERSION, UNCHECKED = "label_inversion_rate", "referee/unchecked_rate"
# Name on the round's line, metric, format.
LINE = (
    ("vcf_acceptance_rate", "vcf_acceptance_rate", ".2f"),
    ("mean_reward", "mean_reward", "+.2f"),
    ("assessor_bal_acc", "assessor/balanced_accuracy", ".2f"),
    ("injector_win", "injector/win_rate", ".2f"),
    ("label_inversion", INVERSION, ".2f"),
    ("labelled_bal_acc", "labelled/balanced_accuracy", ".2f"),
    ("kl", "actor/reward_kl_penalty", ".4f"),
    ("entropy", "actor/entropy", ".2f"),
    ("grad_norm", "actor/grad_norm", ".2f"),
    ("tokens/s", "perf/tokens_per_second", ".0f"),
    ("s", "timing_s/step", ".1f"),
    ("val_bal_acc", "val/greedy/balanced_accuracy", ".3f"),
)


class RunLog:
    """Writes a run's metrics and log.

    Args:
        directory: The run directory.
        resumed_at: Last round that is already recorded; later records of an interrupted attempt are removed,
            so that no round appears twice; they are kept in ``metrics.aside.jsonl``, and so are lines that cannot be
            read.
        total_rounds: For the progress on the round's line.
        hyperparameters: What TensorBoard's page "HParams" says of the run.
        best_metric: The held-out metric that a terminal shows.
        trackers: Which trackers get the numbers too.
    """

    def __init__(
        self,
        directory: Path,
        resumed_at: int,
        total_rounds: int,
        hyperparameters: Mapping[str, float | str | bool] | None = None,
        best_metric: str = "val/greedy/balanced_accuracy",
        trackers: Collection[str] = (),
    ) -> None:
        self.directory = directory
        self.total_rounds = total_rounds
        self._forget_after(resumed_at)
        self._metrics = open_private(directory / METRICS_FILE)
        rows = self.rows
        self._curves = Curves(directory, rows, hyperparameters)
        self._trackers = Trackers(directory, trackers, numbers_of(hyperparameters or {}), rows)
        self._short = RoundLine(best_metric)
        for row in rows:
            self._short.see(row)
        self._began, self._first = time.monotonic(), resumed_at

    def round(self, number: int, epoch: int, metrics: Mapping[str, float]) -> str:
        """Record one round's metrics; returns the line that was shown."""
        finite = {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}
        self._curves.add(number, finite)
        self._trackers.send(number, finite)
        self._metrics.write(json.dumps({"round": number, "epoch": epoch, **finite}) + "\n")
        self._metrics.flush()
        line = round_line(number, self.total_rounds, epoch, metrics)
        self._short.see(metrics)
        a_round = (time.monotonic() - self._began) / max(number - self._first, 1)
        left = a_round * (self.total_rounds - number)
        logging.getLogger(ROUND).info(line, extra={"short": self._short(number, self.total_rounds, metrics, left)})
        return line

    def validation(self, number: int, metrics: Mapping[str, float]) -> str:
        """Record a validation that stands by itself, such as the one before the first round."""
        finite = {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}
        self._curves.add(number, finite)
        self._trackers.send(number, finite)
        self._metrics.write(json.dumps({"round": number, "validation": True, **finite}) + "\n")
        self._metrics.flush()
        figures = " ".join(
            f"{name}={value:.3f}" for name, value in finite.items() if name.endswith("balanced_accuracy")
        )
        self._short.see(metrics)
        logging.getLogger(ROUND).info("validation after round %d: %s", number, figures)
        return figures

    def remark(self, topic: str, number: int, sentence: str) -> None:
        """Say something about round ``number`` that is no figure: a warning in the log, a text in TensorBoard."""
        self._curves.text(topic, number, sentence)
        logging.getLogger(ROUND).warning("round %d: %s", number, sentence)

    def games(self, number: int, markdown: str) -> None:
        """Show some games of round ``number`` as a text in TensorBoard, and nowhere else; none where it is empty."""
        if markdown:
            self._curves.text("games", number, markdown)

    def sync(self) -> None:
        """Have the rows on the disk, before a checkpoint says that their rounds are over."""
        os.fsync(self._metrics.fileno())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What metrics.jsonl holds."""
        return read_metrics(self.directory / METRICS_FILE)

    def close(self) -> None:
        """Flush and close the files, and the runs of trackers."""
        self._curves.close()
        self._trackers.close()
        self._metrics.close()

    def _forget_after(self, last: int) -> None:
        """Keep the rows of rounds that count; what leaves the file is kept aside, and named in the log."""
        path = self.directory / METRICS_FILE
        if not path.exists():
            return
        rows, bad = parse_metrics(path.read_bytes())
        # A run that starts anew is validated before its first round again.
        kept = [row for row in rows if row["round"] <= last] if last else []
        left = [row for row in rows if row["round"] > last] if last else rows
        again = sorted({row["round"] for row in left})
        aside = [*(json.dumps(row).encode() for row in left), *(line for _, line in bad)]
        if not aside:
            return
        with open_private(self.directory / ASIDE_FILE) as file:
            file.buffer.write(b"".join(line + b"\n" for line in aside))
            file.flush()
            os.fsync(file.fileno())
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        if bad:
            numbers = ", ".join(str(number) for number, _ in bad[:5]) + (", …" if len(bad) > 5 else "")
            logger.warning("%s: line %s cannot be read; kept in %s, the others stay", path, numbers, ASIDE_FILE)
        if again:
            rounds = f"round {again[0]}" if len(again) == 1 else f"rounds {again[0]} to {again[-1]}"
            logger.info("%s: the rows of %s, which are played again, are kept in %s", path, rounds, ASIDE_FILE)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; lines that cannot be read, as of a crash, are left out."""
    return parse_metrics(path.read_bytes())[0]


def parse_metrics(content: bytes) -> tuple[list[dict[str, Any]], list[tuple[int, bytes]]]:
    """The rows of a metrics.jsonl, and number and content of each line that holds something else.

    A row behind the rest of another, or behind zeros of a power cut, on one line is found too.
    """
    rows: list[dict[str, Any]] = []
    bad: list[tuple[int, bytes]] = []
    for number, line in enumerate(content.split(b"\n"), 1):
        text = line.strip(b"\0 \r\t")
        start = max(text.rfind(_ROW_BEGINS), 0)
        if not text:
            continue
        if (row := _row(text)) is not None:
            rows.append(row)
        elif start and (row := _row(text[start:])) is not None:
            rows.append(row)
            bad.append((number, text[:start]))
        else:
            bad.append((number, text))
    return rows, bad


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    number = found.get("round") if isinstance(found, dict) else None
    return found if isinstance(number, int) and not isinstance(number, bool) else None


def round_line(number: int, total: int, epoch: int, metrics: Mapping[str, float]) -> str:
    """One line for people and for grep: ``round 3/12 epoch 0 vcf_acceptance_rate=0.71 …``; ``-`` where
    undefined."""
    parts = [f"round {number}/{total}", f"epoch {epoch}"]
    for name, metric, form in LINE:
        value = metrics.get(metric, math.nan)
        if name == "val_bal_acc" and not math.isfinite(value):
            continue  # most rounds are not validated
        if metric == INVERSION and metrics.get(UNCHECKED, 0.0) > 0:
            parts.append(f"{name}=not_measured")
            continue
        parts.append(f"{name}={value:{form}}" if math.isfinite(value) else f"{name}=-")
    return " ".join(parts)


def set_up_logging(directory: Path, console: TextIO | None = None) -> Callable[[], None]:
    """Send MedSeRL's log to ``console`` (standard error by default) and to ``train.log``.

    Returns:
        What undoes it.
    """
    root = logging.getLogger("medserl")
    before = (root.level, root.propagate)
    root.setLevel(logging.INFO)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    form = logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S")
    file = open_private(directory / LOG_FILE)
    stream = console or sys.stderr
    seen = TerminalHandler(stream) if is_terminal(stream) else logging.StreamHandler(stream)
    kept = logging.StreamHandler(file)
    handlers = (seen, kept)
    for handler in handlers:
        handler.setFormatter(form)
        root.addHandler(handler)
        if not isinstance(handler, TerminalHandler):
            handler.addFilter(no_phases)

    def undo() -> None:
        for handler in handlers:
            handler.flush()
            root.removeHandler(handler)
            handler.close()
        file.close()
        root.setLevel(before[0])
        root.propagate = before[1]

    return undo
