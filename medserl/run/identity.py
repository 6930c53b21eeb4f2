"""Which run a configuration is of: what may differ when a run goes on, and what its inputs are, by content. No torch.

A run follows from its settings and from what it reads: the model that it starts from, notes, a prompt set of one's own.
These are recorded by content at the first start (``RUN_DIR/inputs.json``), so that a run goes on after they were moved,
and does not go on unnoticed with others under the same name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.files import in_threads, read_json, sha256_of

INPUTS_FILE = "inputs.json"
_ROLLOUT, _ACTOR, _REF = (f"actor_rollout_ref.{part}" for part in ("rollout", "actor", "ref"))
# Keys that may differ when a run goes on: how long, how often to save or to look, where it runs. Not what the weights
# become.
FREE_KEYS = (
    "medserl.run_dir",
    "medserl.device",  # must agree with trainer.device, which is no free key
    "medserl.max_rounds",
    "medserl.rollout_workers",
    "medserl.poll_seconds",
    "medserl.game_log",
    "medserl.dump_games",  # what game_log took the place of: earlier versions wrote it down
    "medserl.max_failed_share",
    "medserl.deadline_margin",
    "medserl.allow_plain_http",
    "medserl.validation",
    "medserl.alarms",
    "medserl.trackers",
    "trainer.total_epochs",
    "trainer.total_training_steps",
    "trainer.save_freq",
    "trainer.test_freq",
    "trainer.val_before_train",
    "trainer.max_actor_ckpt_to_keep",
    "trainer.max_ckpt_to_keep",
    "trainer.default_local_dir",
    "trainer.experiment_name",
    "trainer.project_name",
    "trainer.logger",
    "trainer.log_val_generations",
    "trainer.rollout_data_dir",
    "trainer.validation_data_dir",
    "trainer.ray_wait_register_center_timeout",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    f"{_ROLLOUT}.trace",
    f"{_ROLLOUT}.prometheus",
    f"{_ROLLOUT}.disable_log_stats",
    f"{_ROLLOUT}.gpu_memory_utilization",
    *(f"{part}.profiler" for part in (_ROLLOUT, _ACTOR, _REF)),
    "profiler",
    "global_profiler",
    "ray_kwargs",
    "transfer_queue",
    f"{_ACTOR}.optim.total_training_steps",
    # The form of the checkpoints to come; each tells its own when it is loaded.
    f"{_ACTOR}.megatron.dist_ckpt_optim_fully_reshardable",
    f"{_ACTOR}.megatron.distrib_optim_fully_reshardable_mem_efficient",
    # The policy's, or what is derived from it.
    *(f"critic.{key}" for key in ("model", "megatron", "profiler", "optim.total_training_steps")),
)
CRITIC, GAE = "critic", "gae"
"""A section that says nothing but with this estimator."""
BUILTIN = "builtin:"
_BUILTIN_TAIL = ("medserl", "ward", "model")
_BIG = 64 << 20  # bytes; files of less are read anew each time, those of more only where size or time changed
_NOT_CONTENT = ("README", "LICENSE", "NOTICE", "CONTRIBUTING")


def differences(
    old: Any, new: Any, free_keys: Sequence[str] = FREE_KEYS, recorded: Mapping[str, Any] | None = None
) -> list[str]:
    """What differs between two resolved configurations beyond ``free_keys``, a phrase per key.

    Args:
        old: The configuration that a run directory holds.
        new: The present one. A key that only it has makes no difference where it has its default, which is known of
            the ``medserl`` section: an earlier version wrote the old one.
        free_keys: Keys, or sections, that may differ.
        recorded: What ``inputs_of`` said of the old one, by key; None: nothing was recorded.
    """
    before, after = flat(OmegaConf.to_container(old)), flat(OmegaConf.to_container(new))
    if after.get("algorithm.adv_estimator") != GAE:
        free_keys = (*free_keys, CRITIC)
    defaults = _defaults(new)
    phrases = []
    for key in sorted(before.keys() | after.keys()):
        if any(key == free or key.startswith(f"{free}.") for free in free_keys):
            continue
        if key not in before and key in defaults and defaults[key] == after[key]:
            continue
        then, now = before.get(key), after.get(key)
        if _is_input(key, then) or _is_input(key, now):
            phrase = _input_difference(key, then, now, (recorded or {}).get(key))
        else:
            phrase = None if then == now else f"{key}: {then!r} there, {now!r} now"
        if phrase is not None:
            phrases.append(phrase)
    return phrases


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested dictionaries by dotted key."""
    if isinstance(node, dict) and node:
        return {k: v for key, child in node.items() for k, v in flat(child, f"{prefix}{key}.").items()}
    return {prefix[:-1]: node}


