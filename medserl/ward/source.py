"""The ward as a note source."""

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

from medserl.game.records import Note
from medserl.game.sources import NoteSource, register_note_source
from medserl.ward.generator import some_conditions, ward_notes
from medserl.ward.table import load_table


@register_note_source
class WardNotes(NoteSource):
    """Synthetic notes, made from seeds.

    Args:
        count: Notes to train on.
        seed: Seed of these.
        labelled_conditions: Conditions whose notes have a known gold label; None: all.
        held_out_count: Patients of the validation split.
        held_out_seed: Seed of these.
    """

    name: ClassVar[str] = "ward"

    def __init__(
        self, count: int, seed: int, labelled_conditions: int | None, held_out_count: int, held_out_seed: int
    ) -> None:
        self._count, self._seed, self._conditions = count, seed, labelled_conditions
        self._held_out = (held_out_count, held_out_seed)

    def training(self) -> list[Note]:
        return list(_notes("train", self._count, self._seed))

    def gold(self, training: Sequence[Note]) -> Sequence[Note]:
        if self._conditions is None:
            return super().gold(training)
        return _notes("train", self._count, self._seed, some_conditions(load_table(), self._conditions))

    def held_out(self) -> list[Note]:
        return list(_notes("validation", *self._held_out))

    @property
    def where(self) -> str:
        return "the synthetic ward"


@lru_cache(maxsize=8)
def _notes(split: str, count: int, seed: int, conditions: frozenset[str] | None = None) -> tuple[Note, ...]:
    """The ward's notes, made once: the checks, the plan and the rounds of one start all ask for them, and a thousand
    take half a second."""
    return tuple(ward_notes(split, count, seed, conditions=conditions))
