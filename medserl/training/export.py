"""A checkpoint as a Hugging Face model directory. No torch: verl writes the weights of every TP x PP layout in
Hugging Face's format into each checkpoint (``actor/model/huggingface``, verl 0.9.1, megatron_checkpoint_manager.py),
so an export is a checked copy."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

from medserl import __version__
from medserl.errors import ConfigError
from medserl.files import write_atomically
from medserl.run import checkpoint

RECORD = "medserl_export.json"
NEEDED = ("config.json", "tokenizer.json")
_WEIGHTS_INSIDE = ("actor/model/huggingface", "model/huggingface")  # of `medserl train`, of `medserl sft`


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the best, else the newest usable one of a run directory.

    Raises:
        ConfigError: there is none.
    """
    if (path / checkpoint.MANIFEST).exists() or path.name.startswith(checkpoint.STEP_PREFIX):
        if not path.is_dir():
            raise ConfigError(f"checkpoint {path}: no such directory")
        return path
    for root in (path, path / "checkpoints"):
        marked = checkpoint.best(root)
        if marked is not None and (chosen := root / f"{checkpoint.STEP_PREFIX}{marked['step']}").is_dir():
            return chosen
        newest, _ = checkpoint.latest_usable(root)
        if newest is not None:
            return newest
    raise ConfigError(
        f"{path}: neither a checkpoint nor a run directory with one; give RUN_DIR/checkpoints/global_step_N"
    )


def export_checkpoint(source: Path, out: Path, start: Path | None = None) -> Path:
    """Copy the weights of a checkpoint with tokenizer and configuration to ``out``, which appears whole or not at all.

    Args:
        source: A checkpoint directory (``global_step_N``).
        out: The directory to make; must not exist.
        start: Model directory that gives files which verl does not write, such as a licence.

    Raises:
        ConfigError: ``out`` exists, or the checkpoint is damaged or holds no weights.
    """
    if out.exists():
        raise ConfigError(f"{out}: exists; give another --out")
    if (source / checkpoint.MANIFEST).exists() and (reason := checkpoint.damage(source)):
        raise ConfigError(f"checkpoint {source} is damaged: {reason}; choose another one")
    weights = next((source / inside for inside in _WEIGHTS_INSIDE if (source / inside).is_dir()), None)
    if weights is None:
        raise ConfigError(f"checkpoint {source}: has no weights in Hugging Face's format ({_WEIGHTS_INSIDE[0]})")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(weights, temporary)
        if start is not None:
            for file in start.iterdir():
                if file.is_file() and file.suffix not in (".safetensors", ".bin") and not _exists(temporary, file.name):
                    shutil.copyfile(file, temporary / file.name)
        _check(temporary, source)
        record = {
            "checkpoint": source.name,
            "medserl": __version__,
            "files": sorted(p.name for p in temporary.iterdir()),
        }
        write_atomically(temporary / RECORD, json.dumps(record, indent=1) + "\n", 0o644)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def _exists(folder: Path, name: str) -> bool:
    # An index belongs to the weights that it indexes; a recipe to the model that it made.
    return (folder / name).exists() or name.endswith(".index.json") or name in ("recipe.json", RECORD)


def _check(folder: Path, source: Path) -> None:
    """Every tensor that the weight files' headers promise must be there in full.

    Raises:
        ConfigError: a missing or cut file.
    """
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        missing.append("*.safetensors")
    if missing:
        raise ConfigError(f"checkpoint {source}: {', '.join(missing)} missing")
    for file in files:
        end = max(
            (entry["data_offsets"][1] for name, entry in _header(file).items() if name != "__metadata__"), default=0
        )
        size = file.stat().st_size - 8 - _header_size(file)
        if size != end:
            raise ConfigError(f"checkpoint {source}: {file.name} holds {size} bytes of weights instead of {end}")


def _header_size(file: Path) -> int:
    with file.open("rb") as opened:
        return int(struct.unpack("<Q", opened.read(8))[0])


def _header(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        size = struct.unpack("<Q", opened.read(8))[0]
        header: dict[str, Any] = json.loads(opened.read(size))
    return header