def named(config: DictConfig) -> DictConfig:
    """A copy in which the package's own model has its name instead of its place in this installation."""
    copy = config.copy()
    for key, value in flat(OmegaConf.to_container(config)).items():
        if isinstance(value, str) and as_name(value) != value:
            OmegaConf.update(copy, key, as_name(value))
    return copy


def as_name(value: Any) -> Any:
    """``builtin:ward`` for the path of the package's own model, in whatever installation; others as they are."""
    if isinstance(value, str) and Path(value).parts[-3:] == _BUILTIN_TAIL:
        return f"{BUILTIN}ward"
    return value


def inputs_of(config: DictConfig, before: Mapping[str, Any]) -> dict[str, Any]:
    """Place, size and SHA-256 of every file and folder that a configuration names as an input, by key.

    Args:
        config: A resolved configuration.
        before: What an earlier start recorded: of a file that is the same, nothing is read again.
    """
    found = {}
    for key, value in flat(OmegaConf.to_container(config)).items():
        free = any(key == name or key.startswith(f"{name}.") for name in FREE_KEYS)
        if not free and _is_input(key, value) and Path(value).exists():
            found[key] = fingerprint(Path(value), before.get(key))
    return found


def fingerprint(path: Path, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a file or a folder (of files right below it) holds.

    Args:
        path: The file or folder.
        known: An earlier fingerprint. Its checksum is taken over for files of 64 MiB and more together, where
            place, sizes and times are the same.
    """
    path = path.resolve()
    files = [path] if path.is_file() else [file for file in sorted(path.iterdir()) if _is_content(file)]
    states = [(file.name, file.stat()) for file in files]
    seen: dict[str, Any] = {
        "path": str(path),
        "files": {name: [status.st_size, status.st_mtime_ns] for name, status in states},
    }
    big = sum(status.st_size for _, status in states) >= _BIG
    if big and known is not None and all(known.get(key) == value for key, value in seen.items()):
        return dict(known)
    sums = in_threads(sha256_of, files)
    if path.is_file():
        return {**seen, "sha256": sums[0]}
    lines = "".join(f"{file.name} {value}\n" for file, value in zip(files, sums, strict=True))
    return {**seen, "sha256": hashlib.sha256(lines.encode()).hexdigest()}


def read_inputs(run_dir: Path) -> dict[str, Any]:
    """What was recorded of a run's inputs; empty where nothing was, or it cannot be read."""
    try:
        found = read_json(run_dir / INPUTS_FILE)
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


def _is_content(file: Path) -> bool:
    return file.is_file() and not file.name.startswith((".", *_NOT_CONTENT))


def _is_input(key: str, value: Any) -> bool:
    """Whether a key's value is, or was, the place of something that a run reads."""
    if not isinstance(value, str) or not value or "://" in value:
        return False
    last = key.rpartition(".")[2]
    return last == "path" or last.endswith("_path") or (last in ("model", "prompt_set") and os.sep in value)


def _input_difference(key: str, then: Any, now: Any, recorded: Mapping[str, Any] | None) -> str | None:
    same_name = as_name(then) == as_name(now)
    here = Path(now) if isinstance(now, str) else None
    if here is None or not here.exists() or (recorded is None and same_name):
        return None if same_name else f"{key}: {then!r} there, {now!r} now"
    shown = f"{key}: {as_name(now)}" if same_name else f"{key}: {as_name(then)!r} there, {as_name(now)!r} now"
    if recorded is not None:
        same = fingerprint(here, recorded).get("sha256") == recorded.get("sha256")
        return None if same else f"{shown}, which holds something else than when the run began"
    there = Path(then) if isinstance(then, str) else None
    if there is None:
        return shown
    if not there.exists():
        return f"{shown}, and the former is not there any more to compare them; make it a link to the latter"
    same = fingerprint(here)["sha256"] == fingerprint(there)["sha256"]
    return None if same else f"{shown}, which holds something else"


def _defaults(config: Any) -> dict[str, Any]:
    """Defaults of the ``medserl`` section, by dotted key, where it is a typed one."""
    section = OmegaConf.select(config, "medserl") if OmegaConf.is_dict(config) else None
    kind = OmegaConf.get_type(section) if isinstance(section, DictConfig) else None
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        return {}
    return flat({"medserl": OmegaConf.to_container(OmegaConf.structured(kind))})
