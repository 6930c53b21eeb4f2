"""The referee ``judge`` on vLLM: asks an OpenAI-compatible server, which verl starts where no ``url`` is given.

Hook used (verl 0.9.1): ``reward.reward_model`` with a resource pool of its own, which ``PPOTrainer`` starts as a
``RewardModelManager`` (verl/experimental/reward_loop/reward_model.py): vLLM replicas of a model whose weights nobody
updates, behind a router. Imports nothing heavy; the game awaits `JudgeReferee.arule`.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, open_dict

from medserl.config.judge import api_of, judge_options
from medserl.config.settings import JUDGE, GameSettings
from medserl.errors import ConfigError
from medserl.game.prompts import Message, PromptSet
from medserl.game.referee import Judge, JudgeFailed, register_referee
from medserl.serving.openai_server import ServerFailed, post, request_headers

_PROBE_SECONDS = 10.0


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
            replies, self._model = await post(api, "chat/completions", body, _replies, options.timeout, self._model)
        except ServerFailed as error:
            raise JudgeFailed(str(error)) from error
        return replies


def _replies(answer: Any) -> list[str]:
    return [choice["message"]["content"] or "" for choice in answer["choices"]]


def check_servers(settings: GameSettings) -> None:
    """Ask every server that is the user's own for its models, before anything starts.

    Raises:
        ConfigError: it does not answer, or does not serve the model.
    """
    if settings.injector_url is not None:
        _models(api_of(settings.injector_url, "medserl.injector_url"), "medserl.injector_url")
    for key, referee in (("referee", settings.referee), ("second_referee", settings.second_referee)):
        if referee.name != JUDGE:
            continue
        options = judge_options(referee.options)
        if options.api is None:
            continue
        where = f"medserl.{key}.options"
        names = _models(options.api, f"{where}.url")
        if options.model is not None and options.model not in names:
            raise ConfigError(f"{where}.model: {options.api} serves {', '.join(names)}, not {options.model}")


def _models(api: str | None, key: str) -> list[str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(f"{api}/models", headers=request_headers())
    try:
        with opener.open(request, timeout=_PROBE_SECONDS) as response:
            return [str(model["id"]) for model in json.load(response)["data"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        why = getattr(error, "reason", None) or error
        raise ConfigError(
            f"{key}: {api} is no OpenAI-compatible server that answers ({why}); start one "
            "(`vllm serve MODEL`) or leave url out"
        ) from None


def point_at(config: DictConfig, router_address: str) -> None:
    """Give the judge, and an injector that stays as it is, the address of the server that verl started."""
    if config.medserl.frozen_injector:
        config.medserl.injector_url = f"http://{router_address}/v1"
    for referee in (config.medserl.referee, config.medserl.second_referee):
        if referee.name == JUDGE and referee.options.get("url") is None:
            with open_dict(config):
                referee.options.url = f"http://{router_address}/v1"
                referee.options.model = None  # the server has one model; its name is the server's business
