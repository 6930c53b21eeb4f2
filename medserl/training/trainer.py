"""verl's synchronous v1 PPO trainer, playing self-play rounds.

A subclass of ``PPOTrainerSync`` (verl 0.9.1, verl/trainer/ppo/v1/trainer_sync.py). verl does generation,
log-probs,
KL in the reward, REINFORCE++ returns, the clipped update and the weight transfer; this class says which
notes a round has, which trajectories train, and how advantages of two roles are normalised.
tests/training/test_verl_contracts.py fails when verl changes a method that is overridden here.
"""

from __future__ import annotations

import logging
import pickle
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.workers.utils.padding import response_to_nested

from medserl.config.load import game_settings
from medserl.config.settings import make_setup
from medserl.data.rounds import Round, RoundSource, planned_rounds, validation_notes
from medserl.game import Game, Role, balance_labels, balance_modes, draw_error_type
from medserl.report.round_metrics import referee_complaint
from medserl.run import checkpoint
from medserl.run.layout import layout_of
from medserl.training.advantage import RoleAdvantages
from medserl.training.agent_loop import AGENT_NAME, NoteTask
from medserl.training.validate import Validator

logger = logging.getLogger("medserl.trainer")
SLOW_PHASE = 30.0  # seconds; longer phases are worth a line of their own
GAME_FIELD = "medserl"  # in a trajectory's extra_fields: role, trains, and the game on its first trajectory


class RolloutFailed(RuntimeError):
    """More games of a round failed technically than ``medserl.max_failed_share`` allows."""


@dataclass
class RoundState:
    """What the trainer knows of the round being trained: tasks and games by note, roles by trajectory key."""

    tasks: dict[str, NoteTask] = field(default_factory=dict)
    games: dict[str, Game] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    nothing_trains: bool = False


