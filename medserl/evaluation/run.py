"""One evaluation from its settings to its results. Starts vLLM; nothing heavy is imported before that."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.config.values import MAX_SEED
from medserl.errors import ConfigError, Problems, all_told
from medserl.evaluation import engine
from medserl.evaluation.data import EvaluationData
from medserl.evaluation.kept import KeptAnswers
from medserl.evaluation.model import check_files, model_directory, model_sha256
from medserl.evaluation.votes import FORMATS, majority
from medserl.game.labels import Label
from medserl.game.prompts import Message, PromptSet, load_prompt_set
from medserl.ward.language import is_ward_model

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from medserl.evaluation.summary import Scored

logger = logging.getLogger("medserl.evaluate")
WARD_PROMPTS = "ward"
MOST_SAMPLES = 1000  # replies to a note: their votes are held in memory, and they are asked for at once
FULL_TOKENS = 256  # a sentence of a real note, with the two other lines; thinking has its own, larger limit
_CPU_CONFIG, _REAL_CONFIG, _GPU_CONFIG = "embedded", "real_cpu", "qwen3_4b_1node"


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; None is the default."""

    model: str | None
    data: tuple[str, ...] = ()
    count: int | None = None
    seed: int = 0
    output_format: str = "flag"
    samples: int = 1
    temperature: float | None = None
    max_tokens: int | None = None
    prompt_set: str | None = None
    thinking: bool | None = None
    config: str | None = None
    overrides: tuple[str, ...] = ()


def check_request(request: Request) -> float:
    """The temperature (greedy for one reply, 1.0 for several); UserError for all that contradicts itself."""
    temperature = request.temperature
    if temperature is None:
        temperature = 0.0 if request.samples == 1 else 1.0
    with all_told() as found:
        for sentence in _contradictions(request, temperature):
            found.add(ConfigError(sentence))
    return temperature


def _contradictions(request: Request, temperature: float) -> Iterator[str]:
    if request.output_format not in FORMATS:
        yield f"--format {request.output_format}: is not one of {', '.join(FORMATS)}"
    if not 1 <= request.samples <= MOST_SAMPLES:
        yield f"--samples: {request.samples} is not between 1 and {MOST_SAMPLES}"
    if not 0 <= request.seed <= MAX_SEED:
        yield f"--seed: {request.seed} is not between 0 and {MAX_SEED}"
    if request.max_tokens is not None and request.max_tokens < 1:
        yield f"--max-tokens: {request.max_tokens} is less than 1"
    if not 0.0 <= temperature <= 5.0:
        yield f"--temperature: {temperature} is not between 0 and 5"
    if request.samples > 1 and temperature == 0:
        yield "--temperature: 0 gives the same reply every time; leave --samples out or raise it"


def default_config(model: str | None = None) -> str:
    """Name of the configuration without ``--config``."""
    from medserl.config.model_at_hand import of_the_ward
    from medserl.cpu.environment import choose_device

    if choose_device() != "cpu":
        return _GPU_CONFIG
    return _CPU_CONFIG if model is None or of_the_ward(model) else _REAL_CONFIG


def engine_config(request: Request, problems: Problems | None = None) -> DictConfig:
    """The training configuration whose engine settings, prompt set and token limit serve as defaults.

    Without ``--config``: where there is no GPU, the one for the ward's tiny model or for small real ones; where there
    is one, that of a GPU node. All with one worker process.
    """
    from medserl.config.load import load_config

    overrides = ["medserl.notes.path=null", "medserl.notes.source=auto", *_model_override(request), *request.overrides]
    if request.config is not None:
        return load_config(request.config, overrides, problems=problems)
    alone = "actor_rollout_ref.rollout.tensor_model_parallel_size=1"
    return load_config(default_config(request.model), [alone, *overrides], problems=problems)


def _model_override(request: Request) -> list[str]:
    """The prompt set may follow from the model."""
    if not request.model:
        return []
    quoted = request.model.replace("\\", "\\\\").replace("'", "\\'")
    return [f"actor_rollout_ref.model.path='{quoted}'"]


@dataclass(frozen=True)
class Ready:
    """A request that was looked at: everything that it names is there."""

    request: Request
    temperature: float
    directory: Path
    """The model's."""
    config: DictConfig
    device: str
    prompt_set: str
    """Its name, or its folder."""
    prompts: PromptSet
    thinking: bool


