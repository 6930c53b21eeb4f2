"""What the trainer knows of the round being trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from medserl.game import Game
from medserl.training.rows import Row

if TYPE_CHECKING:
    from medserl.training.agent_loop import NoteTask


@dataclass
class RoundState:
    """What the trainer knows of the round being trained: tasks and games by note, roles by trajectory key."""

    tasks: dict[str, NoteTask] = field(default_factory=dict)
    games: dict[str, Game] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    advantages: dict[str, float] = field(default_factory=dict)
    """Mean over a trajectory's tokens, by key."""
    unused: list[str] = field(default_factory=list)
    """Keys of trajectories that do not train; they leave the queue with the others: each call takes its time."""
    nothing_trains: bool = False
