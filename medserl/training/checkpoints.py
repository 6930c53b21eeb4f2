"""verl's trainer with checkpoints that are whole or absent (medserl.run.checkpoint), and what verl's leave out."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

from omegaconf import DictConfig, open_dict
from verl.utils.debug import marked_timer

from medserl.files import read_json, write_atomically
from medserl.game.explored import Explored
from medserl.game.replay import Replay
from medserl.run import checkpoint
from medserl.run.console import LOAD, phase
from medserl.run.layout import layout_of
from medserl.training.advantage import RoleAdvantages
from medserl.training.critic import CriticTrainer

REPLAY = "replay.json"
"""In a checkpoint: the edits that are asked about again, notes included; readable by their owner only."""
logger = logging.getLogger("medserl.trainer")


class CheckpointedTrainer(CriticTrainer):
    """Adds to verl's checkpoints: averages of ``advantages``, what was ``explored``, the KL coefficient, the layout.

    Args:
        config: The run's configuration.
        advantages: What has a state to be saved and restored.
        explored: Likewise.
    """

    def __init__(self, config: DictConfig, advantages: RoleAdvantages, explored: Explored) -> None:
        super().__init__(config)
        self.advantages, self.explored = advantages, explored
        self.replay = Replay()
        self.save_seconds: float | None = None  # what the checkpoint took that the run goes on from

    def save(self) -> Path:
        """Write a checkpoint of the current round; whole or not at all."""
        timing: dict[str, float] = {}
        with marked_timer("save_checkpoint", timing):
            self._save_checkpoint()
        return Path(self.config.trainer.default_local_dir) / f"{checkpoint.STEP_PREFIX}{self.global_steps}"

    def _save_checkpoint(self) -> None:
        root = Path(self.config.trainer.default_local_dir)
        keep = self.config.trainer.max_actor_ckpt_to_keep
        began = time.perf_counter()
        with checkpoint.saving(root, self.global_steps) as staging:
            self._write_checkpoint(root, staging, keep)
            if len(self.replay):
                folder = staging / f"{checkpoint.STEP_PREFIX}{self.global_steps}"
                write_atomically(folder / REPLAY, json.dumps(self.replay.state_dict()))
            state = {
                "baselines": self.advantages.state_dict(),
                "explored": self.explored.state_dict(),
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
        phase(LOAD)
        logger.info("Megatron and vLLM are up; loading the latest checkpoint, if there is one")
        self.global_steps = 0
        if self.config.trainer.resume_mode != "resume_path":  # medserl.run.layout.choose_checkpoint says which
            return
        latest = Path(self.config.trainer.resume_from_path)
        super()._load_checkpoint()
        state = checkpoint.load_state(latest)
        self.advantages.load_state_dict(state["baselines"])
        if "explored" in state:  # checkpoints of earlier versions have none
            self.explored.load_state_dict(state["explored"])
        if (latest / REPLAY).exists():
            self.replay.load_state_dict(read_json(latest / REPLAY))
        self.save_seconds = state.get("seconds")
        if self.config.algorithm.kl_ctrl.type == "adaptive" and state.get("kl_coef") is not None:
            self.kl_ctrl_in_reward.value = state["kl_coef"]  # verl would start again from the configured one