def looked_at(request: Request, problems: Problems) -> Ready:
    """Look at everything that a request names, and tell what is wrong with it, and what was found before, at once.

    Args:
        request: What is asked for.
        problems: What the caller has found.

    Raises:
        UserError: all of: a model, prompt set or setting that cannot work.
    """
    temperature = directory = prompts = None
    with problems.noted():
        temperature = check_request(request)
    with problems.noted():
        directory = model_directory(request.model)
        check_files(directory, f"--model {request.model}")
    ward_model = directory is not None and is_ward_model(directory)
    thinking = bool(request.thinking)
    config, prompt_set, device = None, request.prompt_set or (WARD_PROMPTS if ward_model else None), None
    with problems.noted():
        config = engine_config(request, problems)
        prompt_set = str(prompt_set or config.medserl.prompt_set)
        if request.thinking is None:
            thinking = bool(config.medserl.thinking and not ward_model)
    with problems.noted():
        if prompt_set is not None:
            prompts = load_prompt_set(prompt_set)
            if request.output_format == "full":
                prompts.assessor_full("", [])
    with problems.noted():
        if config is not None:
            device = engine.prepare_device(config)  # before the tokenizer's library imports torch
    with problems.noted():
        if directory is not None and config is not None:
            engine.load_tokenizer(directory, thinking)
    problems.tell()
    assert temperature is not None and directory is not None and config is not None
    assert device is not None and prompt_set is not None and prompts is not None
    return Ready(request, temperature, directory, config, device, str(prompt_set), prompts, thinking)


def evaluate(
    ready: Ready, data: EvaluationData, command: Sequence[str], kept: KeptAnswers
) -> tuple[dict[str, Any], list[Scored]]:
    """Run it.

    Args:
        ready: What is asked for.
        data: The texts.
        command: The command line, for the record.
        kept: Keeps the answers until the caller has written the results.

    Returns:
        What results.json holds, and the scored examples.

    Raises:
        UserError: no text leaves room for a reply, or vLLM refuses the model.
    """
    request, config, directory = ready.request, ready.config, ready.directory
    made_by = _provenance(command)
    chats = [_chat(ready.prompts, request.output_format, example) for example in data.examples]
    decoding = engine.Decoding(
        output_format=request.output_format,
        samples=request.samples,
        temperature=ready.temperature,
        max_tokens=request.max_tokens or token_limit(config, request.output_format),
        seed=request.seed,
        thinking=ready.thinking,
    )
    options = engine.engine_options(config)
    model = model_sha256(directory)
    started = time.monotonic()
    kept.take_up([model, chats, options, asdict(decoding)], len(chats), decoding.samples)
    replies = engine.assess(directory, chats, [len(e.sentences) for e in data.examples], options, decoding, kept)
    seconds = time.monotonic() - started

    from medserl.evaluation.summary import Scored, summarise

    scored = [Scored(e, own, majority(own)) for e, own in zip(data.examples, replies, strict=True)]
    settings = {
        "format": request.output_format,
        "prompt_set": ready.prompt_set,
        "prompt_sha256": _prompt_sha256(ready.prompts, request.output_format),
        "samples": request.samples,
        "temperature": ready.temperature,
        "max_tokens": decoding.max_tokens,
        "thinking": decoding.thinking,
        "seed": request.seed,
        "bootstrap_seed": request.seed,
        "device": ready.device,
        "config": request.config or default_config(request.model),
        "overrides": list(request.overrides),
        "engine": options,
        "seconds": round(seconds, 2),
    }
    results = {**made_by, **_what(request, directory, model, data, scored), "settings": settings}
    return {**results, **summarise(scored, request.output_format, request.seed)}, scored


def _chat(prompts: PromptSet, output_format: str, example: Any) -> list[Message]:
    if output_format == "flag":
        return prompts.assessor(example.text)
    return prompts.assessor_full(example.text, example.sentences)


def token_limit(config: DictConfig, output_format: str) -> int:
    """Most tokens of a reply where a command line does not say."""
    limit = int(config.data.max_response_length)
    return limit if output_format == "flag" else max(limit, FULL_TOKENS)


def _prompt_sha256(prompts: PromptSet, output_format: str) -> str:
    note = "First sentence. Second sentence."
    chat = prompts.assessor(note) if output_format == "flag" else prompts.assessor_full(note, note.split(" S"))
    return hashlib.sha256(json.dumps(chat, sort_keys=True).encode()).hexdigest()


def _provenance(command: Sequence[str]) -> dict[str, Any]:
    from medserl.evaluation.results import FORMAT_VERSION
    from medserl.provenance import provenance

    record = provenance("", [])
    del record["config"], record["overrides"]
    return {"format_version": FORMAT_VERSION, "command": list(command), **record}


def _what(
    request: Request, directory: Path, sha256: str, data: EvaluationData, scored: Sequence[Scored]
) -> dict[str, Any]:
    too_long = sum(item.votes[0].failure == engine.TOO_LONG for item in scored)
    notes = list(data.notes)
    if too_long:
        notes.append(f"{too_long} prompts did not fit the model and count as failures")
    return {
        "model": {"name": str(request.model), "path": str(directory), "sha256": sha256},
        "data": {
            "source": data.source,
            "sha256": data.sha256,
            "texts": len(data.examples),
            "incorrect": sum(example.label is Label.INCORRECT for example in data.examples),
            "notes": notes,
        },
    }
