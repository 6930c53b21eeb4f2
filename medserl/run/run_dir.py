"""The run directory: who it belongs to, what it records, how a run resumes in it. No torch."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from medserl.errors import ConfigError
from medserl.files import PRIVATE_FOLDER, PRIVATE_UMASK, close_to_others, read_json, regular, write_atomically
from medserl.provenance import provenance
from medserl.run import checkpoint
from medserl.run.curves import TENSORBOARD_DIR
from medserl.run.identity import FREE_KEYS, INPUTS_FILE, differences, inputs_of, named, read_inputs
from medserl.run.layout import LAYOUT_KEYS, why_not_resharded
from medserl.run.run_log import ASIDE_FILE, LOG_FILE, METRICS_FILE

CONFIG_FILE = "config.yaml"
PROVENANCE_FILE = "provenance.json"
FINISHED_FILE = "finished.json"  # of a warm start, beside its model
LOCK_FILE = ".lock"
_OURS_FIRST = (
    LOCK_FILE,
    INPUTS_FILE,
    PROVENANCE_FILE,
)  # of a first start that was killed before it wrote its configuration
_FILES = (*_OURS_FIRST, CONFIG_FILE, METRICS_FILE, ASIDE_FILE, LOG_FILE)
_FOLDERS = ("checkpoints", "logs", "games", TENSORBOARD_DIR)

logger = logging.getLogger("medserl.run")


class RunDir:
    """One run's directory, held by one process at a time.

    Args:
        path: The directory; made (mode 0700) if it is not there, closed to others if it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None
        self._umask: int | None = None
        self._chosen: tuple[Path | None, list[str]] = (None, [])

    @property
    def checkpoints(self) -> Path:
        """The folder of all checkpoints."""
        return self.path / "checkpoints"

    def open(
        self, config: DictConfig, config_name: str, overrides: list[str], more: Mapping[str, Any] | None = None
    ) -> None:
        """Take the directory for a run of ``config``; write configuration and provenance.

        Until ``close``, every file that this process and its children make is private (umask 077), and what others
        could read in an existing directory is closed to them.

        Args:
            config: The run's resolved configuration.
            config_name: What it was composed from.
            overrides: What was overridden in it.
            more: What else the provenance says of this start, e.g. which prompts it plays with.

        Raises:
            ConfigError: it belongs to another configuration or another user, cannot be written, or another process is
                running in it.
        """
        self.check(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
            self._umask = os.umask(PRIVATE_UMASK)
            self._take_lock()
            self.check(config)  # once more: another run may have started and ended since
            self._chosen = checkpoint.to_go_on_from(self.checkpoints)
            if closed := close_to_others(self.path.resolve()):
                logger.warning(
                    "run directory %s: closed to other users, who could reach %d of its files", self.path, closed
                )
            self._record(config, config_name, overrides, more or {})
        except OSError as error:
            self.close()
            raise ConfigError(
                f"run directory {self.path}: cannot be written ({error.strerror or error}); give another --run-dir"
            ) from None
        except BaseException:
            self.close()
            raise

    def newest(self) -> Path | None:
        """The checkpoint that an opened run goes on from, every file of it read; the log names those that were passed
        over. None where there is none at all."""
        found, complaints = self._chosen
        for complaint in complaints:
            logger.warning("%s", complaint)
        return found

    def check_checkpoints(self, content: bool) -> None:
        """Raise ConfigError where there are checkpoints and none is whole, by their sizes or (``content``, which `open`
        looks at too) their checksums: a minute for one of tens of gigabytes."""
        checkpoint.to_go_on_from(self.checkpoints, content)

    def _record(self, config: DictConfig, config_name: str, overrides: list[str], more: Mapping[str, Any]) -> None:
        inputs = inputs_of(config, read_inputs(self.path))
        starts = [*self._starts(), provenance(config_name, overrides) | dict(more)]
        write_atomically(self.path / INPUTS_FILE, json.dumps(inputs, indent=1) + "\n")
        write_atomically(self.path / PROVENANCE_FILE, json.dumps({"starts": starts}, indent=1))
        # Last: a directory with it is a run's.
        write_atomically(self.path / CONFIG_FILE, OmegaConf.to_yaml(named(config)))

    def join(self) -> None:
        """Work in a directory that a process on another node has opened: until ``close``, every file is private."""
        self._umask = os.umask(PRIVATE_UMASK)

    def check(self, config: DictConfig) -> None:
        """Raise ConfigError when the directory is not empty and not of this configuration, or not this user's alone."""
        where = f"run directory {self.path}"
        existing = self.path / CONFIG_FILE
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{where}: is a file; give another --run-dir")
        self._check_access(where)
        self._check_place(where)
        _check_no_other_checkpoint(config)
        if not existing.exists():
            if self.path.is_dir() and any(p.name not in _OURS_FIRST for p in self.path.iterdir()):
                raise ConfigError(f"{where}: is not empty, and MedSeRL did not make it; give another --run-dir")
            return
        self._check_contents(where)
        self._check_resume_mode(where, config)
        try:
            before = OmegaConf.load(regular(existing))
        except (OSError, ValueError, YAMLError, RecursionError) as error:
            raise ConfigError(
                f"{where}: its {CONFIG_FILE} cannot be read ({type(error).__name__}), so nobody can say whether "
                "this is the same run; restore it, or give another --run-dir"
            ) from None
        if not isinstance(before, DictConfig) or (lacking := sorted(str(key) for key in config if key not in before)):
            what = f"lacks {', '.join(lacking[:3])}" if isinstance(before, DictConfig) else "is a list"
            raise ConfigError(
                f"{where}: its {CONFIG_FILE} {what}: it is damaged, or of another command or version; restore it, or "
                "give another --run-dir"
            )
        self._check_same(where, before, config)

    def _check_access(self, where: str) -> None:
        try:
            status = self.path.stat()
            readable = os.access(self.path, os.R_OK | os.W_OK | os.X_OK)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigError(f"{where}: cannot be read ({error.strerror}); give another --run-dir") from None
        if status.st_uid != os.geteuid() and status.st_mode & PRIVATE_UMASK:
            raise ConfigError(
                f"{where}: belongs to another user (uid {status.st_uid}) and is open to others, and a run holds "
                "clinical text; give a --run-dir of your own, for example a new folder in it"
            )
        if not readable:
            raise ConfigError(f"{where}: cannot be read and written by you; give another --run-dir")

    def _check_place(self, where: str) -> None:
        """A run inside another one would be closed, moved and removed with it."""
        for above in self.path.parents:
            if (above / CONFIG_FILE).is_file() and (above / LOCK_FILE).is_file():
                raise ConfigError(f"{where}: lies inside {above}, the directory of another run; give one beside it")

    def _check_contents(self, where: str) -> None:
        """What a start reads and writes must be what it was left as, and this user's to read and write."""
        for name in (*_FILES, *_FOLDERS):
            path, folder = self.path / name, name in _FOLDERS
            if not os.path.lexists(path):
                continue
            if not (path.is_dir() if folder else path.is_file()):
                kind = "is not a folder" if folder else "is not a file"
                raise ConfigError(f"{where}: its {name} {kind}; move it away, or give another --run-dir")
            if not os.access(path, os.R_OK | os.W_OK | (os.X_OK if folder else 0)):
                raise ConfigError(
                    f"{where}: its {name} cannot be read and written by you; give yourself the right to (chmod u+rwX), "
                    "or give another --run-dir"
                )

    def _check_resume_mode(self, where: str, config: DictConfig) -> None:
        mode = OmegaConf.select(config, "trainer.resume_mode")
        rounds = checkpoint.steps(self.checkpoints)
        if mode not in (None, "auto") and rounds:
            raise ConfigError(
                f"trainer.resume_mode: {mode}, but {where} holds checkpoints (the last of {rounds[-1]}), which a run "
                "that starts anew would lose; give another --run-dir, or leave resume_mode out to go on from the newest"
            )

    def _check_same(self, where: str, before: Any, config: DictConfig) -> None:
        recorded = read_inputs(self.path)
        split = differences(before, config, FREE_KEYS, recorded)
        if not split:
            return
        differing = differences(before, config, (*FREE_KEYS, *LAYOUT_KEYS), recorded)
        if differing:
            shown = "; ".join(differing[:3]) + (f"; and {len(differing) - 3} more" if len(differing) > 3 else "")
            raise ConfigError(
                f"{where}: belongs to another configuration ({shown}); go on with what its {CONFIG_FILE} says, or give "
                "another --run-dir"
            )
        if reason := why_not_resharded(self.checkpoints):
            raise ConfigError(
                f"{where}: another layout ({'; '.join(split)}), but {reason}; give that layout or another --run-dir"
            )

    def note_end(self, record: dict[str, Any]) -> None:
        """Write down how this start ended, beside how it began."""
        starts = self._starts() or [{}]
        starts[-1]["ended"] = {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **record}
        write_atomically(self.path / PROVENANCE_FILE, json.dumps({"starts": starts}, indent=1))

    def previous_end(self) -> dict[str, Any]:
        """How the start before this one ended; empty where there was none, or it could not say."""
        starts = self._starts()
        ended: dict[str, Any] = starts[-2].get("ended", {}) if len(starts) > 1 else {}
        return ended

    def _starts(self) -> list[dict[str, Any]]:
        path = self.path / PROVENANCE_FILE
        try:
            found: list[dict[str, Any]] = read_json(path)["starts"]
            return found
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError):
            aside = path.with_name(f"{path.name}.damaged")
            os.replace(path, aside)
            logger.warning("%s cannot be read; it is kept as %s, and a new one begins", path, aside.name)
            return []

    def new_log_dir(self) -> Path:
        """A private folder for the output of one start, ``logs/1``, ``logs/2``, ..."""
        logs = self.path / "logs"
        logs.mkdir(exist_ok=True, mode=0o700)
        number = 1 + self._last_log(logs)
        (logs / str(number)).mkdir(mode=0o700)
        return logs / str(number)

    def latest_log_dir(self) -> Path:
        """The folder of the start under way, which another process has opened."""
        logs = self.path / "logs"
        return logs / str(self._last_log(logs))

    @staticmethod
    def _last_log(logs: Path) -> int:
        return max((int(path.name) for path in logs.iterdir() if path.name.isdigit()), default=0)

    def close(self) -> None:
        """Give the directory back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._umask is not None:
            os.umask(self._umask)
            self._umask = None

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


def _check_no_other_checkpoint(config: DictConfig) -> None:
    """verl's ``resume_path`` would be overruled without a word (medserl.run.layout.choose_checkpoint)."""
    path = OmegaConf.select(config, "trainer.resume_from_path")
    if path is not None or OmegaConf.select(config, "trainer.resume_mode") == "resume_path":
        raise ConfigError(
            f"trainer.resume_from_path: {path}, but a run goes on from the newest whole checkpoint of its own run "
            "directory only; leave resume_mode and resume_from_path out, or start from an exported model"
        )
