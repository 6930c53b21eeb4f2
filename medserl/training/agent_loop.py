"""verl's agent-loop hooks: one coroutine per note plays a whole game, with no barrier across the batch.

Hooks used (verl 0.9.1): ``AgentLoopBase`` and ``register`` (verl/experimental/agent_loop/agent_loop.py),
``AgentLoopWorkerTQ`` and ``AgentLoopManagerTQ`` (verl/trainer/ppo/v1/agent_loop_tq.py), chosen by
``actor_rollout_ref.rollout.agent.agent_loop_manager_class``.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import ray
from omegaconf import DictConfig
from tensordict import TensorDict
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from medserl.config.load import game_settings
from medserl.config.settings import GameSetup, make_setup
from medserl.game import Game, LabelledNote, Mode, Note, Reply, Role, assess_labelled, play_game
from medserl.game.reply import PROMPT_TAIL, opens_thinking
from medserl.game.wire import encode_game
from medserl.serving.opponent import RemoteInjector, injector_of
from medserl.training.game_rows import said_incorrect

AGENT_NAME = "medserl_self_play"
GAME_FIELD = "medserl"  # in a trajectory's extra_fields: what `Row` says of it, and the game on its first trajectory
THINK_END = "</think>"


@dataclass(frozen=True)
class NoteTask:
    """One row of a round: a note to play on, or a gold-labelled note to assess."""

    round: int
    note: Note | None
    mode: Mode | None
    labelled: LabelledNote | None = None
    error_type: str | None = None
    """MEDEC's type of error to ask the injector for; None: any."""
    replayed: bool = False
    """Whether ``labelled`` is of an earlier round's game."""
    place: int = 0
    """Place in the round, from 0: few gold notes are dealt more than once a round."""

    @property
    def name(self) -> str:
        """Identity of the task within its round; seeds the sampling."""
        if self.labelled is not None:
            kind = "replayed" if self.replayed else "labelled"
            return f"{self.place}/{kind}/{self.labelled.note_id}/{self.labelled.label.value}"
        assert self.note is not None and self.mode is not None
        return f"{self.place}/game/{self.note.note_id}/{self.mode.value}"


@dataclass(frozen=True)
class Tokens:
    """What verl needs of a reply: token ids of prompt and response, and vLLM's log-probabilities."""

    prompt_ids: list[int]
    response_ids: list[int]
    logprobs: list[float] | None
    seconds: float
    extra: dict[str, Any]
    p_incorrect: float | None = None
    """An assessor's p(INCORRECT), where its reply tells."""
    verdict_at: int | None = None
    """The response's token that ``p_incorrect`` is of."""


class PromptTooLong(RuntimeError):
    """A prompt that does not fit; verl would cut it from the left without a word to the trainer."""


def sampling_seed(seed: int, task: NoteTask, call: int) -> int:
    """Seed of one request, in [0, 2**31): the same whatever order requests arrive in or process they run
    in."""
    text = f"{seed}/{task.round}/{task.name}/{call}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF


_SETUPS: dict[int, tuple[weakref.ref[DictConfig], GameSetup]] = {}


def _setup_of(config: DictConfig) -> GameSetup:
    """Rules, prompts and referees, made once per process and configuration (verl makes a loop object per note).

    Kept by identity, since a configuration's hash is that of all its text, and as long as the configuration is there:
    another one may get its address afterwards.
    """
    key = id(config)
    if key not in _SETUPS:
        _SETUPS[key] = weakref.ref(config, lambda _: _SETUPS.pop(key, None)), make_setup(game_settings(config))
    return _SETUPS[key][1]


