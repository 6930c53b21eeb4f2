"""Edits that play has made, asked about again: an assessor learns more from a game than one answer of it teaches. Pure.

The question is old and the answer is new, drawn from the policy as it is: so an update on it is on-policy. Injector and
referee, whose share of a round's time is the greatest, are not asked again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

from medserl.game.explored import Edit
from medserl.game.labels import Label
from medserl.game.records import LabelledNote

LIMIT = 8192
"""Edits that are kept, the newest ones."""


class Replay:
    """A run's accepted edits that the referee decided.

    Args:
        limit: So many of the newest are kept.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._edits: deque[Edit] = deque(maxlen=limit)

    def __len__(self) -> int:
        return len(self._edits)

    def see(self, edits: Iterable[Edit]) -> None:
        """Take in a round's accepted edits; those without a label are left out."""
        self._edits.extend(edit for edit in edits if edit.truth is not None)

    def questions(self, count: int, seed: str) -> list[LabelledNote]:
        """Pairs of texts to ask the assessor about: an edit that made its note wrong, and the same note as it is right.

        The right one is the original or, as likely where play has made some, one of the note's harmless edits: so
        that the two differ by little more than the error. No text comes twice, and none that was ruled both ways.

        Args:
            count: At most so many, an even number; fewer where play has not made enough errors yet.
            seed: The same edits and seed give the same questions.
        """
        rng = Random(f"replay:{seed}")
        ruled_wrong = {edit.modified for edit in self._edits if edit.truth is Label.INCORRECT}
        right_texts = {edit.modified for edit in self._edits if edit.truth is Label.CORRECT}
        disputed = ruled_wrong & (right_texts | {edit.original for edit in self._edits})
        wrong = [edit for edit in self._edits if edit.truth is Label.INCORRECT and edit.modified not in disputed]
        harmless: dict[str, set[str]] = {}
        for edit in self._edits:
            if edit.truth is Label.CORRECT and edit.modified not in disputed:
                harmless.setdefault(edit.note_id, set()).add(edit.modified)
        asked: dict[str, LabelledNote] = {}
        for edit in rng.sample(wrong, len(wrong)):
            if len(asked) + 2 > count:
                break
            edited = sorted(harmless.get(edit.note_id, set()) - asked.keys())
            original = [edit.original] if edit.original not in asked.keys() | disputed else []
            kinds = [texts for texts in (original, edited) if texts]
            if edit.modified in asked or not kinds:
                continue
            right = rng.choice(rng.choice(kinds))
            asked[edit.modified] = LabelledNote(edit.note_id, edit.modified, Label.INCORRECT)
            asked[right] = LabelledNote(edit.note_id, right, Label.CORRECT)
        return list(asked.values())

    def state_dict(self) -> dict[str, Any]:
        """JSON-able. It holds notes: whoever writes it keeps the file private."""
        originals = {edit.note_id: edit.original for edit in self._edits}
        return {
            "originals": originals,
            "edits": [[edit.note_id, edit.modified, edit.truth] for edit in self._edits],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` gave."""
        originals = state["originals"]
        self._edits.clear()
        self._edits.extend(Edit(originals[n], modified, Label(truth), n) for n, modified, truth in state["edits"])
