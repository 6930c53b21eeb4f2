"""The notes of a run as verl's trainer sees them: something with rounds, a length and a state to
checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from medserl.config.plugins import note_source
from medserl.config.settings import FILES, WARD, GameSettings, labelled_per_round
from medserl.errors import DataError
from medserl.game import (
    Batch,
    LabelledNote,
    Note,
    NoteSource,
    NoteStream,
    check_disjoint,
    labelled_from_notes,
    load_notes,
)
from medserl.game.sources import checked_notes


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
        ConfigError: an unknown note source, or an option that it does not take.
        DataError: a file that is missing, empty, malformed, has bad rows, or was prepared as another split than
            train; a source that gives notes that no game can be played on.
    """
    source = note_source(settings)
    return _notes_of(source, source.training())


def labelled_notes(settings: GameSettings, training: list[Note]) -> list[Note]:
    """Notes with gold labels, for the assessor's labelled share."""
    if settings.notes.labelled_path is not None:
        return load_notes(Path(settings.notes.labelled_path), split="train")
    source = note_source(settings)
    return _notes_of(source, source.gold(training))


def validation_notes(settings: GameSettings) -> list[Note]:
    """The held-out notes; empty where ``medserl.validation.path`` names none and the note source has none.

    Raises:
        DataError: a file that cannot be read.
    """
    if settings.validation.path is not None:
        return load_notes(Path(settings.validation.path))
    source = note_source(settings)
    return _notes_of(source, source.held_out())


def _notes_of(source: NoteSource, notes: Sequence[Note]) -> list[Note]:
    """What the built-in sources make is right already; a user's is looked at."""
    return list(notes) if source.name in (FILES, WARD) else checked_notes(notes, source.where)


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


class RoundSource:
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
