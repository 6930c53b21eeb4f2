"""An injector that is not the policy: its turns are answered by an OpenAI-compatible server.

The control arm of self-play (``medserl.frozen_injector``), or any other model of the policy's tokenizer
(``medserl.injector_url``). Its trajectories never train.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from omegaconf import DictConfig

from medserl.config.servers import api_of
from medserl.serving.openai_server import INJECTOR_KEY, post

TIMEOUT = 600.0
"""Seconds until a turn counts as failed."""


class RemoteInjector:
    """Answers the injector's prompts.

    Args:
        url: The server, with or without ``/v1``.
    """

    def __init__(self, url: str) -> None:
        api = api_of(url, "medserl.injector_url")
        assert api is not None
        self._api = api
        self._model: str | None = None

    async def __call__(self, prompt_ids: list[int], params: dict[str, Any], max_tokens: int) -> str:
        """The reply to a prompt of token ids, without its end-of-turn token; `ServerFailed` where there is none.

        Args:
            prompt_ids: Token ids [prompt length].
            params: Of vLLM's sampling parameters, temperature, top_p, top_k and seed are sent on.
            max_tokens: Longest reply.
        """
        body: dict[str, Any] = {"prompt": prompt_ids, "max_tokens": max_tokens}
        body.update({key: params[key] for key in ("temperature", "top_p", "top_k", "seed") if key in params})
        text, self._model = await post(self._api, "completions", body, _text, TIMEOUT, self._model, INJECTOR_KEY)
        return text


def _text(answer: Any) -> str:
    return str(answer["choices"][0]["text"])


def injector_of(config: DictConfig) -> RemoteInjector | None:
    """The injector beside the policy, where the configuration names one."""
    url = config.medserl.injector_url
    return None if url is None else _at(url)


@lru_cache(maxsize=1)
def _at(url: str) -> RemoteInjector:
    """One for all turns of a process: it asks the server for its models once."""
    return RemoteInjector(url)


__all__ = ["TIMEOUT", "RemoteInjector", "injector_of"]
