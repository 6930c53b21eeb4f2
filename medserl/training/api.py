"""``MedSeRLTrainer``: the whole of MedSeRL from Python."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from medserl.training import checkpoint
from medserl.training.checks import check_all
from medserl.training.config import DEFAULT_CONFIG, game_settings, load_config
from medserl.training.data import Round, planned_rounds
from medserl.training.launch import Cluster, prepare_environment
from medserl.training.layout import leave_random_states
from medserl.training.report import GameDump, speed_metrics, with_game_metrics
from medserl.training.run_dir import RunDir
from medserl.training.run_log import RunLog, divert_output, set_up_logging
from medserl.training.settings import has_validation_notes

if TYPE_CHECKING:
    from medserl.training.agent_loop import SelfPlayAgentLoopManager
    from medserl.training.trainer import SelfPlayTrainer

logger = logging.getLogger("medserl.run")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class MedSeRLTrainer:
    """Self-play training of one model in two roles.

    Args:
        config: A name in ``configs/``, a path, or a configuration that ``load_config`` made.
        overrides: Hydra overrides, for a name or a path.
        verbose: Show what verl, vLLM and Ray print; otherwise it is kept in ``RUN_DIR/logs``.

    Example:
        >>> with MedSeRLTrainer("embedded", ["medserl.max_rounds=2"]) as trainer:  # doctest: +SKIP
        ...     metrics = trainer.training_step(trainer.sample_batch())
        ...     metrics["vcf_acceptance_rate"], metrics["mean_reward"]

    Raises:
        UserError: a configuration, data file, model or run directory that cannot work; nothing was started
        then.
    """

    def __init__(
        self,
        config: str | DictConfig = DEFAULT_CONFIG,
        overrides: Sequence[str] = (),
        verbose: bool = True,
    ) -> None:
        self.verbose = verbose
        self.config_name = config if isinstance(config, str) else "(python)"
        self.overrides = list(overrides)
        self.config = load_config(config, overrides) if isinstance(config, str) else config
        self.settings = game_settings(self.config)
        self.run_dir = RunDir(Path(self.settings.run_dir))
        check_all(self.config, self.run_dir)
        self._trainer: SelfPlayTrainer | None = None
        self._manager: SelfPlayAgentLoopManager | None = None
        self._cluster: Cluster | None = None
        self._log: RunLog | None = None
        self._dump: GameDump | None = None
        self._stop_signal: int | None = None
        self._saved_round = 0
        self._best: dict[str, Any] | None = None
        self._without_better = 0
        self._handles_signals = False

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
        self.run_dir.open(self.config, self.config_name, self.overrides)
        try:
            log_dir = self.run_dir.new_log_dir()
            console = None if self.verbose else divert_output(log_dir / "driver.log")
            set_up_logging(self.run_dir.path, console)
            variables = prepare_environment(self.config)
            logger.info("run directory %s", self.run_dir.path)
            logger.info("starting Ray, Megatron and vLLM on %s", self.config.trainer.device)
            self._cluster = Cluster(self.config, variables, log_dir, self.verbose)
            logger.info("Ray is up; importing verl and starting the Megatron workers (a minute or two)")
            self._catch_signals()  # again: Ray installs handlers of its own when it starts
            self._start_trainer(began)
        except BaseException:
            self.close()
            raise

    def _start_trainer(self, began: float) -> None:
        import transfer_queue as tq
        from verl.utils.import_utils import load_class_from_fqn

        from medserl.training.trainer import SelfPlayTrainer

        if self.config.trainer.device == "cpu":
            from medserl.cpu.plugin import assert_active

            assert_active()
        if self.config.trainer.resume_mode != "disable":
            leave_random_states(self.config, checkpoint.latest_usable(self.run_dir.checkpoints)[0])
        self.config.transfer_queue.enable = True
        tq.init(self.config.transfer_queue)
        trainer = SelfPlayTrainer(self.config)
        trainer.init()
        if self.config.reward.reward_model.enable:
            from medserl.training.judge import point_at

            point_at(self.config, trainer.reward_loop_manager.reward_router_address)
        manager = load_class_from_fqn(self.config.actor_rollout_ref.rollout.agent.agent_loop_manager_class)
        self._manager = manager.create(
            config=self.config,
            llm_client=trainer.get_llm_client(),
            teacher_client=None,
            reward_loop_worker_handles=trainer.get_reward_handles(),
        )
        trainer.agent_loop_manager = self._manager
        self._trainer = trainer
        self._saved_round = trainer.global_steps
        self._best = checkpoint.best(self.run_dir.checkpoints) if trainer.global_steps else None
        self._log = RunLog(self.run_dir.path, trainer.global_steps, trainer.total_training_steps)
        self._dump = GameDump(self.run_dir.path) if self.settings.dump_games else None
        logger.info(
            "ready after %.0f s; %s",
            time.perf_counter() - began,
            f"resuming after round {trainer.global_steps}" if trainer.global_steps else "starting with round 1",
        )

    def close(self) -> None:
        """End everything that ``start`` started."""
        if self._log is not None:
            self._log.close()
        if self._manager is not None:
            self._manager.close()
        if self._trainer is not None:
            import transfer_queue as tq

            tq.close()
        if self._cluster is not None:
            self._cluster.close()
        self.run_dir.close()
        self._trainer = self._manager = self._cluster = self._log = None

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
        metrics = trainer.training_step(batch)
        games = list(trainer.round.games.values())
        metrics = with_game_metrics(metrics, games, self.settings.max_attempts)
        metrics |= speed_metrics(metrics, games)
        if self._validates_after(trainer.global_steps):
            metrics |= trainer.validate()
        assert self._log is not None
        self._log.round(trainer.global_steps, batch.batch.epoch, metrics)
        if self._dump is not None:
            self._dump.write(trainer.global_steps, games)
        improved = self._remember_best(metrics)
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

    def _remember_best(self, metrics: dict[str, float]) -> bool:
        """Whether this round's validation is the best so far; its checkpoint is marked when it is saved."""
        value = metrics.get(self.settings.validation.best_metric)
        if value is None or math.isnan(value):
            return False
        number = self.trainer.global_steps
        if self._best is None or value > self._best["value"]:
            self._best = {"step": number, "metric": self.settings.validation.best_metric, "value": value}
            self._without_better = 0
            return True
        self._without_better += 1
        return False

    def validate(self) -> dict[str, float]:
        """Judge the held-out notes with the present weights and record it, without training.

        Returns:
            ``val/greedy/*`` and ``val/sampled/*``: balanced accuracy, MCC, recall of each class and more.
        """
        metrics = self.trainer.validate()
        assert self._log is not None
        self._log.validation(self.trainer.global_steps, metrics)
        return metrics

    @property
    def _out_of_patience(self) -> bool:
        patience = self.settings.validation.patience
        return patience is not None and self._without_better >= patience

    def save(self) -> Path:
        """Write a checkpoint of the current round."""
        began = time.perf_counter()
        path = self.trainer.save()
        self._saved_round = self.trainer.global_steps
        if self._best is not None and self._best["step"] == self._saved_round:
            checkpoint.mark_best(self.run_dir.checkpoints, **self._best)
        logger.info("checkpoint %s (%.1f s)", path, time.perf_counter() - began)
        return path

    def fit(self) -> dict[str, float]:
        """Train to the end; SIGTERM or SIGUSR1 end it after the round that is under way, with a checkpoint.

        Returns:
            The last round's metrics; empty when the run was already complete.
        """
        metrics: dict[str, float] = {}
        done = checkpoint.latest_step(self.run_dir.checkpoints)
        if done >= self.planned_rounds:
            print(f"complete: {done} rounds; for more, raise --max-rounds or --max-epochs, or give a new --run-dir")
            return metrics
        with self._stop_on_signals():
            self.start()
            if self.config.trainer.val_before_train and self.round == 0 and has_validation_notes(self.settings):
                self.validate()
            while self.round < self.total_rounds and self._stop_signal is None and not self._out_of_patience:
                metrics = self.training_step(self.sample_batch())
            if self.round > self._saved_round:
                self.save()
        if self._stop_signal is not None:
            logger.info("stopped by signal %d after round %d; the same command resumes", self._stop_signal, self.round)
        elif self._out_of_patience:
            logger.info("stopped after round %d: %d validations without a better one", self.round, self._without_better)
        else:
            logger.info("complete: %d rounds", self.round)
        return metrics

    @property
    def stopped_by(self) -> int | None:
        """The signal that ended ``fit`` early, if one did."""
        return self._stop_signal

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # the caller has its own way to stop
            return
        previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
        self._handles_signals = True
        self._catch_signals()
        try:
            yield
        finally:
            self._handles_signals = False
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _catch_signals(self) -> None:
        if self._handles_signals:
            for number in STOP_SIGNALS:
                signal.signal(number, self._request_stop)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_signal = number
