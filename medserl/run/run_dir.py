"""The run directory: who it belongs to, what it records, how a run resumes in it. No torch."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from medserl.errors import ConfigError
from medserl.files import write_atomically
from medserl.provenance import provenance
from medserl.run.layout import LAYOUT_KEYS, why_not_resharded

CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"
LOCK_FILE = ".lock"
# Keys that may differ when a run goes on: how long, how often to save, where it runs. Not what it computes.
FREE_KEYS = (
    "medserl.run_dir",
    "medserl.max_rounds",
    "medserl.rollout_workers",
    "medserl.poll_seconds",
    "medserl.dump_games",
    "medserl.max_failed_share",
    "medserl.deadline_margin",
    "medserl.allow_plain_http",
    "trainer.total_epochs",
    "trainer.total_training_steps",
    "trainer.save_freq",
    "trainer.max_actor_ckpt_to_keep",
    "trainer.default_local_dir",
    "trainer.experiment_name",
    "actor_rollout_ref.rollout.trace.experiment_name",
    "trainer.resume_mode",
    "trainer.resume_from_path",
    "ray_kwargs",
    "transfer_queue",
    "actor_rollout_ref.actor.optim.total_training_steps",
    # The form of the checkpoints to come; each tells its own when it is loaded.
    "actor_rollout_ref.actor.megatron.dist_ckpt_optim_fully_reshardable",
    "actor_rollout_ref.actor.megatron.distrib_optim_fully_reshardable_mem_efficient",
    "critic",
)


class RunDir:
    """One run's directory, held by one process at a time.

    Args:
        path: The directory; made (mode 0700) if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / "checkpoints"

    def open(
        self, config: DictConfig, config_name: str, overrides: list[str], more: Mapping[str, Any] | None = None
    ) -> None:
        """Take the directory for a run of ``config``; write configuration and provenance.

        Args:
            config: The run's resolved configuration.
            config_name: What it was composed from.
            overrides: What was overridden in it.
            more: What else the provenance says of this start, e.g. which prompts it plays with.

        Raises:
            ConfigError: it belongs to another configuration, or another process is running in it.
        """
        self.check(config)
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._take_lock()
        write_atomically(self.path / CONFIG_FILE, OmegaConf.to_yaml(config))
        record = provenance(config_name, overrides) | dict(more or {})
        previous = self.path / PROVENANCE_FILE
        starts = json.loads(previous.read_text(encoding="utf-8"))["starts"] if previous.exists() else []
        write_atomically(previous, json.dumps({"starts": [*starts, record]}, indent=1))

    def check(self, config: DictConfig) -> None:
        """Raise ConfigError when the directory is not empty and not of this configuration."""
        existing = self.path / CONFIG_FILE
        if not existing.exists():
            if self.path.is_dir() and any(p.name != LOCK_FILE for p in self.path.iterdir()):
                raise ConfigError(f"run directory {self.path}: not empty and not of MedSeRL; give another --run-dir")
            if self.path.exists() and not self.path.is_dir():
                raise ConfigError(f"run directory {self.path}: is a file; give another --run-dir")
            return
        before = OmegaConf.load(existing)
        differing = differences(before, config, (*FREE_KEYS, *LAYOUT_KEYS))
        if not differing and (split := differences(before, config)):
            if (reason := why_not_resharded(self.checkpoints)) is None:
                return
            raise ConfigError(
                f"run directory {self.path}: another layout ({'; '.join(split)}), but {reason}; give that layout or "
                "another --run-dir"
            )
        if differing:
            shown = "; ".join(differing[:3]) + (f"; and {len(differing) - 3} more" if len(differing) > 3 else "")
            raise ConfigError(
                f"run directory {self.path}: belongs to another configuration ({shown}); give another --run-dir"
            )

    def note_end(self, record: dict[str, Any]) -> None:
        """Write down how this start ended, beside how it began."""
        path = self.path / PROVENANCE_FILE
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
        starts[-1]["ended"] = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **record}
        write_atomically(path, json.dumps({"starts": starts}, indent=1))

    def previous_end(self) -> dict[str, Any]:
        """How the start before this one ended; empty where there was none, or it could not say."""
        starts = json.loads((self.path / PROVENANCE_FILE).read_text(encoding="utf-8"))["starts"]
        ended: dict[str, Any] = starts[-2].get("ended", {}) if len(starts) > 1 else {}
        return ended

    def new_log_dir(self) -> Path:
        """A private folder for the output of one start, ``logs/1``, ``logs/2``, ..."""
        logs = self.path / "logs"
        logs.mkdir(exist_ok=True, mode=0o700)
        number = 1 + max((int(p.name) for p in logs.iterdir() if p.name.isdigit()), default=0)
        (logs / str(number)).mkdir(mode=0o700)
        return logs / str(number)

    def close(self) -> None:
        """Give the directory back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        file = open(self.path / LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115 - held while the run lasts
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ConfigError(
                f"run directory {self.path}: {owner} is running in it; wait for it or give another --run-dir"
            ) from None
        except OSError as error:
            file.close()
            raise ConfigError(
                f"run directory {self.path}: cannot be locked ({error.strerror}); give a --run-dir on a file system "
                "that has locks (Lustre: mounted with flock)"
            ) from None
        file.truncate(0)
        file.write(f"{socket.gethostname()}, process {os.getpid()}")
        file.flush()
        self._lock = file


def differences(old: Any, new: Any, free_keys: Sequence[str] = FREE_KEYS) -> list[str]:
    """What differs between two resolved configurations beyond ``free_keys``, a phrase per key."""
    before, after = _flat(OmegaConf.to_container(old)), _flat(OmegaConf.to_container(new))
    phrases = []
    for key in sorted(before.keys() | after.keys()):
        if any(key == free or key.startswith(f"{free}.") for free in free_keys):
            continue
        if before.get(key) != after.get(key):
            phrases.append(f"{key}: {before.get(key)!r} there, {after.get(key)!r} now")
    return phrases


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, dict) and node:
        return {k: v for key, child in node.items() for k, v in _flat(child, f"{prefix}{key}.").items()}
    return {prefix[:-1]: node}
