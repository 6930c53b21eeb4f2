"""The assessor's replies, through vLLM's offline engine; the same code on CPUs and GPUs.

Nothing heavy is imported before `prepare_device` has set the environment.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.config.chat_template import check_chat_template, check_thinking, check_vocabulary, rendered
from medserl.config.loadable import tokenizer_fault
from medserl.config.model_at_hand import threads_for
from medserl.errors import ConfigError
from medserl.evaluation.calibration import VerdictPlace, dressed_place, probability_incorrect
from medserl.evaluation.kept import KeptAnswers
from medserl.evaluation.model import text_config
from medserl.evaluation.votes import Vote, parse_vote
from medserl.game.prompts import Message
from medserl.game.reply import PROMPT_TAIL, Form, opens_thinking
from medserl.loopback import ON_LOOPBACK
from medserl.words import counted

if TYPE_CHECKING:
    from omegaconf import DictConfig

logger = logging.getLogger("medserl.evaluate")
ALTERNATIVES = 20  # candidates whose log-probabilities vLLM gives at a token; its own upper limit
_KEPT_AT_ONCE = 512  # replies: a GPU is kept busy, and a kill costs minutes at most
TOO_LONG = "the prompt is too long for the model"
_CACHED_SEQUENCES, _BLOCK = 4, 256  # room for this many whole sequences, each rounded up
_LONGEST = 400  # characters of a reason
_BYTES = {"float32": 4, "float": 4}  # of a cached number; 2 for every other dtype
_ROLLOUT_KEYS = (
    "tensor_model_parallel_size",
    "dtype",
    "enforce_eager",
    "gpu_memory_utilization",
    "max_num_seqs",
    "max_num_batched_tokens",
    "enable_chunked_prefill",
    "enable_prefix_caching",
)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How replies are drawn."""

    output_format: str
    samples: int = 1
    temperature: float = 0.0
    """0 is greedy; log-probabilities are the model's own, whatever the temperature."""
    max_tokens: int = 64
    seed: int = 0
    thinking: bool = False
    verdict_alone: bool = False
    """In the format ``full``: a verdict counts although sentence and correction are missing or wrong. MEDEC's script
    drops such a line, so an evaluation does; a model that was trained on the game says no more."""


def prepare_device(config: DictConfig) -> str:
    """Set the environment that vLLM needs, before torch is imported; "cpu" or "cuda".

    Raises ConfigError where the configuration is for the device that this machine does not run.
    """
    from medserl.cpu.environment import choose_device, common_environment, cpu_environment

    device, here = choose_device(config.medserl.device), choose_device()
    if device != here:
        raise ConfigError(
            f"medserl.device: the configuration is for {device}, this machine runs {here}; choose another --config "
            f"or set medserl.device={here}"
        )
    parts = config.actor_rollout_ref
    threads = threads_for(parts.model.path, int(parts.rollout.tensor_model_parallel_size))
    os.environ.update(cpu_environment(threads=threads) if device == "cpu" else common_environment())
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.update(ON_LOOPBACK)
    return device


def engine_options(config: DictConfig) -> dict[str, Any]:
    """Arguments of ``vllm.LLM`` from the rollout section of a training configuration."""
    from omegaconf import OmegaConf

    rollout: Any = OmegaConf.to_container(config.actor_rollout_ref.rollout, resolve=True)
    options = {key: rollout[key] for key in _ROLLOUT_KEYS if rollout.get(key) is not None}
    options["tensor_parallel_size"] = options.pop("tensor_model_parallel_size", 1)
    extra = (rollout.get("engine_kwargs") or {}).get("vllm") or {}
    return {**options, **{key: value for key, value in extra.items() if value is not None}}


def fit_to_prompts(options: dict[str, Any], model: dict[str, Any], longest: int) -> dict[str, Any]:
    """``options`` with room for sequences of ``longest`` tokens.

    A training configuration's limits are those of its own notes. ``model`` is config.json. Without chunked
    prefill vLLM wants a whole prompt in one batch; a fixed cache must hold one whole sequence at least.
    """
    fitted = {**options, "max_model_len": longest}
    if fitted.get("enable_chunked_prefill") is False:
        fitted["max_num_batched_tokens"] = max(longest, fitted.get("max_num_batched_tokens") or 0)
    if fitted.get("kv_cache_memory_bytes") is not None:
        room = _CACHED_SEQUENCES * (longest + _BLOCK) * _bytes_per_token(model, str(fitted.get("dtype")))
        fitted["kv_cache_memory_bytes"] = max(room, fitted["kv_cache_memory_bytes"])
    return fitted


def _bytes_per_token(model: dict[str, Any], dtype: str) -> int:
    """Keys and values of one token in every layer; 0 where config.json does not tell."""
    attention = model.get("num_attention_heads") or 0
    heads = model.get("num_key_value_heads") or attention
    head_dim = model.get("head_dim") or (model.get("hidden_size") or 0) // max(attention, 1)
    return 2 * (model.get("num_hidden_layers") or 0) * heads * head_dim * _BYTES.get(dtype, 2)


