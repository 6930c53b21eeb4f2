"""What the injector has tried: which changes its accepted edits made, and how many of them are new. Pure.

The assessor can learn only what is tried, so this says whether an injector explores or repeats itself. A change is the
pair of the words that an edit took out and those that it put in; it is kept as a hash, so that a state holds no text.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from difflib import SequenceMatcher
from math import nan
from typing import Any, NamedTuple

from medserl.game.labels import Label

WINDOW = 20
"""Rounds within which a change that comes again is not new."""
_EDGES = ".,;:!?()\"'"


class Edit(NamedTuple):
    """An accepted edit and what the referee said of it."""

    original: str
    modified: str
    truth: Label | None
    note_id: str = ""


def change_of(original: str, modified: str) -> str:
    """A hash of the words that gave way and of those that came, whatever their case and punctuation."""
    before, after = _words(original), _words(modified)
    out: list[str] = []
    came: list[str] = []
    for kind, i, j, k, m in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            out += before[i:j]
            came += after[k:m]
    return hashlib.sha256(f"{' '.join(out)}\0{' '.join(came)}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _words(text: str) -> list[str]:
    return [word.strip(_EDGES).lower() for word in text.split()]


Facts = Callable[[str, str], Iterable[str]]
"""Names of the known wrong facts that an edit (original, modified) brought in."""


class Explored:
    """Follows a run's accepted edits.

    Args:
        facts: Names of wrong facts that an edit brought in, where they are known, as on the ward.
        possible: How many such facts there are.
    """

    def __init__(self, facts: Facts | None = None, possible: int = 0) -> None:
        self._facts, self._possible = facts, possible
        self._recent: deque[frozenset[str]] = deque(maxlen=WINDOW)
        self._errors: set[str] = set()
        self._found: set[str] = set()

    def see(self, edits: Iterable[Edit]) -> dict[str, float]:
        """Take in a round's accepted edits.

        Returns:
            ``edit/distinct``: different changes of the round; ``edit/novel_rate``: share of its edits whose change no
            edit of the last `WINDOW` rounds made; ``edit/errors_so_far``: different changes of the run that the referee
            called errors; ``edit/table_coverage``: share of the known wrong facts that they brought in, NaN where none
            are known.
        """
        edits = list(edits)
        changes = [change_of(edit.original, edit.modified) for edit in edits]
        known = frozenset[str]().union(*self._recent)
        for edit, change in zip(edits, changes, strict=True):
            if edit.truth is Label.INCORRECT:
                self._errors.add(change)
                if self._facts is not None:
                    self._found.update(self._facts(edit.original, edit.modified))
        self._recent.append(frozenset(changes))
        new = sum(change not in known for change in changes)
        return {
            "edit/distinct": float(len(set(changes))),
            "edit/novel_rate": new / len(changes) if changes else nan,
            "edit/errors_so_far": float(len(self._errors)),
            "edit/table_coverage": len(self._found) / self._possible if self._possible else nan,
        }

    def covers(self, original: str, modified: str) -> bool:
        """Whether an edit that was called an error made just this change."""
        return change_of(original, modified) in self._errors

    def state_dict(self) -> dict[str, Any]:
        """JSON-able; no words of any note, but names of the facts."""
        return {
            "recent": [sorted(changes) for changes in self._recent],
            "errors": sorted(self._errors),
            "found": sorted(self._found),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        self._recent = deque(map(frozenset, state["recent"]), maxlen=WINDOW)
        self._errors, self._found = set(state["errors"]), set(state["found"])
