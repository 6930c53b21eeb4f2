"""Token lengths of the game's prompts in a model's own tokenizer. No torch; transformers for the tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medserl.config.chat_template import check_chat_template, rendered
from medserl.config.load import DEFAULT_CONFIG, REAL_CONFIG, game_settings, load_config
from medserl.config.loadable import tokenizer_fault
from medserl.config.model_at_hand import MODEL_KEYS, named_model, of_the_ward
from medserl.config.quoting import literal
from medserl.errors import ConfigError
from medserl.game.labels import Mode
from medserl.game.prompts import Message, PromptSet, load_prompt_set
from medserl.run.weights import stranger

# An accepted edit may lengthen a note: the assessor's prompt needs this much room beyond the original's.
TOKENS_PER_EDITED_WORD = 4


class Prompt(NamedTuple):
    """A prompt that the game can make."""

    kind: str
    messages: list[Message]
    grows: bool
    """Whether an edit can lengthen it."""


def load_tokenizer(path: str | Path, key: str = "actor_rollout_ref.model.path") -> Any:
    """The tokenizer of a model's folder or of a model in the local cache; nothing is downloaded.

    Raises ConfigError, naming ``key``, where there is none or where it has no chat template.
    """
    from transformers import AutoTokenizer

    if (told := stranger(Path(path))) is not None:
        raise ConfigError(f"{key}: {path} {told}")
    if not Path(path).is_dir() and (Path(path).is_absolute() or not _cached(str(path))):
        raise ConfigError(f"{key}: {path}: no such folder, and no model of that name in the local cache")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise what they like for a damaged file
        raise ConfigError(f"{key}: {path}: {tokenizer_fault(path, error)}") from None
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{key}: {path}: its tokenizer has no chat template; use an instruction-tuned model, or put its "
            "chat_template.jinja there"
        )
    return tokenizer


def _cached(name: str) -> bool:
    """Whether a model of that name is in Hugging Face's local cache; nothing is asked of the hub."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:  # no name of a model: a path
        return False


def token_lengths(
    tokenizer: Any, prompts: Sequence[Sequence[Message]], template_options: Mapping[str, Any], where: str
) -> list[int]:
    """Number of tokens of each prompt, the generation prompt included; ``where`` is for `rendered`, which may raise."""
    texts = [rendered(tokenizer, messages, where, template_options) for messages in prompts]
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]


def note_prompts(
    prompts: PromptSet,
    text: str,
    error_text: str | None,
    injector_format: str,
    error_types: Sequence[str] = (),
) -> Iterator[Prompt]:
    """Every prompt that the game can make of a note: both modes, each error type, the edited note, the gold error."""
    kinds = [(mode, None) for mode in Mode] + [(Mode.ERROR, name) for name in error_types]
    for mode, error_type in kinds:
        messages = prompts.injector(text, mode, injector_format, error_type)
        yield Prompt(f"injector ({error_type or mode.value})", messages, False)
    yield Prompt("assessor", prompts.assessor(text), True)
    if error_text is not None:
        yield Prompt("assessor (gold error)", prompts.assessor(error_text), False)


class PromptCounter:
    """The prompts of a configuration, and how long they are.

    Attributes:
        tokenizer_name: Where the tokenizer comes from.
        prompt_set: Name of the prompt set.
        injector_format: Format of the injector's replies that the prompts ask for.
        limit: ``data.max_prompt_length``; None where only a tokenizer was named.
        slack: Tokens by which an edit may lengthen a prompt.
    """

    def __init__(
        self,
        tokenizer: Any,
        tokenizer_name: str,
        prompts: PromptSet,
        *,
        limit: int | None = None,
        injector_format: str = "edit",
        slack: int = 0,
        template_options: Mapping[str, Any] | None = None,
        key: str = "--model",
    ) -> None:
        self.tokenizer_name, self.limit, self.slack = tokenizer_name, limit, slack
        self.prompt_set, self.injector_format = prompts.name, injector_format
        self._tokenizer, self._prompts = tokenizer, prompts
        self._where = f"{key}: {tokenizer_name}"
        self._options = {"enable_thinking": False} if template_options is None else dict(template_options)
        check_chat_template(tokenizer, tokenizer_name, key, self._options)

    def prompts(self, text: str, error_text: str | None) -> list[Prompt]:
        """See `note_prompts`."""
        return list(note_prompts(self._prompts, text, error_text, self.injector_format))

    def assessor(self, text: str) -> Prompt:
        """The prompt for a text that nobody edits."""
        return Prompt("assessor (gold error)", self._prompts.assessor(text), False)

    def needed(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens that each prompt needs, room for an edit included where it can grow."""
        lengths = token_lengths(self._tokenizer, [prompt.messages for prompt in prompts], self._options, self._where)
        return [length + (self.slack if prompt.grows else 0) for length, prompt in zip(lengths, prompts, strict=True)]


def prompt_counter(
    config_name: str | None, model: Path | None, overrides: Sequence[str], notes: Path, prompt_set: str | None = None
) -> PromptCounter:
    """The counter for ``medserl data stats``.

    The configuration says tokenizer, prompt set and injector format: the one that is named, or else the one that a run
    with the model would take by itself. A model alone gives lengths without a limit.

    Raises:
        ConfigError: an unknown configuration, key, prompt set or tokenizer.
    """
    source = literal("medserl.notes.path", str(notes), "medserl data stats")
    given = [literal(MODEL_KEYS[0], str(model), "--model")] if model is not None else []
    named = str(model) if model is not None else named_model(overrides)
    by_model = REAL_CONFIG if named is not None and not of_the_ward(named) else DEFAULT_CONFIG
    config = load_config(config_name or by_model, [source, "medserl.notes.source=files", *given, *overrides])
    settings = game_settings(config)
    prompts = load_prompt_set(prompt_set or settings.prompt_set)
    prompts.check_format(settings.injector_format)
    path = str(model or config.actor_rollout_ref.model.path)
    alone = model is not None and config_name is None and not overrides
    key = "--model" if model else "actor_rollout_ref.model.path"
    return PromptCounter(
        load_tokenizer(path, key),
        path,
        prompts,
        limit=None if alone else int(config.data.max_prompt_length),
        injector_format=settings.injector_format,
        slack=0 if alone else TOKENS_PER_EDITED_WORD * settings.vcf.max_word_edits,
        template_options=dict(config.data.apply_chat_template_kwargs),
        key=key,
    )
