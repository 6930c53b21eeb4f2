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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from medserl.errors import ConfigError
from medserl.game.prompts import Message, PromptSet
from medserl.game.referee import Judge, JudgeFailed, register_referee
from medserl.training.openai_server import ServerFailed, api_of, post, request_headers
from medserl.training.settings import BUILTIN_MODEL, JUDGE, GameSettings, RefereeSettings

_PROBE_SECONDS = 10.0
# What the judge's vLLM shares with the policy's: both run on the same kind of machine.
_SHARED_KEYS = ("name", "dtype", "enforce_eager", "enable_sleep_mode", "enable_chunked_prefill",
                "max_num_batched_tokens", "max_num_seqs", "engine_kwargs")  # fmt: skip
_NOTES_IN_PROMPT = 3  # the note, two sentences of it and the instructions, in lengths of data.max_prompt_length


@dataclass(frozen=True)
class JudgeOptions:
    """``medserl.referee.options`` of the judge. Raises ConfigError for a value that cannot work."""

    model: str | None = None
    """Directory of the judge's model, or with ``url`` the name that the server knows it by; null: the model that
    training starts from, or with ``url`` the first that the server offers."""
    url: str | None = None
    """An OpenAI-compatible server (``vllm serve``), e.g. http://127.0.0.1:8000/v1; null: verl starts vLLM itself,
    on devices beside those of the training."""
    votes: int = 1
    """Replies per edit; a verdict needs more than half of them. More than one needs a temperature."""
    temperature: float = 0.0
    max_tokens: int = 256
    """Longest reply, reasoning included."""
    thinking: bool | None = False
    """Qwen3's thinking mode; null sends no such switch, for servers that do not know it."""
    timeout: float = 300.0
    """Seconds until a question counts as failed."""
    tensor_parallel_size: int = 1
    """Devices of the judge where verl starts it."""

    def __post_init__(self) -> None:
        for key in ("votes", "max_tokens", "tensor_parallel_size"):
            value = getattr(self, key)
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"medserl.referee.options.{key}: {value!r} is no whole number above 0")
        for key, least in (("temperature", 0.0), ("timeout", 1e-9)):
            value = getattr(self, key)
            if not isinstance(value, int | float) or value < least:
                raise ConfigError(f"medserl.referee.options.{key}: {value!r} is too small or no number")
        if self.votes > 1 and self.temperature == 0:
            raise ConfigError("medserl.referee.options.votes: at temperature 0 all votes are one; set a temperature")
        api_of(self.url, "medserl.referee.options.url")

    @property
    def api(self) -> str | None:
        """The URL with its ``/v1``."""
        return api_of(self.url, "medserl.referee.options.url")


@register_referee
class JudgeReferee(Judge):
    """`Judge` over HTTP. ``prompts`` needs a ``judge.txt``; ``options`` are the fields of `JudgeOptions`."""

    def __init__(self, prompts: PromptSet, **options: Any) -> None:
        super().__init__(self._post, prompts)
        self.options = JudgeOptions(**options)
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


def judge_of(settings: GameSettings) -> RefereeSettings | None:
    """The referee that is a judge, if there is one; ConfigError where both are and would need two servers."""
    judges = [referee for referee in (settings.referee, settings.second_referee) if referee.name == JUDGE]
    if len(judges) == 2 and any(JudgeOptions(**judge.options).url is None for judge in judges):
        raise ConfigError("medserl.second_referee: two judges need a medserl.*.options.url each; verl starts one only")
    return next((judge for judge in judges if JudgeOptions(**judge.options).url is None), next(iter(judges), None))


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
        options = JudgeOptions(**referee.options)
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


def serve_with_verl(config: DictConfig, options: JudgeOptions | None, *, injector: bool = False) -> None:
    """Write into ``config`` that verl starts a frozen vLLM replica: for the judge, to play the injector, or for both.

    It gets devices of its own: it answers while the policy generates. Without an accelerator the devices are
    logical, so there is room for one more.

    Raises:
        ConfigError: judge and injector want two different models; verl starts one server only.
    """
    policy, judge = config.actor_rollout_ref.rollout, config.reward.reward_model
    start = config.actor_rollout_ref.model.path
    model = (_builtin(options.model) if options else None) or start
    if injector and model != start:
        raise ConfigError(
            "medserl.frozen_injector: verl starts one frozen server, and the judge's would be another model "
            "(medserl.referee.options.model); serve one of them yourself and give its url"
        )
    options = options or JudgeOptions(max_tokens=config.data.max_response_length)
    length = _NOTES_IN_PROMPT * config.data.max_prompt_length + options.max_tokens
    with open_dict(config):
        judge.enable = judge.enable_resource_pool = True
        judge.nnodes, judge.n_gpus_per_node = 1, options.tensor_parallel_size
        judge.model_path = model
        for key in _SHARED_KEYS:
            if policy.get(key) is not None:
                judge.rollout[key] = policy[key]
        judge.rollout.tensor_model_parallel_size = options.tensor_parallel_size
        judge.rollout.free_cache_engine = False  # awake during the whole rollout
        judge.rollout.max_model_len = min(length, _longest(model, length))
        judge.rollout.response_length = options.max_tokens
        judge.rollout.prompt_length = max(1, judge.rollout.max_model_len - options.max_tokens)
        if config.trainer.device == "cpu" and config.ray_kwargs.ray_init.get("num_gpus"):
            config.ray_kwargs.ray_init.num_gpus += options.tensor_parallel_size


def _builtin(model: str | None) -> str | None:
    """``builtin:ward`` is the tiny model's directory, as it is for the policy."""
    if model != BUILTIN_MODEL:
        return model
    from medserl.ward import model_dir

    return str(model_dir())


def _longest(model: str, default: int) -> int:
    """The context that the model has; ``default`` where its directory does not say (`check_all` complains)."""
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
        return int(config["max_position_embeddings"])
    except (OSError, ValueError, LookupError, TypeError):
        return default


def point_at(config: DictConfig, router_address: str) -> None:
    """Give the judge, and an injector that stays as it is, the address of the server that verl started."""
    if config.medserl.frozen_injector:
        config.medserl.injector_url = f"http://{router_address}/v1"
    for referee in (config.medserl.referee, config.medserl.second_referee):
        if referee.name == JUDGE and referee.options.get("url") is None:
            with open_dict(config):
                referee.options.url = f"http://{router_address}/v1"
                referee.options.model = None  # the server has one model; its name is the server's business
