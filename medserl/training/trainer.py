"""verl's synchronous v1 PPO trainer, playing self-play rounds.

A subclass of ``PPOTrainerSync`` (verl 0.9.1, verl/trainer/ppo/v1/trainer_sync.py). verl does generation, log-probs,
KL in the reward, returns, a critic where there is one, the clipped update and the weight transfer; this class says
which notes a round has, which trajectories train, in which mini-batch, and how advantages of two roles are normalised.
tests/training/test_verl_behaviour.py and test_verl_contracts.py fail when verl changes what is relied on here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl import DataProto
from verl.trainer.ppo.core_algos import FixedKLController
from verl.utils import tensordict_utils as tu
from verl.utils.debug import marked_timer
from verl.utils.seqlen_balancing import calculate_workload, get_seqlen_balanced_partitions, log_seqlen_unbalance

from medserl.config.load import game_settings
from medserl.config.settings import make_setup
from medserl.data.rounds import Round, RoundSource, planned_rounds, validation_notes
from medserl.game import Role, draw_error_type
from medserl.game.wire import decode_game
from medserl.gamelog.kinds import Row as GameRow
from medserl.report.round_metrics import referee_complaint
from medserl.run.console import phase
from medserl.training.advantage import role_advantages
from medserl.training.agent_loop import AGENT_NAME, GAME_FIELD, NoteTask
from medserl.training.checkpoints import CheckpointedTrainer
from medserl.training.exploration import accepted_edits, explored_by
from medserl.training.game_rows import round_rows
from medserl.training.round_state import RoundState
from medserl.training.rows import PADDING, Row, choose, deal, pairs, stratum, uid_of, verdict_credits
from medserl.training.validate import Validator
from medserl.training.verl_plugin import advantages_by

logger = logging.getLogger("medserl.trainer")
SLOW_PHASE = 30.0  # seconds; longer phases are worth a line of their own
KL = "actor/reward_kl_penalty"  # verl's name
STEPS = "medserl/optimizer_steps"


class RolloutFailed(RuntimeError):
    """More games of a round failed technically than ``medserl.max_failed_share`` allows."""


class SelfPlayTrainer(CheckpointedTrainer):
    """Plays and trains one round per ``training_step``.

    Args:
        config: A configuration made by ``medserl.config.load.load_config``.
    """

    def __init__(self, config: DictConfig) -> None:
        settings = game_settings(config)
        super().__init__(config, role_advantages(settings), explored_by(settings))
        self.settings = settings
        self.replay_buffer.poll_interval = self.settings.poll_seconds
        self.round = RoundState()
        self.timing_raw: dict[str, float] = {}
        self.curr_step_profile = False
        self._round_began = 0.0
        self._validator: Validator | None = None

    # ---------------------------------------------------------------- one round

    def training_step(self, notes: Round) -> dict[str, float]:
        """Play one round on ``notes``, update the policy, send the new weights to vLLM.

        In this order, of which verl's ``step`` (trainer_base.py) calls 1 to 6; what is marked * is overridden here:

        1. ``prepare_step``: ``_next_train_batch``* sends one row per note to the agent loops, which play the games
           (agent_loop.py) and put each trajectory into the TransferQueue with its own reward.
        2. ``replay_buffer.sample`` waits until all games are over; ``on_sample_end`` sends vLLM to sleep.
        3. ``_balance_batch``*: ``_collect_games`` reads the games, ``rows.choose`` says which trajectories train, verl
           pads them to whole mini-batches, ``_deal`` spreads kinds over these.
        4. ``_compute_old_log_prob``, ``_compute_ref_log_prob``: Megatron, policy and reference; a critic's values.
        5. ``_compute_advantage``*: ``_compute_returns`` has verl put the KL into the reward and sum up returns; then
           ``RoleAdvantages`` and the roles' weights. A critic is updated.
        6. ``_update_actor``*: one optimizer step a mini-batch; none where nothing trains.
        7. ``on_step_end`` sends the weights to vLLM, ``_compute_metrics`` measures, the rows leave the queue.

        Args:
            notes: The round's notes and labelled notes.

        Returns:
            verl's metrics of the round; ``self.round`` holds the games.
        """
        self.global_steps += 1
        self.round = RoundState(tasks=self._tasks(notes))
        self._round_began = time.perf_counter()
        metrics: dict[str, Any] = {STEPS: 0}
        self.timing_raw = {}
        with marked_timer("step", self.timing_raw):
            batch = self.step(metrics, self.timing_raw)
            self._phase("sending the weights to vLLM")
            self.on_step_end()
            metrics.update(self._consume_sync_metrics())
        self._compute_metrics(
            batch,
            metrics,
            self.timing_raw,
            global_steps=self.global_steps,
            epoch=(self.global_steps - 1) // self.steps_per_epoch,
        )
        tq.kv_clear(keys=[*batch.keys, *self.round.unused], partition_id=batch.partition_id)
        edits = accepted_edits(self.round.tasks, self.round.games)
        if self.settings.replay_batch_size:
            self.replay.see(edits)
        metrics |= self.explored.see(edits)
        return {name: float(value) for name, value in metrics.items()}

    def validate(self) -> dict[str, float]:
        """Judge the held-out notes with the present weights; nothing is trained."""
        if self._validator is None:
            notes = validation_notes(self.settings)
            prompts = make_setup(self.settings).prompts
            self._validator = Validator(self.config, self.get_llm_client(), self.tokenizer, prompts, notes)
        phase("judging the held-out notes")
        timing: dict[str, float] = {}
        with marked_timer("validate", timing):
            metrics = self._validator(self.explored.covers)
        return {**metrics, "timing_s/validate": timing["validate"]}

    def game_rows(self) -> list[GameRow]:
        """What the game log keeps of the last round."""
        return round_rows(self.round, self.global_steps)

    def answer_rows(self) -> list[GameRow]:
        """What the game log keeps of the held-out answers since the last call."""
        return [] if self._validator is None else self._validator.take_rows(self.global_steps)

    # ---------------------------------------------------------------- the round's notes

    def _init_dataloader(self) -> None:
        """Notes instead of verl's prompt file; steps and epochs follow from them."""
        self.train_dataloader = RoundSource(self.settings)
        self.val_dataloader = None
        self.steps_per_epoch = self.train_dataloader.rounds_per_epoch
        total = planned_rounds(self.config, self.settings)
        self.total_training_steps = total
        with open_dict(self.config):
            for trained in (self.config.actor_rollout_ref.actor, self.config.critic):
                trained.optim.total_training_steps = total

    def _tasks(self, notes: Round) -> dict[str, NoteTask]:
        seed = f"{self.settings.seed}/{self.global_steps}"
        types = self.settings.error_types
        tasks = [
            NoteTask(self.global_steps, note, mode, error_type=draw_error_type(types, seed, note.note_id))
            for note, mode in zip(notes.batch.notes, notes.batch.modes, strict=True)
        ]
        tasks += [NoteTask(self.global_steps, None, None, labelled=item) for item in notes.labelled]
        again = self.replay.questions(self.settings.replay_batch_size, seed)
        tasks += [NoteTask(self.global_steps, None, None, labelled=item, replayed=True) for item in again]
        with open_dict(self.config):  # so many games verl waits for; in the first rounds there is little to ask again
            self.config.data.train_batch_size = len(tasks)
        # verl splits keys at "_": no underscore in a uid.
        return {f"r{self.global_steps:06d}n{i:05d}": replace(task, place=i) for i, task in enumerate(tasks)}

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        """The rows that verl sends to the agent loops: one per note."""
        self._phase("the model plays against itself")
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
        """Keep the trajectories that train, have verl pad them, and deal all into mini-batches."""
        self._phase("log-probabilities of the policy and the reference")
        rows = self._collect_games(batch)
        if (waited := time.perf_counter() - self._round_began) > SLOW_PHASE:
            logger.info("round %d: %d games played in %.0f s", self.global_steps, len(self.round.games), waited)
        chosen = choose(rows, self.round.games, self.settings, self.global_steps)
        self.round.nothing_trains = not chosen
        if not chosen:
            logger.warning(
                "round %d: there is no trajectory to train on (all games are void or rejected)", self.global_steps
            )
            chosen = sorted(rows)
        kept = set(chosen)
        self.round.unused = [key for key in batch.keys if key not in kept]
        tags = dict(zip(batch.keys, batch.tags, strict=True))
        self.round.roles = {key: rows[key].role.value for key in chosen}
        metrics["medserl/trained_trajectories"] = 0 if self.round.nothing_trains else len(chosen)
        trimmed = KVBatchMeta(
            partition_id=batch.partition_id,
            keys=list(chosen),
            tags=[tags[key] for key in chosen],
            extra_info=batch.extra_info,
        )
        padded = super()._balance_batch(trimmed, metrics, *args, **kwargs)
        metrics |= self._deal(padded)
        return padded

    def _deal(self, batch: KVBatchMeta) -> dict[str, Any]:
        """Put rows in the order in which each mini-batch that verl slices has the round's mixture; its statistics.

        verl gives each data-parallel rank one run of rows and slices every run into mini-batches. Sorted by key, as
        they come, the last mini-batch would be gold notes and padding.
        """
        actor = self.config.actor_rollout_ref.actor
        size = actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
        ranks = max(self.actor_rollout_wg._dispatch_info["actor"]) + 1
        if len(batch) % size or size % ranks:
            return {}  # no update follows (trainer.critic_warmup), or verl is about to say what is wrong
        strata = [stratum(key, self.round.roles, self.round.games) for key in batch.keys]
        work = calculate_workload(torch.tensor(lengths := [tag["seq_len"] for tag in batch.tags])).tolist()
        runs: list[list[int]] = [[] for _ in range(ranks)]
        chance, together = f"{self.settings.seed}/{self.global_steps}", pairs(batch.keys, self.round)
        for hand in deal(strata, len(batch) // size, chance, together):
            shares = get_seqlen_balanced_partitions([work[i] for i in hand], k_partitions=ranks, equal_size=True)
            for run, share in zip(runs, shares, strict=True):
                run += [hand[i] for i in share]
        batch.reorder([i for run in runs for i in run])
        statistics: dict[str, Any] = log_seqlen_unbalance(lengths, runs, prefix="global_seqlen")
        return statistics

    def _collect_games(self, batch: KVBatchMeta) -> dict[str, Row]:
        """What every trajectory says of itself, by key; the games themselves go to ``self.round``."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        # Dicts, wrapped or not, depending on how the TransferQueue stored them.
        extras = (getattr(extra, "data", extra)[GAME_FIELD] for extra in data["extra_fields"])
        said = dict(sorted(zip(batch.keys, extras, strict=True)))
        by_uid = {uid_of(key): decode_game(info["game"]) for key, info in said.items() if "game" in info}
        failed = [uid for uid in self.round.tasks if uid not in by_uid]
        if len(failed) > self.settings.max_failed_share * len(self.round.tasks):
            raise RolloutFailed(
                f"round {self.global_steps}: {len(failed)} of {len(self.round.tasks)} games failed; the "
                "first error is in the log above (medserl.max_failed_share says how many may)"
            )
        self.round.games = by_uid
        known = ("index", "seconds", "p_incorrect", "verdict_at")
        self.round.rows = {
            key: Row(Role(info["role"]), bool(info["trains"]), *(info[name] for name in known))
            for key, info in said.items()
        }
        if complaint := referee_complaint(list(by_uid.values()), self.settings.referee.name):
            logger.warning("round %d: %s", self.global_steps, complaint)
        return self.round.rows

    # ---------------------------------------------------------------- advantages and update

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """KL and returns by verl; advantages by role, with the weights of the roles, in place of verl's."""

        def by_role(
            upstream: Callable[..., DataProto], data: DataProto, batch_keys: list[str], **rule: Any
        ) -> DataProto:
            data = upstream(data, batch_keys=batch_keys, **rule)
            if not self.round.nothing_trains:
                returns, mask = data.batch["returns"].clone(), data.batch["response_mask"]
                if self.use_critic:
                    returns -= data.batch["values"]  # the advantages as they were before verl whitened them
                data.batch["advantages"] = self._advantages_by_role(batch_keys, returns, mask, metrics)
            return data

        with advantages_by(by_role):
            return self._compute_returns(batch, metrics)

    def _advantages_by_role(
        self, keys: list[str], returns: torch.Tensor, mask: torch.Tensor, metrics: dict[str, Any]
    ) -> torch.Tensor:
        """From returns, which are changed, and the mask of response tokens: both (rows, response length)."""
        roles = [self.round.roles.get(key, PADDING) for key in keys]
        credits = verdict_credits(keys, self.round, self.settings.advantage)
        for i, credit in credits.items():
            returns[i] -= credit.reward
        advantages = self.advantages(returns, mask, roles)
        for role in sorted(set(self.round.roles.values())):
            left_out = role in self.advantages.left_out and not (credits and role == Role.ASSESSOR.value)
            metrics[f"medserl/left_out/{role}"] = float(left_out)
            if left_out:
                why = "the outcomes of the %s hardly differ; it is all but left out"
                logger.info("round %d: " + why, self.global_steps, role)
        injector = self.settings.advantage.injector_weight
        weights = [injector if role == Role.INJECTOR.value else 1.0 for role in roles]
        advantages = advantages * torch.tensor(weights, dtype=advantages.dtype).unsqueeze(-1)
        for i, credit in credits.items():
            advantages[i, credit.token] = credit.advantage
        means = advantages.sum(-1) / mask.sum(-1).clamp(min=1)  # zero outside the mask
        shown = zip(keys, means.tolist(), strict=True)
        self.round.advantages = {key: mean for key, mean in shown if key in self.round.roles}
        return advantages

    def _compute_returns(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """verl's own, but for the mean KL: verl's is over padding too, whose KL is 0. The one over real rows is shown,
        and an adaptive coefficient follows it."""
        controller = getattr(self, "kl_ctrl_in_reward", None)
        if controller is None:
            return super()._compute_advantage(batch, metrics)
        self.kl_ctrl_in_reward = FixedKLController(controller.value)  # verl would feed the other mean to it
        try:
            batch = super()._compute_advantage(batch, metrics)
        finally:
            self.kl_ctrl_in_reward = controller
        real = sum(key in self.round.roles for key in batch.keys)
        metrics[KL] *= len(batch) / real
        if not self.round.nothing_trains:
            controller.update(current_kl=metrics[KL], n_steps=real)
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        """Update, and count the optimizer's steps; where nothing trains there is none: Adam's momentum would move the
        weights even on zero gradients."""
        if self.round.nothing_trains:
            return batch
        self._phase("updating the policy")
        update = self.actor_rollout_wg.update_actor

        def counted(batch: KVBatchMeta) -> Any:
            output = update(batch)
            metrics[STEPS] = len(output["metrics"]["grad_norm"])  # one norm a step, before verl makes a mean of them
            return output

        self.actor_rollout_wg.update_actor = counted
        try:
            return super()._update_actor(batch, metrics)
        finally:
            self.actor_rollout_wg.update_actor = update