class SelfPlayTrainer(PPOTrainerSync):
    """Plays and trains one round per ``training_step``.

    Args:
        config: A configuration made by ``medserl.config.load.load_config``.
    """

    def __init__(self, config: DictConfig) -> None:
        super().__init__(config)
        self.settings = game_settings(config)
        self.replay_buffer.poll_interval = self.settings.poll_seconds
        self.advantages = RoleAdvantages(self.settings.advantage.normalisation, self.settings.advantage.baseline_decay)
        self.round = RoundState()
        self.timing_raw: dict[str, float] = {}
        self.curr_step_profile = False
        self._round_began = 0.0
        self.save_seconds: float | None = None  # what the checkpoint took that the run goes on from
        self._validator: Validator | None = None

    # ---------------------------------------------------------------- one round

    def training_step(self, notes: Round) -> dict[str, float]:
        """Play one round on ``notes``, update the policy, send the new weights to vLLM.

        Args:
            notes: The round's notes and labelled notes.

        Returns:
            verl's metrics of the round; ``self.round`` holds the games.
        """
        self.global_steps += 1
        self.round = RoundState(tasks=self._tasks(notes))
        self._round_began = time.perf_counter()
        metrics: dict[str, Any] = {}
        self.timing_raw = {}
        with marked_timer("step", self.timing_raw):
            batch = self.step(metrics, self.timing_raw)
            self.on_step_end()
            metrics.update(self._consume_sync_metrics())
        self._compute_metrics(
            batch,
            metrics,
            self.timing_raw,
            global_steps=self.global_steps,
            epoch=(self.global_steps - 1) // self.steps_per_epoch,
        )
        tq.kv_clear(keys=batch.keys, partition_id=batch.partition_id)
        return {name: float(value) for name, value in metrics.items()}

    def validate(self) -> dict[str, float]:
        """Judge the held-out notes with the present weights; nothing is trained."""
        if self._validator is None:
            notes = validation_notes(self.settings)
            prompts = make_setup(self.settings).prompts
            self._validator = Validator(self.config, self.get_llm_client(), self.tokenizer, prompts, notes)
        timing: dict[str, float] = {}
        with marked_timer("validate", timing):
            metrics = self._validator()
        return {**metrics, "timing_s/validate": timing["validate"]}

    def save(self) -> Path:
        """Write a checkpoint of the current round; whole or not at all."""
        timing: dict[str, float] = {}
        with marked_timer("save_checkpoint", timing):
            self._save_checkpoint()
        return Path(self.config.trainer.default_local_dir) / f"{checkpoint.STEP_PREFIX}{self.global_steps}"

    # ---------------------------------------------------------------- the round's notes

    def _init_dataloader(self) -> None:
        """Notes instead of verl's prompt file; steps and epochs follow from them."""
        self.train_dataloader = RoundSource(self.settings)
        self.val_dataloader = None
        self.steps_per_epoch = self.train_dataloader.rounds_per_epoch
        total = planned_rounds(self.config, self.settings)
        self.total_training_steps = total
        with open_dict(self.config):
            self.config.actor_rollout_ref.actor.optim.total_training_steps = total

    def _tasks(self, notes: Round) -> dict[str, NoteTask]:
        seed = f"{self.settings.seed}/{self.global_steps}"
        types = self.settings.error_types
        played = [
            NoteTask(self.global_steps, note, mode, error_type=draw_error_type(types, seed, note.note_id))
            for note, mode in zip(notes.batch.notes, notes.batch.modes, strict=True)
        ]
        labelled = [NoteTask(round=self.global_steps, note=None, mode=None, labelled=item) for item in notes.labelled]
        # verl splits keys at "_": no underscore in a uid.
        return {f"r{self.global_steps:06d}n{i:05d}": task for i, task in enumerate(played + labelled)}

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        """The rows that verl sends to the agent loops: one per note."""
        tasks = self.round.tasks
        expected = self.config.data.train_batch_size
        if len(tasks) != expected:
            raise ValueError(f"a round has {len(tasks)} notes and labelled notes, the configuration says {expected}")
        batch = tu.get_tensordict(
            {
                "uid": list(tasks),
                "task": list(tasks.values()),
                "index": list(range(len(tasks))),
                "agent_name": [AGENT_NAME] * len(tasks),
                "__rollout_n__": [1] * len(tasks),
            }
        )
        tu.assign_non_tensor_data(batch, "global_steps", self.global_steps)
        return batch

    # ---------------------------------------------------------------- which trajectories train

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict[str, Any], *args: Any, **kwargs: Any) -> KVBatchMeta:
        """Keep the trajectories that train, in an order that does not depend on which game ended first."""
        rows = self._collect_games(batch)
        if (waited := time.perf_counter() - self._round_began) > SLOW_PHASE:
            logger.info("round %d: %d games played in %.0f s", self.global_steps, len(self.round.games), waited)
        chosen = self._choose(rows)
        self.round.nothing_trains = not chosen
        if not chosen:
            logger.warning("round %d: no trajectory trains (all games void or rejected)", self.global_steps)
            chosen = sorted(rows)
        kept = set(chosen)
        dropped = [key for key in batch.keys if key not in kept]
        if dropped:
            tq.kv_clear(keys=dropped, partition_id=batch.partition_id)
        tags = dict(zip(batch.keys, batch.tags, strict=True))
        self.round.roles = {key: rows[key]["role"] for key in chosen}
        metrics["medserl/trained_trajectories"] = 0 if self.round.nothing_trains else len(chosen)
        trimmed = KVBatchMeta(
            partition_id=batch.partition_id,
            keys=list(chosen),
            tags=[tags[key] for key in chosen],
            extra_info=batch.extra_info,
        )
        return super()._balance_batch(trimmed, metrics, *args, **kwargs)

    def _collect_games(self, batch: KVBatchMeta) -> dict[str, dict[str, Any]]:
        """Game information of every trajectory by key; the games themselves go to ``self.round``."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        # A list of dicts, wrapped or not, depending on how the TransferQueue stored it.
        extras = (getattr(extra, "data", extra) for extra in data["extra_fields"])
        rows = {key: extra[GAME_FIELD] for key, extra in zip(batch.keys, extras, strict=True)}
        by_uid: dict[str, Game] = {}
        for key in sorted(rows):
            if "game" in rows[key]:
                by_uid[key.split("_")[0]] = pickle.loads(rows[key]["game"])
        failed = [uid for uid in self.round.tasks if uid not in by_uid]
        if len(failed) > self.settings.max_failed_share * len(self.round.tasks):
            raise RolloutFailed(
                f"round {self.global_steps}: {len(failed)} of {len(self.round.tasks)} games failed; the "
                "first error is in the log above (medserl.max_failed_share says how many may)"
            )
        self.round.games = by_uid
        if complaint := referee_complaint(list(by_uid.values()), self.settings.referee.name):
            logger.warning("round %d: %s", self.global_steps, complaint)
        return rows

    def _choose(self, rows: dict[str, dict[str, Any]]) -> list[str]:
        uids, games = list(self.round.games), list(self.round.games.values())
        seed = f"{self.settings.seed}/{self.global_steps}"
        dropped = balance_modes(games, seed) if self.settings.balance_modes else set()
        unassessed = balance_labels(games, dropped, seed) if self.settings.balance_labels else set()
        left_out = {(uids[i], role.value) for i in dropped for role in Role}
        left_out |= {(uids[i], Role.ASSESSOR.value) for i in unassessed}
        roles = self._trained_roles()
        return [
            key
            for key in sorted(rows)
            if rows[key]["trains"]
            and rows[key]["role"] in roles
            and (key.split("_")[0], rows[key]["role"]) not in left_out
        ]

    def _trained_roles(self) -> set[str]:
        match self.settings.train_roles:
            case "both":
                return {Role.INJECTOR.value, Role.ASSESSOR.value}
            case "assessor":
                return {Role.ASSESSOR.value}
            case _:
                return {Role.ASSESSOR.value if self.global_steps % 2 else Role.INJECTOR.value}

    # ---------------------------------------------------------------- advantages and update

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """REINFORCE++ by verl; per-role normalisation and weights where configured."""
        batch = super()._compute_advantage(batch, metrics)
        settings = self.settings.advantage
        if settings.normalisation == "global" and settings.injector_weight == 1.0:
            return batch
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["returns", "advantages", "response_mask"]
        )
        mask = data["response_mask"]
        padded = data.to_padded_tensor()
        roles = [self.round.roles.get(key, "padding") for key in batch.keys]
        if settings.normalisation == "global":
            advantages = padded["advantages"]
        else:
            advantages = self.advantages(padded["returns"], padded["response_mask"], roles)
        weights = [settings.injector_weight if role == Role.INJECTOR.value else 1.0 for role in roles]
        advantages = advantages * torch.tensor(weights, dtype=advantages.dtype).unsqueeze(-1)
        output = TensorDict({"advantages": response_to_nested(advantages, mask)}, batch_size=len(batch))
        return tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=output)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Skip the update when nothing trains: Adam's momentum would move the weights even on zero
        gradients."""
        if self.round.nothing_trains:
            return batch
        return super()._update_actor(batch, metrics)

    # ---------------------------------------------------------------- checkpoints

    def _save_checkpoint(self) -> None:
        root = Path(self.config.trainer.default_local_dir)
        keep = self.config.trainer.max_actor_ckpt_to_keep
        began = time.perf_counter()
        with checkpoint.saving(root, self.global_steps) as staging:
            self._write_checkpoint(root, staging, keep)
            state = {
                "baselines": self.advantages.state_dict(),
                "layout": layout_of(self.config),
                "kl_coef": self._kl_coef,
                "seconds": round(time.perf_counter() - began, 3),
            }
            checkpoint.publish(root, self.global_steps, state, keep)

    def _write_checkpoint(self, root: Path, staging: Path, keep: int | None) -> None:
        with open_dict(self.config):
            self.config.trainer.default_local_dir = str(staging)
            self.config.trainer.max_actor_ckpt_to_keep = None  # retention is ours: verl would look for staged paths
        try:
            super()._save_checkpoint()
        finally:
            with open_dict(self.config):
                self.config.trainer.default_local_dir = str(root)
                self.config.trainer.max_actor_ckpt_to_keep = keep

    @property
    def _kl_coef(self) -> float | None:
        controller = getattr(self, "kl_ctrl_in_reward", None)
        return None if controller is None else float(controller.value)

    def _load_checkpoint(self) -> None:
        logger.info("Megatron and vLLM are up; loading the latest checkpoint, if there is one")
        self.global_steps = 0
        if self.config.trainer.resume_mode == "disable":
            return
        latest, complaints = checkpoint.latest_usable(Path(self.config.trainer.default_local_dir))
        for complaint in complaints:
            logger.warning(complaint)
        if latest is None:
            return
        with open_dict(self.config):
            self.config.trainer.resume_mode = "resume_path"
            self.config.trainer.resume_from_path = str(latest)
        super()._load_checkpoint()
        state = checkpoint.load_state(latest)
        self.advantages.load_state_dict(state["baselines"])
        self.save_seconds = state.get("seconds")
        if self.config.algorithm.kl_ctrl.type == "adaptive" and state.get("kl_coef") is not None:
            self.kl_ctrl_in_reward.value = state["kl_coef"]  # verl would start again from the configured one