@register(AGENT_NAME)
class SelfPlayAgentLoop(AgentLoopBase):
    """Plays one game and returns every trajectory of it, each with its own reward and role."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        """Play the game of one row.

        Args:
            sampling_params: vLLM sampling parameters of the round.
            **kwargs: The row; ``task`` is its :class:`NoteTask`.

        Returns:
            One output per trajectory in the order played; ``extra_fields["medserl"]`` tells role, whether it
            trains, seconds and, on the first one, the whole game without its tokens.
        """
        task: NoteTask = kwargs["task"]
        setup = _setup_of(self.config)
        calls = 0

        async def generate(role: Role, messages: list[dict[str, str]]) -> Reply:
            nonlocal calls
            calls += 1
            seed = sampling_seed(self.config.medserl.seed, task, calls)
            params = {**sampling_params, "seed": seed}
            other = injector_of(self.config) if role is Role.INJECTOR else None
            return await self._generate(messages, params, f"{task.name}/{calls}", role, other)

        if task.labelled is not None:
            game = await assess_labelled(
                task.labelled, generate=generate, prompts=setup.prompts, rules=setup.rules, replayed=task.replayed
            )
        else:
            assert task.note is not None and task.mode is not None
            game = await play_game(
                task.note,
                task.mode,
                generate=generate,
                prompts=setup.prompts,
                rules=setup.rules,
                referee=setup.referee,
                second_referee=setup.second_referee,
                error_type=task.error_type,
            )
        return _outputs(game)

    async def _generate(
        self,
        messages: list[dict[str, str]],
        params: dict[str, Any],
        request: str,
        role: Role,
        other: RemoteInjector | None = None,
    ) -> Reply:
        prompt_ids = self.continuous_token_builder.build_initial_tokens(messages)
        if len(prompt_ids) > self.rollout_config.prompt_length:
            raise PromptTooLong(
                f"{request}: prompt of {len(prompt_ids)} tokens, data.max_prompt_length is "
                f"{self.rollout_config.prompt_length}"
            )
        opened = opens_thinking(self.tokenizer.decode(prompt_ids[-PROMPT_TAIL:]))
        start = time.perf_counter()
        if other is not None:
            text = await other(list(prompt_ids), params, self.rollout_config.response_length)
            # Never trained on, but verl's rows want tokens.
            ids = self.tokenizer.encode(text, add_special_tokens=False)[: self.rollout_config.response_length - 1]
            ids = [*ids, self.tokenizer.eos_token_id]
            seconds = time.perf_counter() - start
            tokens = Tokens(list(prompt_ids), ids, [0.0] * len(ids), seconds, {})
            return Reply(text, tokens, len(ids), self._think_tokens(ids), opened)
        output = await self.server_manager.generate(
            request_id=request, prompt_ids=prompt_ids, sampling_params=dict(params)
        )
        ids = list(output.token_ids)
        logprobs = list(output.log_probs) if output.log_probs else None
        asked = (ids, logprobs, self.tokenizer) if role is Role.ASSESSOR else ((), None, None)
        p_incorrect, verdict_at = said_incorrect(*asked)
        tokens = Tokens(
            prompt_ids=list(prompt_ids),
            response_ids=ids,
            logprobs=logprobs,
            seconds=time.perf_counter() - start,
            extra=dict(output.extra_fields),
            p_incorrect=p_incorrect,
            verdict_at=verdict_at,
        )
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return Reply(text, tokens, len(ids), self._think_tokens(ids), opened)

    def _think_tokens(self, response_ids: list[int]) -> int:
        end = self.tokenizer.convert_tokens_to_ids(THINK_END)
        return response_ids.index(end) + 1 if end in response_ids else 0


def _outputs(game: Game) -> list[AgentLoopOutput]:
    record = encode_game(game)
    outputs = []
    for index, trajectory in enumerate(game.trajectories):
        tokens: Tokens = trajectory.reply.payload
        info: dict[str, Any] = {
            "role": trajectory.role.value,
            "trains": trajectory.trains,
            "index": index,
            "seconds": tokens.seconds,
            "p_incorrect": tokens.p_incorrect,
            "verdict_at": tokens.verdict_at,
        }
        if index == 0:
            info["game"] = record
        outputs.append(
            AgentLoopOutput(
                prompt_ids=tokens.prompt_ids,
                response_ids=tokens.response_ids,
                response_mask=[1] * len(tokens.response_ids),
                response_logprobs=tokens.logprobs,
                reward_score=float(trajectory.reward),
                num_turns=len(game.trajectories),
                metrics=AgentLoopMetrics(generate_sequences=tokens.seconds),
                extra_fields={**tokens.extra, GAME_FIELD: info},
            )
        )
    return outputs


class SelfPlayWorker(AgentLoopWorkerTQ.__ray_metadata__.modified_class):
    """Stores each trajectory with its own reward.

    verl copies the last output's reward onto the earlier ones of a run (agent_loop_tq.py:166-176), right for
    the turns of one player and wrong for two players. So its post-processing sees one output at a time.
    """

    async def _agent_loop_postprocess(
        self, output: AgentLoopOutput | list[AgentLoopOutput], validate: bool, **kwargs: Any
    ) -> None:
        kwargs.pop("task", None)
        for index, single in enumerate(output if isinstance(output, list) else [output]):
            await super()._agent_loop_postprocess(single, validate, **{**kwargs, "session_id": index})


class SelfPlayAgentLoopManager(AgentLoopManagerTQ):
    """Sends rows to agent-loop workers: Ray actors, or one worker in a thread of this process.

    The second is for small machines, where each further process costs 20 s of imports.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(SelfPlayWorker)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def _init_agent_loop_workers(self) -> None:
        if self.config.medserl.rollout_workers > 0:
            await super()._init_agent_loop_workers()
            return
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="agent-loops", daemon=True).start()
        self._worker = await asyncio.wrap_future(self._submit(self._make_worker()))

    async def _make_worker(self) -> SelfPlayWorker:
        return SelfPlayWorker(self.config, self.llm_client, self.teacher_client, self.reward_loop_worker_handles)

    def _submit(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def generate_sequences(self, prompts: TensorDict) -> None:
        """Start the games of all rows and return; trajectories arrive in the TransferQueue as games end."""
        if self._loop is None:
            super().generate_sequences(prompts)
        else:
            self._submit(self._worker.generate_sequences(prompts)).result()

    def close(self) -> None:
        """Stop the thread of an in-process worker."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
