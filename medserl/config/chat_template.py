"""Whether a tokenizer is its model's, and its chat template says what the game asks it to say. No torch; the tokenizer
is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError
from medserl.files import read_json
from medserl.game.reply import opens_thinking


def check_thinking(tokenizer: Any, path: Path | str, key: str, thinking: bool) -> None:
    """What is asked of a model's thinking, its chat template must be able to say.

    Raises:
        ConfigError: thinking is asked for and the template has no ``enable_thinking``; or it is not, and the template
            opens a thought all the same.
    """
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    on, off = (rendered(tokenizer, messages, f"{key}: {path}", {"enable_thinking": value}) for value in (True, False))
    if thinking and on == off and not opens_thinking(on):
        raise ConfigError(
            f"{key}: {path}: its chat template has no enable_thinking, so that the model does not think when asked to; "
            "leave medserl.thinking (evaluate: --thinking) off"
        )
    if not thinking and opens_thinking(off):
        raise ConfigError(
            f"{key}: {path}: its chat template has no enable_thinking and opens a thought in every reply; set "
            "medserl.thinking=true (evaluate: --thinking) and allow replies of some thousand tokens"
        )


def check_chat_template(tokenizer: Any, path: Path | str, key: str, options: dict[str, Any]) -> None:
    """The chat template must render a system and a user message with their words in them.

    Raises:
        ConfigError: it is broken, refuses a role, or drops what it is given.
    """
    words = {"system": "first-probe", "user": "second-probe"}
    messages = [{"role": role, "content": word} for role, word in words.items()]
    text = rendered(tokenizer, messages, f"{key}: {path}", options)
    if lost := [role for role, word in words.items() if word not in text]:
        raise ConfigError(
            f"{key}: {path}: its chat template drops the {' and the '.join(lost)} message; use another model"
        )


def rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], where: str, options: Mapping[str, Any]) -> str:
    """The prompt that a chat template makes of messages.

    Args:
        tokenizer: Has the template.
        messages: The conversation so far.
        where: The key that names the model, and its directory, for the sentence.
        options: The template's own.

    Raises:
        ConfigError: it cannot; some refuse only what is long, or what a probe does not hold.
    """
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True, **options))
    except Exception as error:  # jinja2's errors, and any that the template's own expressions raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{where}: its chat template does not render the game's messages ({first}); use a model whose template "
            "takes a system and a user message"
        ) from None


def check_vocabulary(tokenizer: Any, path: Path | str, key: str, model: dict[str, Any]) -> None:
    """The model, whose config.json is given, must have an embedding for each token of its tokenizer.

    Raises:
        ConfigError: it has fewer.
    """
    words = model.get("vocab_size")
    if isinstance(words, int) and len(tokenizer) > words:
        raise ConfigError(
            f"{key}: {path}: its tokenizer has {len(tokenizer)} tokens, its model {words}; copy tokenizer and weights "
            "of one model"
        )


def end_of_reply(tokenizer: Any) -> int | None:
    """The token that ends a reply: what the chat template writes behind one, where the model's servers stop at it.

    A tokenizer's end-of-sequence token may be that of pretraining (Qwen2.5's base models), or, in a converted model,
    one that begins a turn; generation_config.json says at which others vLLM stops.

    Returns:
        Its id; the tokenizer's own end-of-sequence token where the template writes none; None where there is neither.
    """
    own: int | None = tokenizer.eos_token_id
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "reply-probe"}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template that knows no assistant; jinja2's and the template's own errors
        return own
    behind = tokenizer.encode(text.rpartition("reply-probe")[2].lstrip(), add_special_tokens=False)
    return behind[0] if behind and behind[0] in {own, *_stops(Path(str(tokenizer.name_or_path)))} else own


def _stops(folder: Path) -> list[int]:
    """Tokens at which generation_config.json says that a reply ends."""
    try:
        found = read_json(folder / "generation_config.json").get("eos_token_id")
    except (OSError, ValueError, AttributeError):
        return []
    return found if isinstance(found, list) else [found]
