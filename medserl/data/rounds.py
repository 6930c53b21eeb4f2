"""The notes of a run as verl's trainer sees them: something with rounds, a length and a state to
checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medserl.config.settings import GameSettings, labelled_per_round
from medserl.errors import DataError
from medserl.game import Batch, LabelledNote, Note, NoteStream, check_disjoint, labelled_from_notes, load_notes


@dataclass(frozen=True)
class Round:
    """One round's fresh notes.

    Attributes:
        batch: Notes to play on with their modes.
        labelled: Gold-labelled notes for the assessor, both classes equally often.
    """

    batch: Batch
    labelled: tuple[LabelledNote, ...]


def training_notes(settings: GameSettings) -> list[Note]:
    """The notes that the injector edits.

    Raises:
        DataError: a file that is missing, empty, malformed, has bad rows, or was prepared as another split than
            train.
    """
    if settings.notes.path is not None:
        return load_notes(Path(settings.notes.path), split="train")
    from medserl.ward import ward_notes

    return ward_notes("train", settings.notes.count, settings.notes.seed)


def labelled_notes(settings: GameSettings, training: list[Note]) -> list[Note]:
    """Notes with gold labels, for the assessor's labelled share."""
    if settings.notes.labelled_path is not None:
        return load_notes(Path(settings.notes.labelled_path), split="train")
    if settings.notes.labelled_conditions is not None:
        from medserl.ward import ward_notes
        from medserl.ward.generator import some_conditions
        from medserl.ward.table import load_table

        table = load_table()
        known = some_conditions(table, settings.notes.labelled_conditions)
        return ward_notes("train", settings.notes.count, settings.notes.seed, table, known)
    return [note for note in training if note.error_text is not None]


def validation_notes(settings: GameSettings) -> list[Note]:
    """The held-out notes; empty where a run on a file of notes names no ``medserl.validation.path``.

    Raises:
        DataError: a file that cannot be read.
    """
    chosen = settings.validation
    if chosen.path is not None:
        return load_notes(Path(chosen.path))
    if settings.notes.path is not None:
        return []
    from medserl.ward import ward_notes

    return ward_notes("validation", chosen.count, chosen.seed)


def check_no_leak(training: Sequence[Note], held_out: Sequence[Note], where: str) -> None:
    """No held-out note may be a training note, by id or by text.

    Raises:
        DataError: names the first one that is.
    """
    try:
        check_disjoint({"train": training, "validation": held_out})
    except DataError as error:
        raise DataError(f"{where}: a held-out note is a training note too ({error}); take it out of one") from None


def planned_rounds(config: DictConfig, settings: GameSettings) -> int:
    """Rounds of a run: ``medserl.max_rounds``, or as many as ``trainer.total_epochs`` passes over the notes take."""
    if settings.max_rounds is not None:
        return settings.max_rounds
    notes = training_notes(settings)
    if settings.rollout_batch_size:
        per_epoch = len(notes) // settings.rollout_batch_size
    else:
        per_epoch = 2 * len(labelled_notes(settings, notes)) // labelled_per_round(settings)
    return per_epoch * int(config.trainer.total_epochs)


class NoteSource:
    """An endless supply of rounds; stands where verl expects its stateful data loader.

    verl saves ``state_dict()`` into every checkpoint (``data.pt``) and calls ``load_state_dict()`` on resume.
    """

    def __init__(self, settings: GameSettings) -> None:
        notes = training_notes(settings)
        self.per_round = labelled_per_round(settings)
        self.stream = NoteStream(
            notes,
            batch_size=settings.rollout_batch_size,
            seed=settings.seed,
            labelled=labelled_from_notes(labelled_notes(settings, notes)) if self.per_round else None,
        )

    @property
    def rounds_per_epoch(self) -> int:
        """Whole batches in one pass over the notes."""
        return self.stream.rounds_per_epoch

    def next_round(self) -> Round:
        """The next round's notes; never the same note twice within an epoch."""
        labelled = self.stream.next_labelled(self.per_round) if self.per_round else ()
        return Round(batch=self.stream.next_batch(), labelled=labelled)

    def __iter__(self) -> Iterator[Round]:
        while True:
            yield self.next_round()

    def state_dict(self) -> dict[str, Any]:
        """Position in the data, to be saved."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.stream.load_state_dict(state)
