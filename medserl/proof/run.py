"""Runs the course, each command in a process of its own, and keeps what each took; a stage that is done is left."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medserl.errors import EXIT_USAGE, ConfigError
from medserl.evaluation.readiness import Readiness
from medserl.files import PRIVATE_FOLDER, read_json, write_atomically
from medserl.proof.course import Course
from medserl.proof.memory import Peak
from medserl.proof.notes import cut_notes
from medserl.proof.table import TABLE, page
from medserl.run.stop_signals import passed_on

logger = logging.getLogger("medserl.proof")
STAGES = "stages.json"


class StageFailed(RuntimeError):
    """A command of the course ended with an error: its name and exit code."""


class Proof:
    """A course in its folder.

    Args:
        course: What to do; the same course goes on there.

    Raises:
        ConfigError: the folder is another course's.
    """

    def __init__(self, course: Course) -> None:
        self.course = course
        self._file = course.out / STAGES
        self.stages: list[dict[str, Any]] = []
        """What was run: ``name``, ``command``, ``seconds`` and ``peak`` (bytes); more by stage."""
        about = {"model": str(course.model), "train": str(course.train), "held_out": str(course.held_out)}
        if self._file.is_file():
            kept = read_json(self._file)
            if kept["about"] != about:
                raise ConfigError(f"--run-dir {course.out}: is of another model or other notes; give a new one")
            self.stages = kept["stages"]
        elif course.out.is_dir() and any(course.out.iterdir()):
            raise ConfigError(f"--run-dir {course.out}: is not empty and holds no {STAGES}; give a new one")
        self._about = about

    def run(self) -> None:
        """Run every stage that is not done, and write the table after each.

        Raises:
            StageFailed: a command failed; the same course goes on with it.
        """
        course = self.course
        course.out.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
        for source, cut in ((course.train, course.notes), (course.held_out, course.probed_notes)):
            if not cut.is_file():
                cut_notes(source, cut, course.sentences, course.longest)
        self._medserl("zero-shot", course.zero_shot())
        start, found = course.model, None
        for number in range(1, course.warm_rounds + 1):
            self._medserl(f"warm start {number}", course.warm_up(number))
            start = course.warm_model(number)
            found = self._probe(f"ready {number}", start, f"ready-{number}")
            if course.ready(found):
                break
        self._medserl("self-play", course.play(start))
        self._medserl("export", course.export())
        self._medserl("trained", course.trained())
        self._probe("generate", course.trained_model, "generated", attempts=3)

    def readiness(self) -> Readiness | None:
        """Of the last warm start; None where there was none yet."""
        found = [stage["readiness"] for stage in self.stages if stage["name"].startswith("ready")]
        return Readiness(**found[-1]) if found else None

    # ---------------------------------------------------------------- stages

    def _medserl(self, name: str, arguments: Sequence[str]) -> None:
        self._stage(name, ["-m", "medserl", *arguments], "medserl " + " ".join(arguments))

    def _probe(self, name: str, model: Path, file: str, attempts: int = 1) -> Readiness:
        arguments = self.course.probe(model, file, attempts)
        shown = "python -m medserl.evaluation.readiness " + " ".join(arguments)
        stage = self._stage(name, ["-m", "medserl.evaluation.readiness", *arguments], shown)
        if "readiness" not in stage:
            stage["readiness"] = read_json(self.course.out / f"{file}.json")
            self._keep()
        return Readiness(**stage["readiness"])

    def _stage(self, name: str, arguments: Sequence[str], shown: str) -> dict[str, Any]:
        """Run a command unless it is done, and keep what it took."""
        for stage in self.stages:
            if stage["name"] == name:
                logger.info("%s: done before", name)
                return stage
        logger.info("%s: %s", name, shown)
        began = time.monotonic()
        with passed_on([sys.executable, "-P", *arguments]) as process:
            peak = Peak(process.pid)
            try:
                code = process.wait()
            except BaseException:  # Ctrl-C reaches the command too: let it end by itself
                process.terminate()
                process.wait()
                raise
            finally:
                most = peak.stop()
        if code == EXIT_USAGE:
            raise StageFailed(f"{name} was refused; see above")
        if code != 0:
            raise StageFailed(f"{name} ended with {f'exit code {code}' if code > 0 else f'signal {-code}'}")
        seconds = time.monotonic() - began
        stage = {"name": name, "command": shown, "seconds": round(seconds, 1), "peak": most}
        self.stages.append(stage)
        self._keep()
        logger.info("%s: done after %.0f s, %.1f GiB at most", name, seconds, most / 2**30)
        return stage

    def _keep(self) -> None:
        write_atomically(self._file, json.dumps({"about": self._about, "stages": self.stages}, indent=1) + "\n")
        write_atomically(self.course.out / TABLE, page(self.course, self.stages))
