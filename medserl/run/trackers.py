"""Numbers of a run to Weights & Biases, MLflow or SwanLab, where ``medserl.trackers`` asks for it. No torch.

What leaves are the metrics that TensorBoard shows, under the same names, the settings that are numbers, and the last
name of the run directory; never a text, a path, code, the environment or the name of the machine. verl's own
``Tracking`` (verl/utils/tracking.py) sends the whole configuration and lets the libraries collect what they like.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError, all_told
from medserl.files import read_json, write_atomically
from medserl.run.curves import tag
from medserl.run.tracker_kinds import KINDS, Kind, Opening, Tracker
from medserl.words import counted

KEY = "medserl.trackers"
STATE_FILE = "trackers.json"
"""Which run of a tracker this one is, and the last round that it got."""
logger = logging.getLogger("medserl.run")


def check_trackers(names: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
    """Every tracker must be known, installed, and have somewhere to write to. Nothing is contacted.

    Raises:
        ConfigError: names the tracker and what it lacks.
    """
    environ = os.environ if environ is None else environ
    with all_told() as found:
        for name in names:
            with found.noted():
                _check_tracker(name, environ)


def _check_tracker(name: str, environ: Mapping[str, str]) -> None:
    kind = KINDS.get(name)
    if kind is None:
        raise ConfigError(f"{KEY}: {name!r} is not one of {', '.join(KINDS)}")
    if importlib.util.find_spec(kind.module) is None:
        raise ConfigError(
            f"{KEY}: {name} is not installed; install the package {kind.package} into this environment, or leave "
            f"{name} out"
        )
    if lacks := kind.lacks(environ):
        raise ConfigError(f"{KEY}: {name} needs {lacks}")


def where_numbers_go(names: Iterable[str], environ: Mapping[str, str] | None = None) -> str:
    """One phrase for people: the hosts that numbers are sent to, each with its tracker; empty where none is."""
    environ = os.environ if environ is None else environ
    return ", ".join(f"{KINDS[name].goes_to(environ)} ({name})" for name in dict.fromkeys(names))


def numbers_of(settings: Mapping[str, Any]) -> dict[str, float]:
    """The settings that are numbers."""
    return {name: value for name, value in settings.items() if type(value) in (int, float)}


@dataclass
class _Line:
    """The way to one tracker: what waits to be sent, and how long it is left alone after a failure."""

    kind: Kind
    waiting: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    tracker: Tracker | None = None
    known: str | None = None
    sent: int = -1
    """The last round that it got."""
    before: int = -1
    """The last that it got from earlier starts."""
    pause: int = 0
    failures: int = 0


class Trackers:
    """Sends a run's numbers to the trackers that ``medserl.trackers`` names; a start on the same run directory goes on
    with the same run there.

    A tracker that cannot be reached ends no run: a line says so, the numbers wait, and it is asked again after one
    round, two, four and so on; what still waits at the end is sent at the next start. A round that was sent is not sent
    again where it is played again after a resume.

    Args:
        run_dir: The run directory; its last name is the run's name there.
        names: The trackers, each once.
        settings: Numbers that distinguish runs.
        earlier: Rows of metrics.jsonl, sent where the tracker does not have them.
    """

    def __init__(
        self,
        run_dir: Path,
        names: Collection[str],
        settings: Mapping[str, float],
        earlier: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self._run_dir, self._settings = run_dir, settings
        rows = [(int(row["round"]), _shown(row)) for row in earlier]
        state = _state(run_dir / STATE_FILE)
        self._lines: dict[str, _Line] = {}
        for name in dict.fromkeys(names):
            known = state.get(name, {})
            sent = int(known.get("round", -1))
            self._lines[name] = _Line(KINDS[name], list(rows), None, known.get("run"), sent, sent)
            self._flush(name)

    def send(self, number: int, metrics: Mapping[str, float]) -> None:
        """Send finite ``metrics`` of round ``number``."""
        for name, line in self._lines.items():
            line.waiting.append((number, _shown(metrics)))
            if line.pause > 0:
                line.pause -= 1
            else:
                self._flush(name)

    def close(self) -> None:
        """Say that the run is over; not from another thread, because swanlab handles signals."""
        for name, line in self._lines.items():
            if line.waiting:
                self._flush(name)
            if line.waiting:
                rounds = counted(len({number for number, _ in line.waiting}), "round")
                logger.warning("%s: the numbers of %s were not sent; metrics.jsonl has them", name, rounds)
            if line.tracker is None:
                continue
            try:
                line.tracker.close()
            except Exception as error:  # nothing depends on it any more
                logger.warning("%s: its run could not be closed (%s)", name, type(error).__name__)
        self._lines = {}

    def _flush(self, name: str) -> None:
        line = self._lines[name]
        try:
            if line.tracker is None:
                line.tracker = line.kind.opened(Opening(self._run_dir, line.known, self._settings))
                if line.tracker.id != line.known:
                    line.known, line.sent, line.before = line.tracker.id, -1, -1
                    self._remember()
            while line.waiting:
                number, metrics = line.waiting[0]
                if number > line.before:
                    line.tracker.send(number, metrics)
                    line.sent = max(line.sent, number)
                line.waiting.pop(0)
            if line.failures:
                logger.info("%s: reached again", name)
            line.pause = line.failures = 0
            self._remember()
        except Exception as error:  # whatever the library raises: the training is worth more
            if not line.failures:
                logger.warning(
                    "%s: numbers could not be sent (%s); they wait, and the run goes on", name, type(error).__name__
                )
                logger.debug("%s: %r", name, error)
            line.pause, line.failures = 2**line.failures, min(line.failures + 1, 6)

    def _remember(self) -> None:
        state = {name: {"run": line.known, "round": line.sent} for name, line in self._lines.items()}
        write_atomically(self._run_dir / STATE_FILE, json.dumps({**_state(self._run_dir / STATE_FILE), **state}) + "\n")


def send_what_waits(
    run_dir: Path, names: Collection[str], settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Send rounds of a run that has none left to play to the trackers that lack some; the others are left alone."""
    state = _state(run_dir / STATE_FILE)
    last = max((int(row["round"]) for row in rows), default=-1)
    lacking = [name for name in names if int(state.get(name, {}).get("round", -1)) < last]
    Trackers(run_dir, lacking, numbers_of(settings), rows).close()


def _shown(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers under TensorBoard's names."""
    named = ((tag(name), value) for name, value in metrics.items() if name != "round")
    return {
        name: float(value)
        for name, value in named
        if name is not None and isinstance(value, int | float) and math.isfinite(value)
    }


def _state(path: Path) -> dict[str, dict[str, Any]]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return {name: known for name, known in found.items() if isinstance(known, dict)} if isinstance(found, dict) else {}