class Chat:
    """A model behind vLLM as a function from conversations to replies, one each.

    Args:
        model: Its directory.
        options: Of `engine_options`.
        decoding: How replies are drawn; each reply has a seed of its own.
        expected: Conversations that will be asked, or others as long.

    Raises:
        ConfigError: none of them fits, and as `assess`.
    """

    def __init__(
        self, model: Path, options: dict[str, Any], decoding: Decoding, expected: Sequence[Sequence[Message]]
    ) -> None:
        self._tokenizer, self._decoding, self._asked = load_tokenizer(model, decoding.thinking), decoding, 0
        settings = text_config(model, f"--model {model}")
        lengths = [len(_prompt_ids(self._tokenizer, chat, decoding.thinking)) for chat in expected]
        limit = int(settings.get("max_position_embeddings") or 2**31)
        fitting = that_fit(lengths, decoding.max_tokens, limit)
        self._longest = max(lengths[index] for index in fitting)
        self._llm = _start(model, fit_to_prompts(options, settings, self._longest + decoding.max_tokens), decoding.seed)

    def __call__(self, chats: Sequence[Sequence[Message]]) -> list[str]:
        """The replies; an empty one where the conversation is longer than those that were expected."""
        prompts = [_prompt_ids(self._tokenizer, chat, self._decoding.thinking) for chat in chats]
        chosen = [index for index, ids in enumerate(prompts) if len(ids) <= self._longest]
        decoding = replace(self._decoding, seed=self._decoding.seed + self._asked)
        self._asked += len(chosen)
        replies = [""] * len(prompts)
        for index, own in zip(chosen, _generate(self._llm, [prompts[i] for i in chosen], decoding), strict=True):
            replies[index] = own[0].text
        return replies


