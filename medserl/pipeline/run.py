"""Runs the stages of a pipeline, each in a folder of its own; a stage whose last file is there is not run again."""

from __future__ import annotations

import ctypes
import json
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from medserl.errors import ConfigError
from medserl.files import PRIVATE_FOLDER, put_in_place, read_object, write_atomically
from medserl.pipeline.directory import check_directory, empty, removed_on_failure
from medserl.pipeline.page import write_page
from medserl.pipeline.plan import (
    AGAIN,
    PAGE,
    SETTINGS,
    SPLITS,
    Folders,
    Request,
    evaluate_arguments,
    sft_overrides,
    train_overrides,
)
from medserl.report.terminal import Table
from medserl.run.stop_signals import handled, passed_on

logger = logging.getLogger("medserl.pipeline")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
BUILTIN_MODEL, UNTRAINED_WARD = "builtin:ward", "untrained:ward"


class StageFailed(RuntimeError):
    """A stage ended with another code than 0, which is the only argument: its command's, or 128 + N for a signal N."""


class Pipeline:
    """A pipeline in its directory.

    Args:
        request: What to do.

    Raises:
        ConfigError: a configuration that does not exist or fit, or a directory of another request.
    """

    def __init__(self, request: Request) -> None:
        from medserl.config import load
        from medserl.config.load import load_config, load_sft_config

        self.request = request
        self.folders = Folders(request.out.absolute())
        check_directory(self.folders, request)
        # Keys that a configuration leaves to the user may be missing still: they are what the stages set.
        first = train_overrides(request, self.folders.data, self.folders.train_run, request.model, True)
        config = load_config(request.config, first)
        self.config_model = str(config.actor_rollout_ref.model.path)
        self.validates = config.trainer.test_freq > 0
        self.prompt_set = str(config.medserl.prompt_set)
        self.limit = int(config.data.max_prompt_length)
        goes_with = {load.DEFAULT_CONFIG: load.DEFAULT_SFT_CONFIG, load.REAL_CONFIG: load.REAL_SFT_CONFIG}
        self.sft_config = request.sft_config or goes_with.get(request.config, load.DEFAULT_SFT_CONFIG)
        self.sft_model: str | None = None
        if not request.skip_warm_start:
            if request.sft_config is None and request.config not in goes_with:
                raise ConfigError("--sft-config: name the warm start's configuration, or give --skip-warm-start")
            self.sft_model = request.model or (None if request.ward else self.config_model)
            load_sft_config(self.sft_config, self._sft_overrides(self.folders.data))
        if request.max_prompt_tokens is not None and request.max_prompt_tokens > self.limit:
            raise ConfigError(
                f"--max-prompt-tokens {request.max_prompt_tokens}: more than the configuration's "
                f"data.max_prompt_length {self.limit}; raise that too (train:data.max_prompt_length=…)"
            )

    # ---------------------------------------------------------------- what is there

    def is_done(self, stage: str) -> bool:
        """Whether the stage's last file is there."""
        return self.folders.done(stage).is_file()

    @property
    def start_model(self) -> str:
        """What self-play starts from, and the result is compared with."""
        return str(self.folders.warm_model) if "sft" in self.request.stages else self.request.model or self.config_model

    def _sft_overrides(self, data: Path) -> list[str]:
        return sft_overrides(self.request, data, self.folders.sft_run, self.sft_model)

    def _train_overrides(self, data: Path, model: str) -> list[str]:
        return train_overrides(self.request, data, self.folders.train_run, model, self.validates)

    # ---------------------------------------------------------------- checks

    def plan(self) -> Table:
        """The stages, a row each."""
        request, folders = self.request, self.folders
        source = f"{request.count} synthetic notes a split" if request.ward else ", ".join(map(str, request.sources))
        what = {
            "prepare": f"{source or ', '.join(request.given_splits)} -> {folders.data}",
            "sft": f"{self.sft_config} from {self.sft_model or 'its own model'} -> {folders.warm_model}",
            "train": f"{request.config} from {self.start_model} -> {folders.trained_model}",
            "evaluate": f"both on the test split -> {folders.out / 'evaluate'}",
            "report": f"trained against start -> {folders.out / PAGE}",
        }
        marks = {stage: "done" if self.is_done(stage) else "to do" for stage in request.stages}
        return Table((), [[stage, marks[stage], what[stage]] for stage in request.stages])

    def dry_run(self) -> None:
        """Check the inputs of every stage; what the first one would prepare goes to a temporary folder.

        Raises:
            UserError: the first problem.
        """
        if self.is_done("prepare"):
            self.check_stages(self.folders.data)
            return
        with tempfile.TemporaryDirectory(prefix="medserl-") as folder:
            self._prepare_into(Path(folder) / "prepare")
            self.check_stages(Path(folder) / "prepare" / "data")

    def check_stages(self, data: Path) -> None:
        """What `sft`, `train` and `evaluate` would refuse, before the first of them starts.

        Raises:
            UserError: the first problem.
        """
        from medserl.evaluation.data import load_examples
        from medserl.sft.train import SftRun
        from medserl.training.api import MedSeRLTrainer

        missing = [split for split in SPLITS if not (data / f"{split}.parquet").is_file()]
        if missing:
            raise ConfigError(f"the sources have no split {missing[0]!r}: give its file, --split or other --ratios")
        if "sft" in self.request.stages and not self.is_done("sft"):
            SftRun(self.sft_config, self._sft_overrides(data))
        if not self.is_done("train"):
            model = self.start_model
            if not Path(model).is_dir() and "sft" in self.request.stages:  # its architecture is known before it is
                model = self.sft_model or BUILTIN_MODEL
            MedSeRLTrainer(self.request.config, self._train_overrides(data, model), verbose=False)
        load_examples([str(data / "test.parquet")], None, 0)

    # ---------------------------------------------------------------- stages

    def run(self) -> None:
        """Run every stage that is not done.

        Raises:
            UserError: an input that cannot work.
            StageFailed: a command failed, or SIGTERM or SIGUSR1 came; the same pipeline goes on with its stage.
        """
        with handled(_stop):
            self._run()

    def _run(self) -> None:
        out = self.folders.out
        checked = False
        if not self.is_done("prepare"):
            with removed_on_failure(out):
                out.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
                write_atomically(out / SETTINGS, json.dumps(self.request.record(), indent=1) + "\n")
                self._stage("prepare", self._prepare)
                self.check_stages(self.folders.data)
                checked = True
        else:
            logger.info("prepare: done before")
        actions: dict[str, Callable[[], dict[str, Any]]] = {
            "sft": self._sft,
            "train": self._train,
            "evaluate": self._evaluate,
            "report": self._report,
        }
        for stage in self.request.stages[1:]:
            if self.is_done(stage):
                logger.info("%s: done before", stage)
                continue
            if not checked:
                self.check_stages(self.folders.data)
                checked = True
            self._stage(stage, actions[stage])

    def _stage(self, stage: str, action: Callable[[], dict[str, Any]]) -> None:
        logger.info("%s", stage)
        began = time.monotonic()
        (self.folders.out / stage).mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
        facts = action()
        seconds = round(time.monotonic() - began, 1)
        record = {"stage": stage, "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "seconds": seconds, **facts}
        write_atomically(self.folders.done(stage), json.dumps(record, indent=1) + "\n")
        write_page(self.folders, self.request)
        logger.info("%s: finished after %.0f s", stage, seconds)

    def _prepare(self) -> dict[str, Any]:
        folder = self.folders.out / "prepare"
        empty(folder)  # of what was half written
        return self._prepare_into(folder)

    def _prepare_into(self, folder: Path) -> dict[str, Any]:
        from medserl.data.long_notes import drop_long_notes
        from medserl.data.prepare import PrepareOptions, prepare
        from medserl.data.splits import parse_named_files, parse_ratios
        from medserl.data.ward import write_ward
        from medserl.preflight.prompt_lengths import prompt_counter

        request = self.request
        folder.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
        sources = [*request.sources]
        if request.ward:
            sources = write_ward(folder / "raw", request.count, request.seed)
        beside = folder / ".data"
        manifest = prepare(
            PrepareOptions(
                sources=sources,
                out=beside,
                given_splits=parse_named_files(request.given_splits),
                ratios=parse_ratios(request.ratios),
                prompt_set=self.prompt_set,
                leaks=request.leaks,
            )
        )
        facts: dict[str, Any] = {"leaks": manifest["leaks"]["counts"], "too_long": None}
        if request.max_prompt_tokens is not None:
            counter = prompt_counter(request.config, None, self._train_overrides(beside, self.config_model), beside)
            facts["too_long"] = drop_long_notes(beside, counter, request.max_prompt_tokens)
        manifest = read_object(beside / "manifest.json", AGAIN, {"splits": dict, "dropped": dict})
        put_in_place(beside, folder / "data")
        return {**facts, "splits": manifest["splits"], "dropped": manifest["dropped"]["counts"]}

    def _sft(self) -> dict[str, Any]:
        _medserl("sft", "--config", self.sft_config, *self._sft_overrides(self.folders.data))
        return {"model": "run/model"}

    def _train(self) -> dict[str, Any]:
        from medserl.report.run_report import best_sentence, label_sentence, write_report
        from medserl.training.export import export_checkpoint, find_checkpoint

        run, model = self.folders.train_run, self.folders.trained_model
        _medserl("train", "--config", self.request.config, *self._train_overrides(self.folders.data, self.start_model))
        report = write_report(run)
        chosen = find_checkpoint(run)
        if not model.is_dir():
            export_checkpoint(chosen, model)
        verdicts = [verdict["sentence"] for verdict in report["flattened"].values()]
        return {
            "model": "model",
            "checkpoint": chosen.name,
            "rounds": report["rounds"],
            "sentences": [*filter(None, [label_sentence(report)]), *verdicts, best_sentence(report)],
        }

    def _evaluate(self) -> dict[str, Any]:
        for which, model in (("start", self.start_model), ("trained", str(self.folders.trained_model))):
            out = self.folders.results(which)
            if not out.is_dir():
                _medserl(*evaluate_arguments(self.request, self.folders.data, model, out))
        return {}

    def _report(self) -> dict[str, Any]:
        from medserl.evaluation.comparison import compare, comparison_markdown
        from medserl.evaluation.results import read_results

        first, second = (read_results(self.folders.results(which)) for which in ("start", "trained"))
        found = compare(first, second, shared=False, seed=0)
        folder = self.folders.out / "report"
        write_atomically(folder / "comparison.json", json.dumps(found, indent=1) + "\n")
        write_atomically(folder / "comparison.md", comparison_markdown(found))
        return {"sentence": found["sentence"], "significant": found["significant"]}


# ---------------------------------------------------------------- commands


def _medserl(*arguments: str) -> None:
    """Run a command of ``medserl`` in a process of its own, which shows what it does.

    Raises StageFailed. SIGTERM and SIGUSR1 are passed on: `train` then ends after its round, with a checkpoint. It gets
    SIGTERM too where this process is killed.
    """
    libc = ctypes.CDLL(None)  # loaded here: little may be done between fork and exec

    def end_with_this_process() -> None:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))

    command = [sys.executable, "-m", "medserl", *arguments]
    with passed_on(command, preexec_fn=end_with_this_process) as process:
        try:
            code = process.wait()
        except BaseException:  # Ctrl-C reaches the command too: let it end by itself
            try:
                process.wait(timeout=60)
            finally:
                process.kill()
            raise
    if code != 0:
        raise StageFailed(code if code > 0 else 128 - code)


def _stop(number: int, _: FrameType | None) -> None:
    """Between two commands, and while one is being started; it is told when this process ends."""
    raise StageFailed(128 + number)
