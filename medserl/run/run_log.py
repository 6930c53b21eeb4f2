"""What a run tells while it works: a line per round, train.log, metrics.jsonl, TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from medserl.files import open_private, write_atomically

METRICS_FILE = "metrics.jsonl"
LOG_FILE = "train.log"
TENSORBOARD_DIR = "tensorboard"
# Name on the round's line, metric, format.
LINE = (
    ("vcf_acceptance_rate", "vcf_acceptance_rate", ".2f"),
    ("mean_reward", "mean_reward", "+.2f"),
    ("assessor_bal_acc", "assessor/balanced_accuracy", ".2f"),
    ("injector_win", "injector/win_rate", ".2f"),
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
            so that no round appears twice.
        total_rounds: For the progress on the round's line.
    """

    def __init__(self, directory: Path, resumed_at: int, total_rounds: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.directory = directory
        self.total_rounds = total_rounds
        self._forget_after(resumed_at)
        self._metrics = open_private(directory / METRICS_FILE)
        # What an interrupted attempt wrote of later rounds does not count; from the start, neither does its validation
        # before the first round.
        purge = resumed_at + 1 if resumed_at else 0
        self._writer = SummaryWriter(str(directory / TENSORBOARD_DIR), purge_step=purge)

    def round(self, number: int, epoch: int, metrics: Mapping[str, float]) -> str:
        """Record one round's metrics; returns the line that was shown."""
        finite = {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}
        for name, value in finite.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()
        self._metrics.write(json.dumps({"round": number, "epoch": epoch, **finite}) + "\n")
        self._metrics.flush()
        line = round_line(number, self.total_rounds, epoch, metrics)
        logging.getLogger("medserl.round").info(line)
        return line

    def validation(self, number: int, metrics: Mapping[str, float]) -> str:
        """Record a validation that stands by itself, such as the one before the first round."""
        finite = {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}
        for name, value in finite.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()
        self._metrics.write(json.dumps({"round": number, "validation": True, **finite}) + "\n")
        self._metrics.flush()
        figures = " ".join(
            f"{name}={value:.3f}" for name, value in finite.items() if name.endswith("balanced_accuracy")
        )
        logging.getLogger("medserl.round").info("validation after round %d: %s", number, figures)
        return figures

    def sync(self) -> None:
        """Have the rows on the disk, before a checkpoint says that their rounds are over."""
        os.fsync(self._metrics.fileno())

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What metrics.jsonl holds."""
        return read_metrics(self.directory / METRICS_FILE)

    def close(self) -> None:
        """Flush and close the files."""
        self._writer.close()
        self._metrics.close()

    def _forget_after(self, last: int) -> None:
        path = self.directory / METRICS_FILE
        if not path.exists():
            return
        # A run that starts anew is validated before its first round again.
        kept = [row for row in read_metrics(path) if row["round"] <= last] if last else []
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that was cut off by a crash is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def round_line(number: int, total: int, epoch: int, metrics: Mapping[str, float]) -> str:
    """One line for people and for grep: ``round 3/12 epoch 0 vcf_acceptance_rate=0.71 …``; ``-`` where
    undefined."""
    parts = [f"round {number}/{total}", f"epoch {epoch}"]
    for name, metric, form in LINE:
        value = metrics.get(metric, math.nan)
        if name == "val_bal_acc" and not math.isfinite(value):
            continue  # most rounds are not validated
        parts.append(f"{name}={value:{form}}" if math.isfinite(value) else f"{name}=-")
    return " ".join(parts)


def set_up_logging(directory: Path, console: TextIO | None = None) -> None:
    """Send MedSeRL's log to ``console`` (standard error by default) and to ``train.log``."""
    root = logging.getLogger("medserl")
    root.setLevel(logging.INFO)
    root.propagate = False
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    form = logging.Formatter("%(asctime)s %(levelname).1s %(message)s", "%H:%M:%S")
    streams = (
        logging.StreamHandler(console or sys.stderr),
        logging.StreamHandler(open_private(directory / LOG_FILE)),
    )
    for handler in streams:
        handler.setFormatter(form)
        root.addHandler(handler)


def divert_output(path: Path) -> TextIO:
    """Send this process's standard output and error, prints of C++ libraries included, to a private file.

    verl, vLLM and Ray print thousands of lines that help nobody who watches a run, and help much when one
    failed.

    Returns:
        The standard error as it was before, for what people should see.
    """
    console = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    sys.stdout.flush()
    sys.stderr.flush()
    with open_private(path) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    return console
