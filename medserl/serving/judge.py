"""The referee ``judge`` on vLLM: asks an OpenAI-compatible server, which verl starts where no ``url`` is given.

Hook used (verl 0.9.1): ``reward.reward_model`` with a resource pool of its own, which ``PPOTrainer`` starts as a
``RewardModelManager`` (verl/experimental/reward_loop/reward_model.py): vLLM replicas of a model whose weights nobody
updates, behind a router. Imports nothing heavy; the game awaits `JudgeReferee.arule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, open_dict

from medserl.config.judge import judge_options
from medserl.config.settings import JUDGE
from medserl.game.prompts import Message, PromptSet
from medserl.game.referee import Judge, JudgeFailed, register_referee
from medserl.serving.openai_server import JUDGE_KEY, ServerFailed, post


@register_referee
class JudgeReferee(Judge):
    """`Judge` over HTTP. ``prompts`` needs a ``judge.txt``; ``options`` are the fields of `JudgeOptions`."""

    def __init__(self, prompts: PromptSet, **options: Any) -> None:
        super().__init__(self._post, prompts)
        self.options = judge_options(options)
        prompts.judge("A.", "A.", "B.")  # ConfigError where the set has none
        self._model = self.options.model if self.options.url is not None else None

    async def _post(self, messages: list[Message], seed: int) -> Sequence[str]:
        """One request for all votes; `JudgeFailed` names the server, never the note."""
        options, api = self.options, self.options.api
        if api is None:
            raise JudgeFailed("the judge's own server has not been started")
        body: dict[str, Any] = {
            "messages": messages,
            "n": options.votes,
            "temperature": options.temperature,
            "max_tokens": options.max_tokens,
        }
        if options.temperature > 0:
            body["seed"] = seed
        if options.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": options.thinking}
        try:
            replies, self._model = await post(
                api, "chat/completions", body, _replies, options.timeout, self._model, JUDGE_KEY
            )
        except ServerFailed as error:
            raise JudgeFailed(str(error)) from error
        return replies


def _replies(answer: Any) -> list[str]:
    return [choice["message"]["content"] or "" for choice in answer["choices"]]


def point_at(config: DictConfig, router_address: str) -> None:
    """Give the judge, and an injector that stays as it is, the address of the server that verl started."""
    if config.medserl.frozen_injector:
        config.medserl.injector_url = f"http://{router_address}/v1"
    for referee in (config.medserl.referee, config.medserl.second_referee):
        if referee.name == JUDGE and referee.options.get("url") is None:
            with open_dict(config):
                referee.options.url = f"http://{router_address}/v1"
                referee.options.model = None  # the server has one model; its name is the server's business
