"""What transformers says of a model's files that it cannot load, in a phrase. It imports torch where that is there."""

from __future__ import annotations

import re
from pathlib import Path

CONFIG = "config.json"
_LONGEST = 200


def config_fault(path: Path | str) -> str | None:
    """Why transformers cannot load a model's config.json, with what to do; None where it can, or there is none."""
    from transformers import AutoConfig

    if not (Path(path) / CONFIG).is_file():
        return None
    try:
        AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers and huggingface_hub raise what they like
        return f"its {CONFIG} cannot be loaded ({_reason(error)}); copy the model's own file"
    return None


def tokenizer_fault(path: Path | str, error: Exception) -> str:
    """What is wrong where the tokenizer of a model cannot be loaded: with it transformers loads config.json.

    Args:
        path: The model's directory, or its name.
        error: What was raised.
    """
    if (told := config_fault(path)) is not None:
        return told
    return f"has no usable tokenizer ({_reason(error)}); copy the model's tokenizer files"


def _reason(error: Exception) -> str:
    """The line of an error that says something: of a validation it is the second, behind the validator's name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    line = lines[1] if lines[0].endswith(":") and len(lines) > 1 else lines[0]
    line = re.sub(r"^\w+Error: ", "", line).partition(". Errors: ")[0].rstrip(".")
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
