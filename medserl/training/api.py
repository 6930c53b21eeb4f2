"""``MedSeRLTrainer``: the whole of MedSeRL from Python.

Over 350 lines, because a run's life, from its checks to how it ended, is to be read in one place.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from medserl.config.load import DEFAULT_CONFIG, game_settings, load_config
from medserl.config.mistakes import keys_of
from medserl.config.model_at_hand import threads_for
from medserl.config.plugins import has_validation_notes
from medserl.data.rounds import Round, planned_rounds
from medserl.errors import ConfigError, Problems
from medserl.game import load_prompt_set
from medserl.game.referee.instruction import unchecked_labels
from medserl.gamelog.log import GameLog
from medserl.gamelog.parts import VALIDATION
from medserl.preflight.checks import check_all
from medserl.report.alarms import Alarms
from medserl.report.game_sample import sample_text
from medserl.report.round_metrics import speed_metrics, with_game_metrics
from medserl.run import checkpoint
from medserl.run.best import BestSoFar
from medserl.run.causes import how_to_go_on
from medserl.run.console import ENGINES, RAY, VERL, phase
from medserl.run.curves import hyperparameters
from medserl.run.deadline import VARIABLE as DEADLINE
from medserl.run.deadline import Deadline, read_deadline
from medserl.run.launch import Cluster, prepare_environment
from medserl.run.layout import choose_checkpoint
from medserl.run.run_dir import RunDir
from medserl.run.run_log import METRICS_FILE, RunLog, read_metrics
from medserl.run.stop_signals import StopSignals
from medserl.run.surroundings import Surroundings, environment_kept
from medserl.run.trackers import send_what_waits
from medserl.run.watch import Watch
from medserl.training.game_rows import open_log

if TYPE_CHECKING:
    from medserl.training.agent_loop import SelfPlayAgentLoopManager
    from medserl.training.trainer import SelfPlayTrainer

logger = logging.getLogger("medserl.run")


class MedSeRLTrainer:
    """Self-play training of one model in two roles.

    Args:
        config: A name in ``configs/``, a path, or a configuration that ``load_config`` made.
        overrides: Hydra overrides, for a name or a path.
        verbose: Show what verl, vLLM and Ray print; otherwise it is kept in ``RUN_DIR/logs``.
        stop: Signals that the caller already takes, so that one that came before ``fit`` ends it too.

    Example:
        >>> with MedSeRLTrainer("embedded", ["medserl.max_rounds=2"]) as trainer:  # doctest: +SKIP
        ...     metrics = trainer.training_step(trainer.sample_batch())
        ...     metrics["vcf_acceptance_rate"], metrics["mean_reward"]

    A part of the run that dies (a Megatron worker, vLLM, Ray) ends the call under way with an exception; where none can
    be raised, because verl waits for ever, the process ends with exit code 1 after a minute (medserl.run.watch).

    Raises:
        UserError: a configuration, data file, model, run directory or MEDSERL_DEADLINE that cannot work; nothing was
        started then.
    """

    def __init__(
        self,
        config: str | DictConfig = DEFAULT_CONFIG,
        overrides: Sequence[str] = (),
        verbose: bool = True,
        stop: StopSignals | None = None,
    ) -> None:
        self.verbose = verbose
        self.config_name = config if isinstance(config, str) else "(python)"
        self.overrides = list(overrides)
        problems, deadline = Problems(), None
        self.config = load_config(config, overrides, problems=problems) if isinstance(config, str) else config
        self.settings = game_settings(self.config)
        self.run_dir = RunDir(Path(self.settings.run_dir))
        with problems.noted():
            deadline = read_deadline(os.environ, time.time())
        with environment_kept():  # torch and others set variables when the tokenizer's library imports them
            self.seen = check_all(self.config, self.run_dir, keys_of(self.overrides), problems)
        self.settings = game_settings(self.config)  # without gold errors the check sets the labelled share to 0
        self._deadline = Deadline(deadline, self.settings.deadline_margin, time.time)
        self._out_of_time: str | None = None
        self._first_round = 0
        self._watch: Watch | None = None
        self._trainer: SelfPlayTrainer | None = None
        self._manager: SelfPlayAgentLoopManager | None = None
        self._cluster: Cluster | None = None
        self._log: RunLog | None = None
        self._games: GameLog | None = None
        self._stop = stop or StopSignals()
        self._saved_round = 0
        self._finished: int | None = None  # rounds, those of earlier starts included; None: nothing is loaded yet
        self._best = BestSoFar(self.settings.validation.best_metric)
        self._alarms = Alarms(self.settings.alarms)
        self._surroundings: Surroundings | None = None

    def __enter__(self) -> MedSeRLTrainer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---------------------------------------------------------------- life cycle

    def start(self) -> None:
        """Take the run directory, start Ray, Megatron and vLLM, load the latest checkpoint. Minutes on a
        CPU."""
        if self._trainer is not None:
            return
        began = time.perf_counter()
        prompts = load_prompt_set(self.settings.prompt_set).record()
        self._surroundings = Surroundings()
        try:
            threads = threads_for(self.config.actor_rollout_ref.model.path, self.config.trainer.n_gpus_per_node)
            variables = prepare_environment(self.config, threads)  # before anything is written: the device may not fit
            self.run_dir.open(self.config, self.config_name, self.overrides, {"prompt_set": prompts})
            log_dir = self.run_dir.new_log_dir()
            self._surroundings.log_to(self.run_dir.path, None if self.verbose else log_dir / "driver.log")
            logger.info("run directory %s", self.run_dir.path)
            logger.info("starting Ray, Megatron and vLLM on %s", self.config.trainer.device)
            phase(RAY)
            self._cluster = Cluster(self.config, variables, log_dir, self.verbose, self._surroundings.console)
            self._watch = Watch(self._cluster.own_processes(), self._cluster.abandon)
            logger.info("Ray is up; importing verl and starting the Megatron workers (a minute or two)")
            self._stop.catch()  # again: Ray installs handlers of its own when it starts
            self._start_trainer(began)
            self._surroundings.started()
        except BaseException as error:
            if isinstance(error, Exception):
                self.cause()
            self._surroundings.failed()
            self.close()
            raise

    def _start_trainer(self, began: float) -> None:
        phase(VERL)
        import transfer_queue as tq
        from verl.utils.import_utils import load_class_from_fqn

        from medserl.training.trainer import SelfPlayTrainer

        config = self.config.copy()  # changed below and by verl; another start begins with the caller's
        if config.trainer.device == "cpu":
            from medserl.cpu.plugin import assert_active

            assert_active()
        choose_checkpoint(config, self.run_dir.newest())
        config.transfer_queue.enable = True
        tq.init(config.transfer_queue)
        trainer = SelfPlayTrainer(config)
        phase(ENGINES)
        trainer.init()
        if config.reward.reward_model.enable:
            from medserl.serving.judge import point_at

            point_at(config, trainer.reward_loop_manager.reward_router_address)
        manager = load_class_from_fqn(config.actor_rollout_ref.rollout.agent.agent_loop_manager_class)
        self._manager = manager.create(
            config=config,
            llm_client=trainer.get_llm_client(),
            teacher_client=None,
            reward_loop_worker_handles=trainer.get_reward_handles(),
        )
        trainer.agent_loop_manager = self._manager
        self._trainer = trainer
        self._saved_round = self._first_round = self._finished = trainer.global_steps
        described = hyperparameters(self.config)
        best = self.settings.validation.best_metric
        last, names = trainer.total_training_steps, self.settings.trackers
        self._log = RunLog(self.run_dir.path, trainer.global_steps, last, described, best, names)
        self._games = open_log(self.settings, self.run_dir.path, trainer.global_steps)
        rows = self._log.rows
        self._best.take_up(rows, self.run_dir.checkpoints, trainer.global_steps)
        self._alarms = Alarms(self.settings.alarms, rows)
        if unchecked := unchecked_labels(self.settings.referee.name, self.settings.second_referee.name):
            self._log.remark("labels", trainer.global_steps, unchecked)
        self._deadline.remember(rows, trainer.save_seconds)
        set_up = time.perf_counter() - began
        self._deadline.set_up_took(set_up)
        assert self._watch is not None
        self._watch.ready()
        logger.info(
            "ready after %.0f s; %s",
            set_up,
            f"resuming after round {trainer.global_steps}" if trainer.global_steps else "starting with round 1",
        )

    def close(self) -> None:
        """End everything that ``start`` started; standard output and error, the environment, the umask and the log
        are the caller's again."""
        phase("")
        if self._watch is not None:
            self._watch.closing()
        parts = (self._log, self._manager, _TransferQueue() if self._trainer is not None else None, self._cluster)
        self._trainer = self._manager = self._cluster = self._log = None
        for part in (*parts, self.run_dir, self._watch, self._surroundings):
            try:
                if part is not None:
                    part.close()
            except Exception as error:  # a part that has died; the others are closed all the same
                logger.debug("closing %s: %r", type(part).__name__, error)

    @property
    def started(self) -> bool:
        """Whether output goes to the run directory, so that people look at the log; not after ``close``."""
        return self._surroundings is not None and self._surroundings.logging

    def cause(self) -> str | None:
        """What has died, in a sentence, when a part of the run did; asked after an exception, before ``close``."""
        return None if self._watch is None else self._watch.cause()

    # ---------------------------------------------------------------- training

    @property
    def round(self) -> int:
        """Rounds trained so far, those of earlier starts included."""
        return self.trainer.global_steps

    @property
    def total_rounds(self) -> int:
        """Rounds of the whole run."""
        return int(self.trainer.total_training_steps)

    @property
    def planned_rounds(self) -> int:
        """Rounds of the whole run, known before anything is started."""
        return planned_rounds(self.config, self.settings)

    @property
    def trainer(self) -> SelfPlayTrainer:
        """verl's trainer, started."""
        if self._trainer is None:
            self.start()
        assert self._trainer is not None
        return self._trainer

    def sample_batch(self) -> Round:
        """The next round's fresh notes."""
        round_: Round = self.trainer.train_dataloader.next_round()
        return round_

    def training_step(self, batch: Round) -> dict[str, float]:
        """Play and train one round; record and return its metrics.

        Args:
            batch: The round's notes, from ``sample_batch``.

        Returns:
            Metrics by name, ``vcf_acceptance_rate`` and ``mean_reward`` among them; nan where undefined.
        """
        trainer = self.trainer
        began = time.perf_counter()
        metrics = trainer.training_step(batch)
        games = list(trainer.round.games.values())
        metrics = with_game_metrics(metrics, games, self.settings.max_attempts)
        metrics |= speed_metrics(metrics, games)
        self._deadline.measured("round", time.perf_counter() - began)
        if self._validates_after(trainer.global_steps):
            metrics |= trainer.validate()
            self._deadline.measured("validation", metrics["timing_s/validate"])
        metrics |= self._alarms.see(trainer.global_steps, metrics)
        assert self._log is not None
        self._log.round(trainer.global_steps, batch.batch.epoch, metrics)
        for alarm in self._alarms.new:
            self._log.remark("alarms", trainer.global_steps, f"alarm {alarm.name}: {alarm.sentence}")
        self._finished = trainer.global_steps
        if self._games is not None:
            played = trainer.game_rows()
            self._games.write(trainer.global_steps, played + trainer.answer_rows())
            if not self.settings.game_log.redact:
                self._log.games(trainer.global_steps, sample_text(played))
        improved = self._best.see(metrics, trainer.global_steps)
        save_freq = self.config.trainer.save_freq
        if improved or (save_freq > 0 and trainer.global_steps % save_freq == 0):
            self.save()
        return metrics

    def _validates_after(self, number: int) -> bool:
        test_freq = self.config.trainer.test_freq
        return (
            test_freq > 0
            and has_validation_notes(self.settings)
            and (number % test_freq == 0 or number == self.total_rounds)
        )

    def validate(self) -> dict[str, float]:
        """Judge the held-out notes with the present weights and record it, without training.

        Returns:
            ``val/greedy/*`` and ``val/sampled/*``: balanced accuracy, MCC, recall of each class and more.
        """
        metrics = self.trainer.validate()
        assert self._log is not None
        self._log.validation(self.trainer.global_steps, metrics)
        if self._games is not None:
            self._games.write(self.trainer.global_steps, self.trainer.answer_rows(), VALIDATION)
        return metrics

    @property
    def _out_of_patience(self) -> bool:
        patience = self.settings.validation.patience
        return patience is not None and self._best.without_better >= patience

    @property
    def alarmed(self) -> bool:
        """Whether an alarm ends the run (``medserl.alarms.stop``)."""
        return self._alarms.end_run

    def save(self) -> Path:
        """Write a checkpoint of the current round."""
        began = time.perf_counter()
        phase("saving a checkpoint")
        if self._log is not None:
            self._log.sync()
        path = self.trainer.save()
        self._saved_round = self.trainer.global_steps
        self._deadline.measured("save", time.perf_counter() - began)
        self._best.mark(self.run_dir.checkpoints, self._saved_round)
        logger.info("checkpoint %s (%.1f s)", path, time.perf_counter() - began)
        phase("")
        return path

    def fit(self) -> dict[str, float]:
        """Train to the end. SIGTERM or SIGUSR1 end it after the round that is under way, ``MEDSERL_DEADLINE`` before
        one that may not fit any more; both with a checkpoint. A signal that came before the first round leaves it out.

        Returns:
            The last round's metrics; empty when no round was played.

        Raises:
            ConfigError: for the second time in a row there was no time for a single round.
        """
        metrics: dict[str, float] = {}
        done = checkpoint.latest_step(self.run_dir.checkpoints, content=False)
        if done >= self.planned_rounds and checkpoint.latest_step(self.run_dir.checkpoints) == done:
            print(f"complete: {done} rounds; for more, raise --max-rounds or --max-epochs, or give a new --run-dir")
            self._stop.received = None  # it ends nothing
            recorded = self.run_dir.path / METRICS_FILE
            if self.settings.trackers and recorded.exists():
                rows = read_metrics(recorded)
                send_what_waits(self.run_dir.path, self.settings.trackers, hyperparameters(self.config), rows)
            return metrics
        if self._stop.received is not None:
            print(self._stop.too_early, flush=True)
            return metrics
        with self._stop.handled():
            self.start()
            judged_first = self.config.trainer.val_before_train and has_validation_notes(self.settings)
            if self.round == 0 and judged_first and self._goes_on():
                self._deadline.measured("validation", self.validate()["timing_s/validate"])
            while self._goes_on():
                metrics = self.training_step(self.sample_batch())
            if self.round > self._saved_round:
                self.save()
        self._say_how_it_ended()
        return metrics

    def _goes_on(self) -> bool:
        if self.round >= self.total_rounds or self._stop.received is not None or self._out_of_patience or self.alarmed:
            return False
        self._out_of_time = self._deadline.why_stop(self._validates_after(self.round + 1))
        return self._out_of_time is None

    def how_to_go_on(self) -> str:
        """What is lost and where the same command goes on, in a phrase; for a run that ended in its midst."""
        return how_to_go_on(self.run_dir.checkpoints, self._finished, self._saved_round)

    def interrupted(self) -> None:
        """Say at once what Ctrl-C means for the run, and write it down; ``close`` ends the rest."""
        if self.started:
            logger.info("interrupted; %s", self.how_to_go_on())
            rounds = [self._first_round, self._finished or self._first_round]
            self.run_dir.note_end({"rounds": rounds, "stopped_by": "Ctrl-C"})

    def _say_how_it_ended(self) -> None:
        again = "the same command resumes"
        how: dict[str, Any] = {"rounds": [self._first_round, self.round], "stopped_by": None}
        if self.stopped_by is not None:
            how["stopped_by"] = f"signal {self.stopped_by}"
            if self.progress:
                logger.info("stopped by signal %d after round %d; %s", self.stopped_by, self.round, again)
            else:
                logger.info("told to stop (signal %d) before the training began; %s", self.stopped_by, again)
        elif self.out_of_time is not None:
            how["stopped_by"] = DEADLINE
            logger.info("stopped before the deadline after round %d: %s; %s", self.round, self.out_of_time, again)
        elif self.alarmed:
            how["stopped_by"] = "alarm " + ", ".join(alarm.name for alarm in self._alarms.current)
            logger.warning("stopped after round %d by the %s; %s", self.round, how["stopped_by"], again)
        elif self._out_of_patience:
            logger.info(
                "stopped after round %d: %d validations without a better one", self.round, self._best.without_better
            )
        else:
            logger.info("complete: %d rounds", self.round)
        before = self.run_dir.previous_end()
        self.run_dir.note_end(how)
        if how == {key: before.get(key) for key in how} and how["stopped_by"] == DEADLINE and not self.progress:
            raise ConfigError(
                f"{DEADLINE}: for the second time no round could be played ({self.out_of_time}); give the job a longer "
                "time limit"
            )

    @property
    def progress(self) -> int:
        """Rounds that this start has played."""
        return self.round - self._first_round

    @property
    def stopped_by(self) -> int | None:
        """The signal that ended ``fit`` early, if one did and there are rounds to go."""
        return self._stop.received if self._trainer is None or self.round < self.total_rounds else None

    @property
    def out_of_time(self) -> str | None:
        """Why ``fit`` stopped before the deadline, if it did."""
        return self._out_of_time


class _TransferQueue:
    """verl's queue of trajectories, which is a module's state."""

    def close(self) -> None:
        import transfer_queue as tq

        tq.close()
