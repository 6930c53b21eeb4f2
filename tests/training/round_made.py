"""A round without Ray, Megatron or vLLM: a trainer whose workers and TransferQueue are stand-ins, and games made up."""

import copy
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transfer_queue
from omegaconf import DictConfig
from tensordict import NonTensorStack, TensorDict
from transfer_queue import KVBatchMeta

from medserl.config.load import game_settings, load_config
from medserl.game import Game, Label, Mode, Reply, Role, Ruling, RulingKind, Trajectory
from medserl.game.explored import Explored
from medserl.game.play import AssessorTurn, Attempt
from medserl.game.replay import Replay
from medserl.game.vcf import VcfVerdict
from medserl.training import trainer as module
from medserl.training.advantage import role_advantages
from medserl.training.agent_loop import NoteTask, Tokens, _outputs

PARTITION = "train"


class Queue:
    """Stands where the TransferQueue stands: fields and tags by key; a field of tensors comes back jagged."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, Any]] = {}
        for name in ("kv_batch_get", "kv_batch_put", "kv_clear"):
            monkeypatch.setattr(transfer_queue, name, getattr(self, name))

    def kv_batch_get(self, keys: Sequence[str], partition_id: str, select_fields: Any = None) -> TensorDict:
        names = select_fields or list(self.rows[keys[0]])
        columns: dict[str, Any] = {}
        for name in names:
            values = [self.rows[key][name] for key in keys if name in self.rows[key]]
            if len(values) < len(keys):
                continue
            if isinstance(values[0], torch.Tensor):
                columns[name] = torch.nested.as_nested_tensor(values, layout=torch.jagged)
            else:
                columns[name] = NonTensorStack(*values)
        return TensorDict(columns, batch_size=[len(keys)])

    def kv_batch_put(self, keys: Sequence[str], partition_id: str, fields: Any = None, tags: Any = None) -> KVBatchMeta:
        for i, key in enumerate(keys):
            self.rows.setdefault(key, {})
            if tags is not None:
                self.tags[key] = tags[i]
        for name in [] if fields is None else fields.keys():
            column = fields[name]
            values = column.unbind() if isinstance(column, torch.Tensor) else [getattr(v, "data", v) for v in column]
            for key, value in zip(keys, values, strict=True):
                self.rows[key][name] = value
        return KVBatchMeta(list(keys), [self.tags[key] for key in keys], partition_id)

    def kv_clear(self, keys: Sequence[str], partition_id: str) -> None:
        for key in keys:
            del self.rows[key], self.tags[key]


class Workers:
    """Stands where verl's worker group stands; ``ranks`` data-parallel ranks. Makes verl's mini-batches of what comes
    and keeps their keys."""

    def __init__(self, ranks: int = 1) -> None:
        self.ranks = ranks
        self._dispatch_info = {"actor": list(range(ranks))}
        self.mini_batches: list[list[str]] = []

    def update_actor(self, batch: KVBatchMeta) -> dict[str, Any]:
        from verl.utils.tensordict_utils import make_iterator

        info = batch.extra_info
        dealt: list[list[str]] = []
        for rank, part in enumerate(batch.chunk(self.ranks)):
            data = TensorDict({"row": torch.arange(len(part))}, batch_size=[len(part)])
            size = info["mini_batch_size"] // self.ranks
            for i, rows in enumerate(
                make_iterator(data, size, info["epochs"], info["seed"] + rank, info["dataloader_kwargs"])
            ):
                if rank == 0:
                    dealt.append([])
                dealt[i] += [part.keys[j] for j in rows["row"].tolist()]
        self.mini_batches += dealt
        return {"metrics": {"mfu": [0.0] * len(dealt), "grad_norm": [1.0] * len(dealt)}}


def made_game(
    name: str,
    mode: Mode | None,
    truth: Label | None,
    answer: Label | None = Label.CORRECT,
    attempts: int = 1,
    reward: float = 1.0,
    failed: bool = False,
) -> Game:
    """A game: with ``truth`` None all its attempts were rejected; with ``mode`` None a gold-labelled note."""

    def reply(text: str, length: int) -> Reply:
        return Reply(text, Tokens([1] * 5, [2] * length, [-0.5] * length, 0.1, {}), length, 0)

    def info(task: float) -> dict[str, float | str]:
        return {"note_id": name, "task_reward": task}

    tried = tuple(
        Attempt(reply("e", 6), "x", VcfVerdict(truth is not None and i == attempts - 1)) for i in range(attempts)
    )
    trajectories = []
    for i in range(attempts if mode is not None else 0):
        trains = truth is None or i == attempts - 1
        trajectories.append(
            Trajectory(
                Role.INJECTOR, [], tried[i].reply, -reward if trains else 0.0, trains, i + 1, True, info(-reward)
            )
        )
    turn = None if truth is None else AssessorTurn(reply("a", 3), answer)
    if turn is not None:
        trajectories.append(Trajectory(Role.ASSESSOR, [], turn.reply, reward, True, 0, True, info(reward)))
    ruling = None
    if mode is not None and truth is not None:
        ruling = Ruling(RulingKind.ERROR if truth is Label.INCORRECT else RulingKind.BENIGN)
        ruling = Ruling.of_failure("away") if failed else ruling
    return Game(
        name,
        mode,
        tried if mode is not None else (),
        accepted="x" if truth is not None else None,
        ruling=ruling,
        truth=truth,
        assessor=turn,
        trajectories=tuple(trajectories),
    )


def duel(name: str, mode: Mode = Mode.ERROR, truth: Label | None = None, reward: float = 1.0) -> Game:
    """A decided game; by default its label is the one that its mode asks for."""
    return made_game(name, mode, mode.label if truth is None else truth, reward=reward)


def gold(name: str, truth: Label, reward: float = 1.0) -> Game:
    """A gold-labelled note and the assessor's answer."""
    return made_game(name, None, truth, reward=reward)


