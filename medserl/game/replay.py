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
        """Texts to ask the assessor about, as many wrong ones as right ones, no edit twice.

        Half of the right ones are originals of the wrong ones, so that the two differ by the error alone; the others
        are edits that left their note right, where there are any.

        Args:
            count: At most so many, an even number; fewer where play has not made enough errors yet.
            seed: The same edits and seed give the same questions.
        """
        rng = Random(f"replay:{seed}")
        wrong = [edit for edit in self._edits if edit.truth is Label.INCORRECT]
        right = [edit for edit in self._edits if edit.truth is Label.CORRECT]
        errors = rng.sample(wrong, min(count // 2, len(wrong)))
        benign = rng.sample(right, min(len(errors) // 2, len(right)))
        originals = [(edit, edit.original) for edit in errors[: len(errors) - len(benign)]]
        asked = [LabelledNote(edit.note_id, edit.modified, Label.INCORRECT) for edit in errors]
        asked += [LabelledNote(edit.note_id, text, Label.CORRECT) for edit, text in originals]
        asked += [LabelledNote(edit.note_id, edit.modified, Label.CORRECT) for edit in benign]
        return asked

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
