"""A checkpoint as a Hugging Face model directory. No torch: verl writes the weights of every TP x PP layout in
Hugging Face's format into each checkpoint (``actor/model/huggingface``, verl 0.9.1, megatron_checkpoint_manager.py),
so an export is a checked copy."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from medserl import __version__
from medserl.errors import ConfigError
from medserl.files import check_new_folder, whole_folder, write_atomically
from medserl.run import checkpoint
from medserl.run.run_log import METRICS_FILE, read_metrics
from medserl.run.weights import DamagedWeights, WrongLength, header, indexed, not_in_shard

RECORD = checkpoint.EXPORT_RECORD
PUBLIC_FILE, PUBLIC_FOLDER = 0o666, 0o777  # without what the umask takes away
NEEDED = ("config.json", "tokenizer.json")
_JUDGED = "val/greedy/"
# Of `medserl train` with Megatron, of `medserl sft`, of `medserl train` with FSDP.
_WEIGHTS_INSIDE = ("actor/model/huggingface", "model/huggingface", "actor/huggingface")


def find_checkpoint(path: Path) -> Path:
    """The checkpoint that a path means: itself, or the best, else the newest usable one of a run directory.

    Raises:
        ConfigError: there is none.
    """
    if (path / checkpoint.MANIFEST).exists() or path.name.startswith(checkpoint.STEP_PREFIX):
        if not path.is_dir():
            raise ConfigError(f"checkpoint {path}: no such directory")
        return path
    if not path.is_dir():
        what = "is a file" if path.exists() else "no such directory"
        raise ConfigError(f"{path}: {what}; give a checkpoint or a run directory")
    for root in (path, path / "checkpoints"):
        marked = checkpoint.told_best(root)
        if marked is not None and (chosen := checkpoint.folder(root, marked["step"])).is_dir():
            return chosen
        newest, _ = checkpoint.latest_usable(root)
        if newest is not None:
            return newest
    raise ConfigError(
        f"{path}: neither a checkpoint nor a run directory with one; give RUN_DIR/checkpoints/global_step_N"
    )


def export_checkpoint(source: Path, out: Path, start: Path | None = None) -> Path:
    """Copy the weights of a checkpoint with tokenizer and configuration to ``out``, which appears whole or not at all.

    Modes follow the umask of the process: a model is there to be served, often by another user than the one of the
    run, whose own files stay private.

    Args:
        source: A checkpoint directory (``global_step_N``).
        out: The directory to make; must not exist.
        start: Model directory that gives files which verl does not write, such as a licence.

    Raises:
        UserError: ``out`` exists, cannot be made or lies among checkpoints; the checkpoint is damaged or holds no
            weights.
    """
    check_new_folder(out, "--out")
    place, whole = Path(os.path.realpath(out)), source.resolve()
    if whole in place.parents or (place.parent == whole.parent and place.name.startswith(checkpoint.STEP_PREFIX)):
        raise ConfigError(f"--out {out}: lies among the files of a run's checkpoints; give a folder outside")
    if (source / checkpoint.MANIFEST).exists() and (reason := checkpoint.damage(source)):
        raise ConfigError(f"checkpoint {source} is damaged: {reason}; choose another one")
    weights = next((source / inside for inside in _WEIGHTS_INSIDE if (source / inside).is_dir()), None)
    if weights is None:
        raise ConfigError(f"checkpoint {source}: has no weights in Hugging Face's format ({_WEIGHTS_INSIDE[0]})")
    with whole_folder(out, PUBLIC_FOLDER) as made:
        _copy(weights, made)
        if start is not None:
            for file in sorted(start.iterdir()):
                if file.is_file() and file.suffix not in (".safetensors", ".bin") and not _exists(made, file.name):
                    shutil.copyfile(file, made / file.name)
        _check(made, source)
        record = {
            "checkpoint": source.name,
            "medserl": __version__,
            "validation": validation_of(source),
            "files": sorted(p.name for p in made.iterdir()),
        }
        write_atomically(made / RECORD, json.dumps(record, indent=1) + "\n", PUBLIC_FILE)
    return out


def validation_of(source: Path) -> dict[str, float] | None:
    """How the run's greedy validation judged a checkpoint, by its metrics.jsonl; None where it was not judged.

    Args:
        source: ``RUN_DIR/checkpoints/global_step_N``.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``recall_correct``, ``recall_incorrect`` and the number of ``texts``.
    """
    metrics = source.absolute().parent.parent / METRICS_FILE
    step = source.name.removeprefix(checkpoint.STEP_PREFIX)
    if not step.isdigit() or not metrics.is_file():
        return None
    rows = [row for row in read_metrics(metrics) if row["round"] == int(step) and f"{_JUDGED}accuracy" in row]
    if not rows:
        return None
    names = ("accuracy", "balanced_accuracy", "recall_correct", "recall_incorrect")
    found = {name: rows[-1][_JUDGED + name] for name in names if _JUDGED + name in rows[-1]}
    texts = sum(int(rows[-1].get(f"val/texts_{label}", 0)) for label in ("correct", "incorrect"))
    return {**found, "texts": texts}


def readers(folder: Path) -> str:
    """Who can read an export, in a phrase."""
    if folder.stat().st_mode & 0o005 == 0o005:
        return "readable by every user of this machine (umask)"
    return (
        "readable by its group (umask)"
        if folder.stat().st_mode & 0o050 == 0o050
        else "readable by its owner only (umask)"
    )


def _copy(source: Path, target: Path) -> None:
    """Contents without modes: those of a run are private, an export's follow the umask of who makes it."""
    for item in source.iterdir():
        if item.is_dir():
            (target / item.name).mkdir()
            _copy(item, target / item.name)
        else:
            shutil.copyfile(item, target / item.name)


def _exists(folder: Path, name: str) -> bool:
    # An index belongs to the weights that it indexes; a recipe to the model that it made.
    return (folder / name).exists() or name.endswith(".index.json") or name in ("recipe.json", RECORD)


def _check(folder: Path, source: Path) -> None:
    """Every tensor that the index and the weight files' headers promise must be there in full.

    Raises:
        ConfigError: a missing, cut or unreadable file.
    """
    where = f"checkpoint {source}"
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        missing.append("*.safetensors")
    try:
        promised = indexed(folder)
    except DamagedWeights as error:
        raise ConfigError(f"{where}: {error}; choose another one") from None
    missing += sorted(name for name in promised if not (folder / name).is_file())
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConfigError(f"{where}: lacks {', '.join(missing[:3])}{more}; choose another one")
    for file in files:
        try:
            tensors = header(file)
        except WrongLength as error:
            raise ConfigError(f"{where}: {error}") from None
        except DamagedWeights:
            raise ConfigError(f"{where}: {file.name} is not a whole .safetensors file; choose another one") from None
        if lacking := sorted(promised.get(file.name, set()) - tensors.keys()):
            raise ConfigError(f"{where}: {not_in_shard(file, lacking[0])}; choose another one")
