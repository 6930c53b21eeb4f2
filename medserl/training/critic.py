"""verl's trainer with a critic, where there is one (``algorithm.adv_estimator=gae``).

verl computes its values, the generalised advantages and its update (verl 0.9.1, trainer_base.py); mbridge's part in
making it is mended in medserl/bridges.py, and medserl/config says what of it can be set.
"""

from __future__ import annotations

from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from medserl.run.console import phase
from medserl.training.round_state import RoundState


class CriticTrainer(PPOTrainerSync):
    """Says what it does, and leaves the critic alone in a round in which nothing trains."""

    round: RoundState

    def _phase(self, text: str) -> None:
        phase(f"round {self.global_steps}/{self.total_training_steps}: {text}")

    def _compute_values(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        self._phase("the critic's values")
        return super()._compute_values(batch, metrics)

    def _update_critic(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """None where nothing trains, as of the policy."""
        if self.round.nothing_trains:
            return batch
        self._phase("updating the critic")
        return super()._update_critic(batch, metrics)
