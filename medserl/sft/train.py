"""``medserl sft``: supervised warm start on demonstrations of the game, by verl's trainer on verl's Megatron engine.

The driver makes the demonstrations, starts one process per worker with torch's launcher, and publishes the finished
model. It imports no torch itself unless weights are to be made anew.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config.chat_template import check_chat_template, check_thinking, check_vocabulary
from medserl.config.family import NOTES
from medserl.config.load import load_sft_config, sft_settings
from medserl.config.mistakes import keys_of
from medserl.config.model_at_hand import threads_for
from medserl.config.sft_settings import SftSettings, batch_size, batches_made, of_the_ward
from medserl.errors import ConfigError, DataError, Problems, UserError
from medserl.files import put_in_place, replace_durably, sync, write_atomically
from medserl.game import PromptSet, load_notes, load_prompt_set
from medserl.game.demonstrations import Demonstration, NoteDemonstrations, note_batches
from medserl.planning.job import ends_of
from medserl.planning.shapes import check_divides, shape_of
from medserl.preflight.checks import RUN_DIR
from medserl.preflight.devices import check_device
from medserl.preflight.fit import check_memory
from medserl.preflight.host import check_writable
from medserl.preflight.model_files import check_language, has_tokenizer, look_at_model
from medserl.preflight.prompt_lengths import load_tokenizer
from medserl.run import checkpoint
from medserl.run.launch import prepare_environment
from medserl.run.run_dir import FINISHED_FILE, RunDir
from medserl.run.surroundings import Surroundings, environment_kept
from medserl.run.trackers import Trackers, check_trackers, numbers_of
from medserl.sft.checkpoints import check_described, newest
from medserl.sft.checks import check_layout, check_lengths, of_each_note
from medserl.sft.launcher import Heard, SftFailed, launch
from medserl.sft.nodes import FirstNodeAbsent, Place, place_of
from medserl.ward import model_dir
from medserl.words import counted

logger = logging.getLogger("medserl.sft")
DEMONSTRATIONS = "demonstrations.parquet"
MODEL, MODEL_DIR = "model.path", "model"
START_DIR = "start"
RESOLVED = "sft.yaml"  # what the workers of all nodes read
UNTRAINED_WARD = "untrained:ward"
WARD_NOTES = "the synthetic ward"


class SftRun:
    """One supervised fine-tuning run.

    Args:
        config: A name in ``configs/`` that starts with ``sft``, a path, or a configuration of ``load_sft_config``.
        overrides: Hydra overrides.

    Raises:
        UserError: a configuration, model or data file that cannot work.
    """

    def __init__(self, config: str | DictConfig, overrides: list[str]) -> None:
        self.name = config if isinstance(config, str) else "(python)"
        self.overrides = overrides
        problems = Problems()
        self.config = load_sft_config(config, overrides, problems=problems) if isinstance(config, str) else config
        self.settings: SftSettings = sft_settings(self.config)
        self.run_dir = RunDir(Path(self.settings.run_dir))
        self.place = Place()
        self._check_machine(problems)
        check_layout(self.config, problems)
        prompts = None
        with problems.noted():
            prompts = load_prompt_set(self.settings.prompt_set)
            prompts.check_format(self.settings.injector_format)
        if not self.model_dir.is_dir():  # else there is nothing left to do
            with problems.noted():
                self.check_checkpoints(content=False)
            with environment_kept():  # torch and others set variables when the tokenizer's library imports them
                tokenizer = None if problems.doubts(MODEL) else self._tokenizer(problems)
                if not problems.doubts(NOTES):
                    with problems.noted():
                        self._check_demonstrations(prompts, tokenizer, not problems.doubts(MODEL))
        problems.tell()
        assert prompts is not None
        self.prompts = prompts

    def _check_machine(self, problems: Problems) -> None:
        """Check the run directory, this machine's device and its place among the nodes."""
        if not problems.doubts(RUN_DIR):
            with problems.noted():
                self.run_dir.check(self.config)
                check_writable(self.run_dir.path)
                check_described(self.run_dir.checkpoints)
        check_device(self.config, problems)
        with problems.noted():
            self.place = place_of(self.config.trainer.nnodes)
        with problems.noted():
            check_trackers(self.settings.trackers)

    _context: int | None = None
    """Positions of the start model, where its config.json says."""

    @property
    def model_dir(self) -> Path:
        """Where the finished model is, in Hugging Face's format."""
        return self.run_dir.path / MODEL_DIR

    def run(self) -> Path:
        """Train to the end, or go on where an earlier start was cut off; returns the finished model's directory.

        Raises:
            SftFailed: a training process ended with an error.
        """
        if self.model_dir.is_dir():
            print(f"complete: {self.model_dir}; for another run give a new --run-dir")
            return self.model_dir
        surroundings = Surroundings()
        try:
            threads = threads_for(self.config.model.path, self.config.trainer.n_gpus_per_node)
            variables = prepare_environment(self.config, threads)  # before anything is written: the device may not fit
            if not self.place.first:
                return self._join(variables)
            self.run_dir.open(self.config, self.name, self.overrides, {"prompt_set": self.prompts.record()})
            surroundings.log_to(self.run_dir.path, None)
            self._write_demonstrations()
            start = self._start_model()
            before = self.run_dir.newest()
            if before is None or checkpoint.step_of(before) < self.settings.steps:
                self._train(start, before, variables)
            self._publish(start)
            logger.info("finished model: %s", self.model_dir)
        finally:
            self.run_dir.close()
            surroundings.started()
            surroundings.close()
        return self.model_dir

    def check_checkpoints(self, content: bool) -> None:
        """Raise ConfigError where a start would begin anew in the place of checkpoints of which none is whole."""
        if not self.model_dir.is_dir():
            self.run_dir.check_checkpoints(content)

    def _join(self, variables: dict[str, str]) -> Path:
        """Bring this node's workers to a training that the first node leads."""
        self.run_dir.join()
        print(f"node {self.place.rank} of {self.place.nodes}: waiting for the first", flush=True)  # no log of its own
        try:
            begins = self.place.wait_for_first(self.model_dir.is_dir)
        except FirstNodeAbsent as error:
            raise SftFailed(str(error)) from None
        if begins:
            resolved = self.run_dir.path / RESOLVED
            if not resolved.is_file():
                raise ConfigError(
                    f"run directory {self.run_dir.path}: node {self.place.rank} does not see what the first one wrote "
                    "into it; give a --run-dir on a file system that all nodes share"
                )
            self._launch(resolved, self.run_dir.latest_log_dir() / f"sft-node{self.place.rank}.log", variables)
        return self.model_dir

    # ---------------------------------------------------------------- demonstrations

    def _batches(self, prompts: PromptSet) -> Iterator[list[Demonstration]]:
        settings, mixture = self.settings, self.settings.mixture
        if settings.notes.path is None:
            from medserl.ward.demonstrations import Late, Mixture, demonstration_batches
            from medserl.ward.generator import ward_cases
            from medserl.ward.table import load_table

            table = load_table()
            cases = ward_cases("train", settings.notes.count, settings.notes.seed, table)
            late = None
            if settings.late_mixture is not None:
                first = math.ceil(settings.late_after * batches_made(settings))
                late = Late(Mixture(**of_the_ward(settings.late_mixture)), first)
            own = Mixture(**of_the_ward(mixture))
            form = settings.injector_format
            yield from demonstration_batches(table, cases, prompts, own, settings.seed, late, form)
            return
        maker = self._maker(prompts)
        notes = load_notes(Path(settings.notes.path))
        pairs, turns = mixture.assessor_pairs, mixture.injector_turns
        yield from note_batches(notes, maker, assessor_pairs=pairs, injector_turns=turns, seed=settings.seed)

    def _tokenizer(self, problems: Problems) -> Any:
        """The start model's, the model looked at first; None where ``problems`` took that it cannot be used."""
        if self.config.model.path == UNTRAINED_WARD:
            return load_tokenizer(model_dir(), MODEL)  # the same as the one that is made
        engine, tokenizer = self.config.engine, None
        tp, pp = engine.tensor_model_parallel_size, engine.pipeline_model_parallel_size
        model = look_at_model(self.config.model.path, MODEL, problems)
        if model is None:
            return None
        start = Path(self.config.model.path)
        self._context = model.get("max_position_embeddings")
        with problems.noted():
            check_divides(shape_of(model, f"{MODEL}: {start}"), tp, pp, 1, ends_of(engine))
            check_memory(self.config, model, str(start), keys_of(self.overrides))
        if has_tokenizer(start):
            with problems.noted():
                loaded = load_tokenizer(start, MODEL)
                check_chat_template(loaded, start, MODEL, {"enable_thinking": False})
                tokenizer = loaded  # one whose template does not render measures no demonstration
                check_thinking(tokenizer, start, MODEL, thinking=False)
                check_vocabulary(tokenizer, start, MODEL, model)
        return tokenizer

    def _check_demonstrations(self, prompts: PromptSet | None, tokenizer: Any, known_model: bool) -> None:
        """Notes that offer none, or too long ones, are refused before anything is written. Of the ward, whose notes
        are all of a kind, the first batches are made; of a file every note is looked at. Without prompts or a
        tokenizer, the file is read all the same."""
        path, mixture = self.settings.notes.path, self.settings.mixture
        notes = [] if path is None else load_notes(Path(path))
        if prompts is None:
            return
        try:
            first = next(self._batches(prompts), [])
        except UserError:
            raise
        except ValueError as error:
            raise self._refused(error) from None
        found: Iterator[tuple[str, Demonstration]] = ((f"demonstration {i}", demo) for i, demo in enumerate(first))
        if path is not None:
            toy = model_dir() if self.config.model.path == UNTRAINED_WARD else self.config.model.path
            if known_model:
                check_language(path, [note.text for note in notes], toy, MODEL)
            found = of_each_note(notes, self._maker(prompts), mixture.assessor_pairs > 0, mixture.injector_turns > 0)
        if tokenizer is not None:
            limit, model = int(self.config.data.max_length), f"{MODEL}: {self.config.model.path}"
            check_lengths(found, tokenizer, limit, path or WARD_NOTES, self._context, model)

    def _refused(self, error: ValueError) -> DataError:
        return DataError(f"{self.settings.notes.path or WARD_NOTES}: {error}, or set that part of medserl.mixture to 0")

    def _maker(self, prompts: PromptSet) -> NoteDemonstrations:
        settings, mixture = self.settings, self.settings.mixture
        shares = mixture.label_noise, mixture.thinking, mixture.proved_errors, mixture.habit
        return NoteDemonstrations(prompts, settings.injector_format, *shares)

    def _write_demonstrations(self) -> None:
        path = self.run_dir.path / DEMONSTRATIONS
        if path.exists():
            return
        from medserl.sft.data import LossWeights, write_demonstrations

        settings = self.settings
        batches = islice(self._batches(self.prompts), batches_made(settings))
        temporary = path.with_name(f".{path.name}")
        temporary.unlink(missing_ok=True)
        try:
            count = write_demonstrations(
                (demo for batch in batches for demo in batch),
                temporary,
                LossWeights(
                    *(settings.answer_weight, settings.verdict_weight, settings.change_weight, settings.text_weight),
                    settings.place_weight,
                ),
            )
        except ValueError as error:
            raise self._refused(error) from None
        sync(temporary)
        replace_durably(temporary, path)
        logger.info("%d demonstrations, %d per step", count, batch_size(settings))

    def _start_model(self) -> Path:
        """The model to start from; ``untrained:ward`` is made here, from the seed."""
        if self.config.model.path != UNTRAINED_WARD:
            return Path(self.config.model.path)
        start = self.run_dir.path / START_DIR
        if not start.is_dir():
            from medserl.ward.untrained import write_untrained

            temporary = start.with_name(f".{start.name}")
            shutil.rmtree(temporary, ignore_errors=True)
            write_untrained(temporary, self.settings.seed)
            put_in_place(temporary, start)
        return start

    # ---------------------------------------------------------------- training

    def _train(self, start: Path, before: Path | None, variables: dict[str, str]) -> None:
        """Have verl's trainer go on from the checkpoint ``before``, or begin."""
        config = self.config.copy()
        with open_dict(config):
            config.model.path = str(start)
            config.trainer.resume_mode = "disable" if before is None else "resume_path"
            config.trainer.resume_from_path = None if before is None else str(before)
            config.data.train_files = str(self.run_dir.path / DEMONSTRATIONS)
            # What reads this file are verl's processes, which do not know our section.
            del config["medserl"]
        resolved = self.run_dir.path / RESOLVED
        write_atomically(resolved, OmegaConf.to_yaml(config, resolve=True))
        done = 0 if before is None else checkpoint.step_of(before)
        on = counted(config.trainer.nnodes * config.trainer.n_gpus_per_node, "worker")
        logger.info("training for %d steps on %s%s", self.settings.steps, on, f", from step {done} on" if done else "")
        trackers = Trackers(self.run_dir.path, self.settings.trackers, numbers_of(vars(self.settings)))
        try:
            self._launch(resolved, self.run_dir.new_log_dir() / "sft.log", variables, trackers.send)
        finally:
            trackers.close()

    def _launch(self, resolved: Path, log: Path, variables: dict[str, str], heard: Heard | None = None) -> None:
        variables = variables | {"TENSORBOARD_DIR": str(self.run_dir.path / "tensorboard")}
        launch(self.place, self.config.trainer.n_gpus_per_node, resolved, log, variables, self.settings.steps, heard)

    def _publish(self, start: Path) -> None:
        """Copy the last checkpoint's weights, with the tokenizer and configuration of the start, to ``model/``.

        Raises:
            SftFailed: that checkpoint is of fewer steps than were asked for.
        """
        from medserl.training.export import export_checkpoint

        last = newest(self.run_dir.checkpoints)
        step = 0 if last is None else checkpoint.step_of(last)
        if last is None or step < self.settings.steps:
            raise SftFailed(
                f"the training ended after {step} of {self.settings.steps} steps (medserl.steps) of which a whole "
                "checkpoint is there, so no model is published; the same command continues"
            )
        record: dict[str, Any] = {"command": "medserl sft", "config": self.name, "overrides": self.overrides}
        record |= {"step": step, "injector_format": self.settings.injector_format}
        export_checkpoint(last, self.model_dir, start)
        write_atomically(self.run_dir.path / FINISHED_FILE, json.dumps(record) + "\n")
