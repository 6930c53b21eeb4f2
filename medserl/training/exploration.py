"""What follows a run's accepted edits (medserl.game.explored), and the edits that a round hands to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from medserl.config.settings import WARD, GameSettings
from medserl.game import Game
from medserl.game.explored import Edit, Explored

if TYPE_CHECKING:
    from medserl.training.agent_loop import NoteTask


def explored_by(settings: GameSettings) -> Explored:
    """A record of what is tried: on the ward against the facts of its table, where anything is played."""
    if settings.notes.source != WARD or not settings.rollout_batch_size:
        return Explored()
    from medserl.ward.coverage import facts_made, wrong_facts

    return Explored(facts_made, len(wrong_facts()))


def accepted_edits(tasks: Mapping[str, NoteTask], games: Mapping[str, Game]) -> list[Edit]:
    """A round's accepted edits, in the order of its notes; tasks and games by uid."""
    pairs = [(task.note, games.get(uid)) for uid, task in sorted(tasks.items())]
    return [
        Edit(note.text, game.accepted, game.truth, note.note_id)
        for note, game in pairs
        if note is not None and game is not None and game.accepted is not None
    ]
