"""The settings of a judge, and what verl is told where it is to start the judge's server. Imports nothing heavy.

Hook used (verl 0.9.1): ``reward.reward_model`` with a resource pool of its own, which ``PPOTrainer`` starts as a
``RewardModelManager`` (verl/experimental/reward_loop/reward_model.py): vLLM replicas of a model whose weights nobody
updates, behind a router.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from medserl.config.servers import api_of
from medserl.config.settings import BUILTIN_MODEL, JUDGE, GameSettings, RefereeSettings
from medserl.errors import ConfigError
from medserl.files import read_json
from medserl.game.registry import build

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
                raise ConfigError(f"medserl.referee.options.{key}: {value!r} is not a whole number above 0")
        for key, least in (("temperature", 0.0), ("timeout", 1e-9)):
            value = getattr(self, key)
            if not isinstance(value, int | float) or value < least:
                raise ConfigError(f"medserl.referee.options.{key}: {value!r} is too small or not a number")
        if self.votes > 1 and self.temperature == 0:
            raise ConfigError("medserl.referee.options.votes: at temperature 0 all votes agree; set a temperature")
        api_of(self.url, "medserl.referee.options.url")

    @property
    def api(self) -> str | None:
        """The URL with its ``/v1``."""
        return api_of(self.url, "medserl.referee.options.url")


def judge_options(options: Mapping[str, Any]) -> JudgeOptions:
    """The options of a judge, as a user wrote them; ConfigError for one that there is not, or of another type."""
    return build(JudgeOptions, "referee 'judge'", options, {})


def judge_of(settings: GameSettings) -> RefereeSettings | None:
    """The referee that is a judge, if there is one; ConfigError where both are and would need two servers."""
    judges = [referee for referee in (settings.referee, settings.second_referee) if referee.name == JUDGE]
    if len(judges) == 2 and any(judge_options(judge.options).url is None for judge in judges):
        raise ConfigError("medserl.second_referee: two judges need a medserl.*.options.url each; verl starts one only")
    return next((judge for judge in judges if judge_options(judge.options).url is None), next(iter(judges), None))


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
    with open_dict(config):
        judge.enable = judge.enable_resource_pool = True
        judge.nnodes, judge.n_gpus_per_node = 1, options.tensor_parallel_size
        judge.model_path = model
        for key in _SHARED_KEYS:
            if policy.get(key) is not None:
                judge.rollout[key] = policy[key]
        judge.rollout.tensor_model_parallel_size = options.tensor_parallel_size
        judge.rollout.free_cache_engine = False  # awake during the whole rollout
        judge.rollout.response_length = options.max_tokens
        _set_lengths(config)
        if config.trainer.device == "cpu" and config.ray_kwargs.ray_init.get("num_gpus"):
            config.ray_kwargs.ray_init.num_gpus += options.tensor_parallel_size


def fit_judge(config: DictConfig, settings: GameSettings) -> None:
    """Give a judge that verl starts the room that a changed data.max_prompt_length asks for."""
    judge = config.reward.reward_model
    if judge.enable and (judge_of(settings) is not None or settings.frozen_injector):
        _set_lengths(config)


def _set_lengths(config: DictConfig) -> None:
    judge = config.reward.reward_model
    length = _NOTES_IN_PROMPT * config.data.max_prompt_length + judge.rollout.response_length
    judge.rollout.max_model_len = min(length, _longest(judge.model_path, length))
    judge.rollout.prompt_length = max(1, judge.rollout.max_model_len - judge.rollout.response_length)


def _builtin(model: str | None) -> str | None:
    """``builtin:ward`` is the tiny model's directory, as it is for the policy."""
    if model != BUILTIN_MODEL:
        return model
    from medserl.ward import model_dir

    return str(model_dir())


def _longest(model: str, default: int) -> int:
    """The context that the model has; ``default`` where its directory does not say (`check_all` complains)."""
    try:
        config = read_json(Path(model) / "config.json")
        return int(config["max_position_embeddings"])
    except (OSError, ValueError, LookupError, TypeError, OverflowError):
        return default
