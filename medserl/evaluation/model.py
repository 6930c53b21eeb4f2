"""The model of an evaluation: where it lies, and whether its files can be what they say. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medserl.errors import ConfigError
from medserl.files import read_json, sha256_of_folder
from medserl.run import checkpoint
from medserl.run.weights import DamagedWeights, stranger, weight_shapes

BUILTIN_MODEL = "builtin:ward"


def model_directory(name: str | None) -> Path:
    """Where the model lies: the package's own, a directory, or a hub name that is in the local cache.

    Raises ConfigError where it is nowhere, or where the directory holds no model. Nothing is downloaded.
    """
    if not name:
        raise ConfigError(f"--model: say which model: a directory, a hub name or {BUILTIN_MODEL}")
    if name == BUILTIN_MODEL:
        from medserl.ward import model_dir

        return model_dir()
    path = Path(name)
    if (told := stranger(path)) is not None:
        raise ConfigError(f"--model {name}: {told}")
    if not path.is_dir():
        path = _cached(name)
    if not (path / "config.json").is_file():
        raise ConfigError(f"--model {name}: has no config.json; give a Hugging Face model directory")
    if not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
        raise ConfigError(f"--model {name}: has no weights (*.safetensors); copy the whole model again")
    return path


def _cached(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError, OSError):
        raise ConfigError(
            f"--model {name}: is not a directory, and no model of that name is in the Hugging Face cache; "
            "fetch it first (nothing is downloaded here)"
        ) from None


def check_files(directory: Path, name: str) -> None:
    """Raise ConfigError for weights that are cut, missing or none, and for those of a checkpoint that are not what was
    written: vLLM would start and fail, or answer with other weights.

    Args:
        directory: The model's.
        name: What the sentence calls it.
    """
    text_config(directory, name)
    if any(directory.glob("*.safetensors")):
        try:
            weight_shapes(directory)
        except DamagedWeights as error:
            raise ConfigError(f"{name}: {error}; copy the model again") from None
        except OSError as error:
            raise ConfigError(f"{name}: cannot be read ({error.strerror}); give a model that you may read") from None
    inside = checkpoint.enclosing(directory)
    if inside is not None and (reason := checkpoint.damage(inside, below=directory)):
        raise ConfigError(f"{name}: its checkpoint {inside.name} is damaged: {reason}; choose another one")


def text_config(directory: Path, name: str) -> dict[str, Any]:
    """config.json; of a model of several kinds of input, the part about text. ConfigError where it is damaged."""
    file = directory / "config.json"
    try:
        settings = read_json(file)
        found = settings.get("text_config") or settings
        int(found.get("max_position_embeddings") or 0)
        if not isinstance(found, dict):
            raise TypeError("no object")
        kind = settings.get("model_type")
    except OSError as error:
        raise ConfigError(f"{name}: {file.name} cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise ConfigError(f"{name}: {file.name} is not a model's configuration; copy the model again") from None
    if not isinstance(kind, str):
        raise ConfigError(f"{name}: {file.name} has no model_type; copy the model's own file")
    return found


def model_sha256(directory: Path) -> str:
    """SHA-256 over names and contents of a model's configuration, weights and tokenizer."""
    return sha256_of_folder(directory, (".json", ".safetensors", ".bin"))
