"""What a cell's result was made with: resolved configuration, weights, commit."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.ablation.grid import Arm, Cell
from medserl.config.load import is_sft_config, load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.files import sha256_of
from medserl.game import load_prompt_set
from medserl.provenance import git_changes, git_commit

FINGERPRINT = "made_with"
# Where a run lies says nothing about what it computes.
_PLACES = (("medserl", "run_dir"), ("trainer", "default_local_dir"), ("trainer", "experiment_name"))


def fingerprint(cell: Cell, patients: int) -> dict[str, Any]:
    """``configuration``, ``model``, ``prompts`` and ``note_files`` as SHA-256, ``seed``, ``commit`` (None outside a
    checkout; with a hash of what differs from it), and on how many test ``patients`` the model is judged.

    Raises:
        ConfigError: the arm's configuration cannot be composed; the sentence names the arm.
    """
    configuration, model = _hashed(cell.arm)
    commit, changes = git_commit(), git_changes()
    return {
        "configuration": configuration,
        "seed": cell.seed,
        "model": _model(model),
        "prompts": load_prompt_set(composed(cell.arm).medserl.prompt_set).sha256,
        "note_files": _note_files(cell.arm),
        "commit": f"{commit}+changes-{changes}" if commit and changes else commit,
        "patients": patients,
    }


def difference(made: Any, now: dict[str, Any]) -> str | None:
    """What a result that is there was made with that is another now, in a phrase; None where nothing is."""
    if not isinstance(made, dict):
        return "does not say what it was made with"
    differing = [name for name in now if made.get(name) != now[name]]
    return f"was made with other {' and '.join(name.replace('_', ' ') for name in differing)}" if differing else None


def made_with(results: Iterable[dict[str, Any]]) -> str:
    """A line for people: the commits that some results were made with; empty where there are none."""
    found = {str((result.get(FINGERPRINT) or {}).get("commit") or "no checkout") for result in results}
    return f"Made with {', '.join(sorted(found))}." if found else ""


@functools.cache
def composed(arm: Arm) -> DictConfig:
    """An arm's configuration, not to be changed; ConfigError, which names the arm, where it cannot be composed."""
    load = load_sft_config if is_sft_config(arm.config) else load_config
    try:
        return load(arm.config, [*arm.overrides, "medserl.run_dir=run"])
    except ConfigError as error:
        raise ConfigError(f"arm {arm.name}: {error}") from None


@functools.cache
def _hashed(arm: Arm) -> tuple[str, str]:
    """SHA-256 of an arm's resolved configuration, and the model directory that it starts from."""
    config: Any = OmegaConf.to_container(composed(arm), resolve=True)
    model = str(config["model"]["path"] if "engine" in config else config["actor_rollout_ref"]["model"]["path"])
    for section, key in _PLACES:
        config[section].pop(key, None)
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest(), model


@functools.cache
def _note_files(arm: Arm) -> list[str]:
    """SHA-256 of the files that an arm's notes come from; those that are not there are told of when notes are read."""
    named = (OmegaConf.select(composed(arm), f"medserl.{key}.path") for key in ("notes", "validation"))
    return [sha256_of(Path(path)) for path in named if path and Path(path).is_file()]


@functools.cache
def _model(folder: str) -> str | None:
    """SHA-256 over a model directory's files, tokenizer and template among them; None where it has none, as an
    untrained ward model."""
    files = sorted(path for path in Path(folder).glob("*") if path.is_file())
    whole = "".join(f"{path.name} {sha256_of(path)}\n" for path in files)
    return hashlib.sha256(whole.encode()).hexdigest() if files else None