@cache
def _configuration(overrides: tuple[str, ...]) -> DictConfig:
    return load_config("embedded", list(overrides))


def made_trainer(overrides: Sequence[str] = (), number: int = 1, ranks: int = 1) -> Any:
    """``SelfPlayTrainer`` as its methods need it; nothing was started."""
    config = copy.deepcopy(_configuration(tuple(overrides)))
    trainer: Any = object.__new__(module.SelfPlayTrainer)
    trainer.config, trainer.settings = config, game_settings(config)
    trainer.advantages, trainer.explored = role_advantages(trainer.settings), Explored()
    trainer.replay = Replay()
    trainer.round, trainer.global_steps, trainer._round_began = module.RoundState(), number, 0.0
    trainer._validator = None
    trainer.use_critic, trainer.distillation_config, trainer.total_training_steps = False, None, 1
    trainer.tokenizer = SimpleNamespace(eos_token_id=0)
    trainer.actor_rollout_wg = Workers(ranks)
    from verl.trainer.ppo.core_algos import get_kl_controller

    trainer.kl_ctrl_in_reward = get_kl_controller(config.algorithm.kl_ctrl)
    return trainer


def play(trainer: Any, queue: Queue, games: Sequence[Game]) -> KVBatchMeta:
    """Put games into the queue as the agent loop does, under the keys that verl gives; the batch verl samples."""
    keys = []
    trainer.round.tasks = {}
    for i, game in enumerate(games):
        uid = f"r{trainer.global_steps:06d}n{i:05d}"
        trainer.round.tasks[uid] = NoteTask(round=trainer.global_steps, note=None, mode=None)
        for session, output in enumerate(_outputs(game)):
            key = f"{uid}_{session}_0"
            keys.append(key)
            length = len(output.response_ids)
            prompt, response = torch.tensor(output.prompt_ids), torch.tensor(output.response_ids)
            scores = torch.zeros(length)
            scores[-1] = output.reward_score
            queue.rows[key] = {
                "uid": uid,
                "extra_fields": dict(output.extra_fields),
                "prompts": prompt,
                "responses": response,
                "input_ids": torch.cat([prompt, response]),
                "position_ids": torch.arange(len(prompt) + length),
                "response_mask": torch.ones(length, dtype=torch.int64),
                "rm_scores": scores,
                "old_log_probs": torch.full((length,), -1.0),
                "ref_log_prob": torch.full((length,), -1.0),
                "rollout_log_probs": torch.full((length,), -1.0),
            }
            queue.tags[key] = {"status": "success", "seq_len": len(prompt) + length}
    return KVBatchMeta(keys, [queue.tags[key] for key in keys], PARTITION)


def advantages_of(queue: Queue, keys: Sequence[str]) -> torch.Tensor:
    """The advantage of each row's last token."""
    return torch.stack([queue.rows[key]["advantages"][-1] for key in keys])
