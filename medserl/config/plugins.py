"""What a configuration chooses by name: plug-ins are loaded, then referees, the reward and the note source built."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from medserl.config.settings import (
    FILES,
    JUDGE,
    ORACLE,
    WARD,
    GameSettings,
    NotesSettings,
    RefereeSettings,
    RewardSettings,
)
from medserl.errors import ConfigError
from medserl.game import NoteSource, PromptSet, Referee, RewardConfig, RewardScheme
from medserl.game.referee import REFEREES
from medserl.game.registry import AUTO, parameters
from medserl.game.rewards import REWARDS
from medserl.game.sources import SOURCES

_NOTES = "medserl.notes.path"
# Registered where they are defined, above the game; imported when a run asks for them.
LATE_REFEREES = {ORACLE: "medserl.ward.oracle", JUDGE: "medserl.serving.judge"}


def load_plugins(names: Iterable[str]) -> None:
    """Import ``medserl.plugins``, in order; a module that is imported already is not run again.

    Raises:
        ConfigError: one cannot be imported, or fails while it is; says where, in one sentence.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            hint = "; put its folder on PYTHONPATH" if error.name == name.partition(".")[0] else ""
            raise ConfigError(f"medserl.plugins: {name} cannot be imported ({error}){hint}") from None
        except ImportError as error:
            raise ConfigError(f"medserl.plugins: {name} cannot be imported ({_first_line(error)})") from None
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"medserl.plugins: {name} fails while it is imported ({type(error).__name__}: {_first_line(error)}; "
                f"{_place(error)}); correct it or leave it out"
            ) from None


def _first_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return error.msg
    return next(iter(str(error).strip().splitlines()), "no message")


def _place(error: BaseException) -> str:
    """File and line that raised."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"


def choose_referee(settings: RefereeSettings, prompts: PromptSet, key: str) -> Referee:
    """Build a referee from its settings, which stand under ``key``.

    Raises:
        ConfigError: an unknown name or option.
    """
    name = settings.name
    if name is None:
        raise ConfigError(f"{key}.name: a game needs a referee; name one")
    if name not in REFEREES.names():  # an unknown name is told all of them
        for module in [LATE_REFEREES[name]] if name in LATE_REFEREES else LATE_REFEREES.values():
            importlib.import_module(module)
    return REFEREES.make(name, settings.options, key, {"prompts": prompts} if name == JUDGE else None)


def choose_reward(settings: RewardSettings) -> RewardScheme:
    """Build the reward scheme: its own options, and the numbers of ``medserl.rewards`` that it takes.

    Raises:
        ConfigError: an unknown name or option, or a number that was changed and that the scheme does not take.
    """
    scheme = REWARDS.get(settings.name, "medserl.rewards.name")
    taken = parameters(scheme)
    numbers = {}
    for field in dataclasses.fields(RewardConfig):
        value = getattr(settings, field.name)
        if field.name in taken:
            numbers[field.name] = value
        elif value != field.default:
            own = ", ".join(taken) or "nothing"
            raise ConfigError(
                f"medserl.rewards.{field.name}: the reward {settings.name!r} does not take it, but {own}; leave it out"
            )
    return REWARDS.make(settings.name, settings.options, "medserl.rewards", numbers)


def note_source(settings: GameSettings) -> NoteSource:
    """Build the note source.

    Raises:
        ConfigError: an unknown name or option, a source that has no file where one is named.
    """
    name, notes, held_out = _known_source(settings), settings.notes, settings.validation
    own: dict[str, Any] = {}
    if name == FILES:
        own = {"path": notes.path}
    elif name == WARD:
        own = {
            "count": notes.count,
            "seed": notes.seed,
            "labelled_conditions": notes.labelled_conditions,
            "held_out_count": held_out.count,
            "held_out_seed": held_out.seed,
        }
    SOURCES.get(name, "medserl.notes.source")
    return SOURCES.make(name, notes.options, "medserl.notes", own)


def has_validation_notes(settings: GameSettings) -> bool:
    """Whether there are held-out notes: a named file, or those of a source that has some, such as the ward."""
    if settings.validation.path is not None:
        return True
    return SOURCES.get(_known_source(settings), "medserl.notes.source").held_out is not NoteSource.held_out


def _known_source(settings: GameSettings) -> str:
    """The source's name, with everything that may have that name imported."""
    name = resolved_source(settings.notes)
    if name != FILES and "medserl.ward" not in sys.modules:
        importlib.import_module("medserl.ward")
    load_plugins(settings.plugins)
    return name


def resolved_source(notes: NotesSettings) -> str:
    """The note source that is meant, ``auto`` taken at its word.

    Raises:
        ConfigError: a file is named and would not be read, or none is where one is needed.
    """
    if notes.source == AUTO:
        return WARD if notes.path is None else FILES
    if notes.source == FILES and notes.path is None:
        raise ConfigError(f"{_NOTES}: medserl.notes.source is 'files', so name one (--prompt-data FILE)", (_NOTES,))
    if notes.source != FILES and notes.path is not None:
        raise ConfigError(
            f"{_NOTES}: medserl.notes.source {notes.source!r} does not read the file that is named here; leave one of "
            "the two out",
            (_NOTES,),
        )
    if notes.source != WARD and notes.labelled_conditions is not None:
        raise ConfigError(
            "medserl.notes.labelled_conditions: only the ward's notes name their conditions, and medserl.notes.source "
            f"is {notes.source!r}; leave it out"
        )
    return notes.source


def keeps_games(settings: GameSettings) -> bool:
    """Whether the run keeps its games: as it was told, else where every note of it is synthetic."""
    if settings.game_log.enabled is not None:
        return settings.game_log.enabled
    notes = settings.notes
    files = (notes.path, notes.labelled_path, settings.validation.path)
    return resolved_source(notes) == WARD and not any(files)


def described(notes: NotesSettings) -> str:
    """Where the notes come from, in a few words."""
    if notes.path is not None:
        return str(notes.path)
    return "the synthetic ward" if notes.source in (AUTO, WARD) else f"the note source {notes.source!r}"
