"""Whether a model directory can be trained: its config.json, weights, tokenizer and chat template. No torch."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from medserl.config.loadable import config_fault
from medserl.config.settings import BUILTIN_MODEL
from medserl.errors import ConfigError, DataError, Problems
from medserl.families import FAMILIES, family_of, obstacle
from medserl.files import read_json
from medserl.planning.shapes import shape_of
from medserl.run.run_dir import FINISHED_FILE
from medserl.run.weights import DamagedWeights, index_misfit, indexed, misfit, stranger, weight_shapes
from medserl.ward.language import LEAST_KNOWN, is_ward_model, known_share

_log = logging.getLogger("medserl.data")
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
        raise ConfigError(f"{key}: {value!r} is not a path; give a local model directory")
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
        if (told := stranger(path)) is not None:
            raise ConfigError(f"{key}: {path} {told}")
        if not path.is_dir():
            raise ConfigError(f"{key}: {path} is not a directory; give a local model directory (nothing is downloaded)")
        model = read_json(file)
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
        raise ConfigError(f"{key}: {file} is not a model's configuration; copy the model's own file there")
    architectures = model.get("architectures") or []
    if not isinstance(architectures, list):
        raise ConfigError(f"{key}: {file}: architectures is not a list; copy the model's own file there")
    if family_of(model) is None:
        found = ", ".join(map(str, architectures)) or "no architecture"
        raise ConfigError(f"{key}: {path} holds {found}; MedSeRL trains {', '.join(FAMILIES)}; use one of these")
    for name in (*NUMBERS, *((CONTEXT,) if CONTEXT in model else ())):
        value = model.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            told = "is missing" if value is None else f"is {value!r}"
            raise ConfigError(
                f"{key}: {file}: {name} {told}, a whole number above 0 is needed; copy the model's own file"
            )
    if not isinstance(model.get("model_type"), str):
        raise ConfigError(f"{key}: {file}: model_type is missing; copy the model's own file")
    if reason := obstacle(model):
        raise ConfigError(f"{key}: {file}: {reason}; use another model")
    return model


def look_at_model(value: Any, key: str, found: Problems) -> dict[str, Any] | None:
    """config.json of a model directory that a start names, the directory's files looked at.

    Args:
        value: What stands in the configuration.
        key: The key that names it.
        found: Takes what is wrong.

    Returns:
        Its content; None where it cannot be used, so that nothing can be said of weights, layout and tokenizer, which
        transformers loads with it.
    """
    path, model = None, None
    with found.noted():
        path = model_path(value, key)
        described = read_model_config(path, key)
        shape_of(described, f"{key}: {path / 'config.json'}")
        if (fault := config_fault(path)) is not None:
            raise ConfigError(f"{key}: {path}: {fault}")
        model = described
    if path is not None and path.is_dir() and stranger(path) is None:
        check_files(path, key, model, found)
    return model


def has_tokenizer(path: Path) -> bool:
    """Whether a model directory holds a tokenizer."""
    return any((path / name).is_file() for name in ("tokenizer.json", "vocab.json"))


def check_files(path: Path, key: str, model: dict[str, Any] | None, found: Problems) -> None:
    """A model directory must hold a tokenizer and whole weights that fit config.json, where that can be read.

    Args:
        path: The directory, which is there.
        key: The key that names it.
        model: Its config.json.
        found: Takes what is wrong.
    """
    if check_present(path, key, found):
        with found.noted():
            check_weights(path, key, model)


def check_present(path: Path, key: str, found: Problems) -> bool:
    """A model directory must hold a tokenizer and weights, whatever is in them; returns whether there are weights."""
    if not has_tokenizer(path):
        found.add(
            ConfigError(f"{key}: {path} has no tokenizer (tokenizer.json); copy the model's tokenizer files there")
        )
    if any(file.is_file() for file in path.glob("*.safetensors")):
        return True
    old = "; *.bin is not read: save it again with transformers' save_pretrained" if any(path.glob("*.bin")) else ""
    found.add(ConfigError(f"{key}: {path} has no weights (*.safetensors){old or '; copy the whole model again'}"))
    return False


def check_weights(path: Path, key: str, model: dict[str, Any] | None) -> None:
    """The weights must be there in full and fit config.json, where that can be read.

    Raises:
        ConfigError: says what is damaged, or what does not fit.
    """
    try:
        shapes = weight_shapes(path)
        reason = misfit(shapes, model) if model is not None else None
        if model is not None and reason is None and (told := index_misfit(indexed(path), model)) is not None:
            raise DamagedWeights(told)
    except DamagedWeights as error:
        raise ConfigError(f"{key}: {path}: {error}; copy the model again") from None
    except OSError as error:
        raise ConfigError(
            f"{key}: {path}: cannot be read ({error.strerror}); give a directory that you may read"
        ) from None
    if reason is not None:
        raise ConfigError(f"{key}: {path}: {reason}; copy config.json and weights of one model")


def check_language(source: str | None, texts: list[str], model: Any, key: str, named: bool = False) -> None:
    """Notes of one's own teach the ward's tiny model nothing, nor it them: it reads the ward's few hundred words. Who
    names it all the same, to try the machinery, is warned.

    Args:
        source: The file of the notes; None: the ward's own.
        texts: Their texts.
        model: The model directory.
        key: The key that names it.
        named: Whether the user named the model.

    Raises:
        DataError: the model is the ward's without having been asked for, and the notes are in another language.
    """
    if source is None or not is_ward_model(str(model)) or (share := known_share(texts)) >= LEAST_KNOWN:
        return
    what = f"{source}: the model is the ward's tiny one ({key}), which knows {share:.0%} of the words of these notes"
    if named:
        _log.warning("%s and learns nothing from them; what comes out says nothing about the method", what)
        return
    raise DataError(
        f"{what} and would learn nothing from them; name a model of your own, --model DIR (docs/real-models.md says "
        f"which), or this one on purpose, --model {BUILTIN_MODEL}, to try the machinery"
    )


def tell_other_format(model: Path, injector_format: str) -> None:
    """A line where a model's warm start, whose record lies beside it, had the injector's replies in another format."""
    try:
        learnt = read_json(model.parent / FINISHED_FILE)["injector_format"]
    except (OSError, ValueError, LookupError, TypeError):  # no such record: most models come from elsewhere
        return
    if learnt != injector_format:
        _log.warning(
            "%s learnt the injector's format %s in its warm start and is asked for %s; medserl.injector_format=%s asks "
            "for what it knows",
            *(model, learnt, injector_format, learnt),
        )
