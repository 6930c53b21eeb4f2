"""Whether a model directory can be trained: its config.json, weights, tokenizer and chat template. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError
from medserl.families import FAMILIES, family_of, obstacle
from medserl.run.weights import DamagedWeights, misfit, weight_shapes

MODEL = "actor_rollout_ref.model.path"
NUMBERS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
CONTEXT = "max_position_embeddings"  # may be missing: then nothing is known of it


def model_path(value: Any, key: str) -> Path:
    """A model directory as a configuration names it; ConfigError where it names none."""
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{key}: {value!r} is no path; give a local model directory")
    return Path(value)


def read_model_config(path: Path, key: str) -> dict[str, Any]:
    """config.json of a model that MedSeRL trains, its numbers checked.

    Args:
        path: The model directory.
        key: The configuration key that names it, for the sentence.

    Raises:
        ConfigError: no directory, no config.json, another architecture, a number that is none.
    """
    file = path / "config.json"
    try:
        if not path.is_dir():
            raise ConfigError(f"{key}: {path} is not a directory; give a local model directory (nothing is downloaded)")
        model = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{key}: {path} has no config.json; give a Hugging Face model directory") from None
    except OSError as error:
        raise ConfigError(
            f"{key}: {file} cannot be read ({error.strerror}); give a directory that you may read"
        ) from None
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{key}: {file} is not JSON ({error})") from None
    if not isinstance(model, dict):
        raise ConfigError(f"{key}: {file} is no model's configuration; copy the model's own file there")
    architectures = model.get("architectures") or []
    if not isinstance(architectures, list):
        raise ConfigError(f"{key}: {file}: architectures is no list; copy the model's own file there")
    if family_of(model) is None:
        found = ", ".join(map(str, architectures)) or "no architecture"
        raise ConfigError(f"{key}: {path} holds {found}; MedSeRL trains {', '.join(FAMILIES)}")
    for name in (*NUMBERS, *((CONTEXT,) if CONTEXT in model else ())):
        value = model.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            told = "is missing" if value is None else f"is {value!r}"
            raise ConfigError(
                f"{key}: {file}: {name} {told}, a whole number above 0 is needed; copy the model's own file"
            )
    if reason := obstacle(model):
        raise ConfigError(f"{key}: {file}: {reason}; use another model")
    return model


def check_weights(path: Path, key: str, model: dict[str, Any]) -> None:
    """The weights must be there in full and fit config.json.

    Raises:
        ConfigError: says what is damaged, or what does not fit.
    """
    try:
        reason = misfit(weight_shapes(path), model)
    except DamagedWeights as error:
        raise ConfigError(f"{key}: {path}: {error}; copy the model again") from None
    except OSError as error:
        raise ConfigError(
            f"{key}: {path}: cannot be read ({error.strerror}); give a directory that you may read"
        ) from None
    if reason is not None:
        raise ConfigError(f"{key}: {path}: {reason}; copy config.json and weights of one model")


def check_chat_template(tokenizer: Any, path: Path | str, key: str, options: dict[str, Any]) -> None:
    """The chat template must render a system and a user message with their words in them.

    Raises:
        ConfigError: it is broken, refuses a role, or drops what it is given.
    """
    from jinja2.exceptions import TemplateError

    words = {"system": "first-probe", "user": "second-probe"}
    messages = [{"role": role, "content": word} for role, word in words.items()]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **options)
    except TemplateError as error:
        raise ConfigError(
            f"{key}: {path}: its chat template does not render the game's messages ({str(error).splitlines()[0]}); use "
            "a model whose template takes a system and a user message"
        ) from None
    if lost := [role for role, word in words.items() if word not in text]:
        raise ConfigError(
            f"{key}: {path}: its chat template drops the {' and the '.join(lost)} message; use another model"
        )