def assess(
    model: Path,
    chats: Sequence[Sequence[Message]],
    sentence_counts: Sequence[int],
    options: dict[str, Any],
    decoding: Decoding,
    kept: KeptAnswers,
) -> list[tuple[Vote, ...]]:
    """``decoding.samples`` parsed replies per chat, in order.

    What ``kept`` holds is not asked for again, and what comes is kept there, some hundred replies at a time. A prompt
    that does not fit the model gets replies that do not parse, with the reason `TOO_LONG`. Raises ConfigError where
    none fits, and for a model directory without a usable tokenizer or chat template, or that vLLM refuses.
    """
    tokenizer = load_tokenizer(model, decoding.thinking)
    settings = text_config(model, f"--model {model}")
    prompts = [_prompt_ids(tokenizer, chat, decoding.thinking) for chat in chats]
    opened = [opens_thinking(tokenizer.decode(ids[-PROMPT_TAIL:])) for ids in prompts]
    limit = int(settings.get("max_position_embeddings") or 2**31)
    fitting = that_fit([len(ids) for ids in prompts], decoding.max_tokens, limit)
    votes = [(Vote(None, failure=TOO_LONG),) * decoding.samples for _ in prompts]
    longest = max(len(prompts[index]) for index in fitting) + decoding.max_tokens
    left = [(place, index) for place, index in enumerate(fitting) if index not in kept.votes]
    llm = None
    if left:
        each = "" if decoding.samples == 1 else f", {decoding.samples} replies each"
        logger.info("asking about %s%s", counted(len(left), "text"), each)
        llm = _start(model, fit_to_prompts(options, settings, longest), decoding.seed)
    for part in batched(left, max(1, _KEPT_AT_ONCE // decoding.samples)):
        chosen = [prompts[index] for _, index in part]
        replies = _generate(llm, chosen, decoding, [place for place, _ in part])
        drafts = [
            [_vote(reply, decoding, sentence_counts[index], opened[index]) for reply in own]
            for (_, index), own in zip(part, replies, strict=True)
        ]
        found = _with_probabilities(llm, tokenizer, chosen, replies, drafts)
        kept.keep({index: tuple(own) for (_, index), own in zip(part, found, strict=True)})
    for index in fitting:
        votes[index] = kept.votes[index]
    return votes


def that_fit(lengths: Sequence[int], max_tokens: int, limit: int) -> list[int]:
    """Places of the prompts that leave room for a reply.

    Args:
        lengths: Tokens of each prompt.
        max_tokens: Of a reply.
        limit: Of the model, for both together.

    Raises:
        ConfigError: there is none: every text would count as a failure, without a word of the model.
    """
    found = [index for index, length in enumerate(lengths) if length + max_tokens <= limit]
    if not found:
        raise ConfigError(
            f"--max-tokens: {max_tokens} tokens of a reply leave {max(limit - max_tokens, 0)} of the model's {limit} "
            f"for a prompt, and the shortest has {min(lengths)}; ask for fewer (--max-tokens), or use a model with a "
            "longer context"
        )
    return found


def load_tokenizer(model: Path, thinking: bool) -> Any:
    """The tokenizer of a model's directory; ConfigError where it, or its chat template, cannot be used."""
    from transformers import AutoTokenizer

    settings = text_config(model, f"--model {model}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise what they like for a damaged file
        raise ConfigError(f"--model {model}: {tokenizer_fault(model, error)}") from None
    if not tokenizer.chat_template:
        raise ConfigError(
            f"--model {model}: its tokenizer has no chat template; use an instruction-tuned model, or put its "
            "chat_template.jinja there"
        )
    check_chat_template(tokenizer, model, "--model", {"enable_thinking": thinking})
    check_thinking(tokenizer, model, "--model", thinking)
    check_vocabulary(tokenizer, model, "--model", settings)
    return tokenizer


def _prompt_ids(tokenizer: Any, chat: Sequence[Message], thinking: bool) -> list[int]:
    text = rendered(tokenizer, chat, f"--model: {tokenizer.name_or_path}", {"enable_thinking": thinking})
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _start(model: Path, options: dict[str, Any], seed: int) -> Any:
    from vllm import LLM

    logger.info("starting vLLM on %s", model)
    try:
        return LLM(model=str(model), tokenizer=str(model), seed=seed, **options)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        raise ConfigError(f"--model {model}: vLLM cannot start it ({refusal(error)})") from error


def refusal(error: Exception) -> str:
    """Why vLLM refuses, in a phrase: pydantic's errors have it behind their first line, before their own remarks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "validation error" in lines[0] and len(lines) > 1:
        found = re.sub(r"\s*\[type=.*", "", " ".join(lines[1:]))
        return _shortened(found.removeprefix("Value error, "))
    return _shortened(lines[0])


def _shortened(reason: str) -> str:
    """As many whole sentences of it as fit, at least its beginning."""
    if len(reason) <= _LONGEST:
        return reason
    return reason[: reason.rfind(". ", 0, _LONGEST) + 1] or f"{reason[:_LONGEST]} …"


def _generate(
    llm: Any, prompts: Sequence[list[int]], decoding: Decoding, places: Sequence[int] | None = None
) -> list[list[Any]]:
    """vLLM's completions per prompt; each request has a seed of its own by its place, so the batch plays no part."""
    from vllm import SamplingParams

    params = [
        SamplingParams(
            n=decoding.samples,
            temperature=decoding.temperature,
            max_tokens=decoding.max_tokens,
            # vLLM gives the request's n replies the seeds from this one on.
            seed=None if decoding.temperature == 0 else decoding.seed + place * decoding.samples,
        )
        for place in (range(len(prompts)) if places is None else places)
    ]
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], params, use_tqdm=True)
    return [list(output.outputs) for output in outputs]


def _vote(reply: Any, decoding: Decoding, sentence_count: int, opened: bool) -> Vote:
    vote = parse_vote(reply.text, decoding.output_format, sentence_count, opened, decoding.verdict_alone)
    return replace(vote, tokens=len(reply.token_ids), cut=reply.finish_reason == "length")


def _with_probabilities(
    llm: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    replies: Sequence[Sequence[Any]],
    drafts: Sequence[Sequence[Vote]],
) -> list[list[Vote]]:
    """``drafts`` with p(INCORRECT) at the verdict's first token, given the reply up to there.

    Asked for in a second pass that generates one token per reply: log-probabilities of 20 candidates at every
    token of a long reply would be most of the work and of the memory.
    """
    from vllm import SamplingParams

    found = [list(own) for own in drafts]
    asked: list[tuple[int, int, VerdictPlace]] = []
    stems = []
    for row, (prompt, own) in enumerate(zip(prompts, replies, strict=True)):
        for column, reply in enumerate(own):
            ids = list(reply.token_ids)
            alone = found[row][column].form is Form.BARE
            place = dressed_place([tokenizer.decode([token]) for token in ids], alone)
            if place is not None and place.label is found[row][column].answer:
                asked.append((row, column, place))
                stems.append({"prompt_token_ids": prompt + ids[: place.token]})
    if not stems:
        return found
    logger.info("computing the probabilities of %d verdicts", len(stems))
    params = SamplingParams(temperature=0, max_tokens=1, logprobs=ALTERNATIVES)
    outputs = llm.generate(stems, params, use_tqdm=True)
    for (row, column, place), output in zip(asked, outputs, strict=True):
        candidates = output.outputs[0].logprobs[0]
        texts = {tokenizer.decode([token]): value.logprob for token, value in candidates.items()}
        p_incorrect = probability_incorrect(texts, place.before, place.quoted)
        found[row][column] = replace(found[row][column], p_incorrect=p_incorrect)
    return found
