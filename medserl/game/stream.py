"""The seeded streams that deal notes out round by round."""

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medserl.errors import ConfigError, DataError
from medserl.game.labels import Label, Mode
from medserl.game.records import LabelledNote, Note


@dataclass(frozen=True, slots=True)
class Batch:
    """What one round plays with: ``modes[i]`` belongs to ``notes[i]``. Rounds and epochs count from 1."""

    round: int
    epoch: int
    notes: tuple[Note, ...]
    modes: tuple[Mode, ...]


class LabelledStream:
    """Deals gold-labelled notes, as many CORRECT as INCORRECT ones, in a seeded order.

    An epoch is a shuffled list of pairs: the two versions of one note where both exist, else a CORRECT note
    with an INCORRECT one, drawn anew each epoch; what is left over of the larger class sits that epoch out.
    Draws run through epoch after epoch, so a draw may span two; what it took of the first comes later in the second, so
    that a draw has a note twice only where there are too few notes for it.
    """

    def __init__(self, labelled: Sequence[LabelledNote], seed: int) -> None:
        """Raises ConfigError where one of the two classes is missing."""
        counts = {label: sum(note.label is label for note in labelled) for label in Label}
        for label, count in counts.items():
            if count == 0:
                raise ConfigError(f"the labelled notes hold no {label.value} note; both classes are needed")
        self._labelled = tuple(labelled)
        self._seed = seed
        self._fingerprint = _fingerprint(
            (note.note_id, note.text, note.label.value, note.error_type) for note in self._labelled
        )
        self._epoch = 1
        self._position = 0
        self._deferred: tuple[list[int], int] = [], 0
        self._order = self._epoch_order()

    def next_labelled(self, count: int) -> tuple[LabelledNote, ...]:
        """The next ``count`` notes; within an epoch the classes' numbers differ by one at most."""
        drawn: list[int] = []
        while len(drawn) < count:
            if self._position == len(self._order):
                self._epoch += 1
                self._position = 0
                self._deferred = sorted(set(drawn)), count - len(drawn)
                self._order = self._epoch_order()
            taken = self._order[self._position : self._position + count - len(drawn)]
            self._position += len(taken)
            drawn.extend(taken)
        return tuple(self._labelled[index] for index in drawn)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position; with the same notes and seed it restores the stream exactly."""
        return {
            "fingerprint": self._fingerprint,
            "seed": self._seed,
            "epoch": self._epoch,
            "position": self._position,
            "deferred": list(self._deferred),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Raises ConfigError where the state belongs to other notes or another seed."""
        _refuse_other(state, "labelled notes", fingerprint=self._fingerprint, seed=self._seed)
        indices, ahead = state.get("deferred", ([], 0))  # positions that earlier versions saved have none
        self._epoch = int(state["epoch"])
        self._deferred = [int(index) for index in indices], int(ahead)
        self._order = self._epoch_order()
        self._position = int(state["position"])

    def _epoch_order(self) -> tuple[int, ...]:
        rng = random.Random(f"labelled:{self._seed}:{self._epoch}")
        versions: dict[str, dict[Label, int]] = {}
        spare: dict[Label, list[int]] = {label: [] for label in Label}
        for index, note in enumerate(self._labelled):
            if versions.setdefault(note.note_id, {}).setdefault(note.label, index) != index:
                spare[note.label].append(index)
        pairs: list[list[int]] = []
        for version in versions.values():
            if len(version) == 2:
                pairs.append(list(version.values()))
            else:
                for label, index in version.items():
                    spare[label].append(index)
        for label in Label:
            rng.shuffle(spare[label])
        # Deliberately not strict: the surplus of the larger class sits this epoch out.
        mixed = zip(spare[Label.CORRECT], spare[Label.INCORRECT], strict=False)
        pairs.extend([left, right] for left, right in mixed)
        rng.shuffle(pairs)
        for pair in pairs:
            rng.shuffle(pair)
        return tuple(index for pair in self._without_repeats(pairs) for index in pair)

    def _without_repeats(self, pairs: list[list[int]]) -> list[list[int]]:
        """Pairs of which the draw under way had a note come after as many others as it still needs."""
        had, needed = set(self._deferred[0]), self._deferred[1]
        ahead = [pair for pair in pairs if not had.intersection(pair)][: (needed + 1) // 2]
        return ahead + [pair for pair in pairs if pair not in ahead]


class NoteStream:
    """Deals a fresh batch of notes and modes each round.

    Every epoch is a new seeded shuffle of all notes; no note repeats inside an epoch. What is left of an
    epoch that does not fill a batch is dropped (the next epoch's shuffle gives those notes their turn
    again). Half of a batch's modes are benign and half error, in a seeded order; with an odd batch size the
    extra one alternates. Batches depend on (notes, batch_size, seed, round) only.
    """

    def __init__(
        self,
        notes: Sequence[Note],
        batch_size: int,
        seed: int,
        labelled: Sequence[LabelledNote] | None = None,
    ) -> None:
        """Batch size 0 deals empty batches: a run on labelled notes only.

        Raises ConfigError for a batch size not in 0..len(notes), DataError for a repeated id.
        """
        if batch_size < 0:
            raise ConfigError(f"the rollout batch size is {batch_size}; it must not be negative")
        if batch_size > len(notes):
            raise ConfigError(
                f"the rollout batch size is {batch_size}, but there are only {len(notes)} notes; "
                "choose a smaller batch or give more notes"
            )
        ids: set[str] = set()
        for note in notes:
            if note.note_id in ids:
                raise DataError(f"note id {note.note_id!r} occurs more than once")
            ids.add(note.note_id)
        self._notes = tuple(notes)
        self._batch_size = batch_size
        self._seed = seed
        self._rounds_done = 0
        self._shuffled: tuple[int, list[int]] = (0, [])
        self._fingerprint = notes_fingerprint(self._notes)
        self._labelled = None if labelled is None else LabelledStream(labelled, seed)

    @property
    def rounds_per_epoch(self) -> int:
        return len(self._notes) // self._batch_size if self._batch_size else 1

    @property
    def rounds_done(self) -> int:
        """Batches dealt so far, over all epochs."""
        return self._rounds_done

    def next_batch(self) -> Batch:
        """The next round's batch."""
        self._rounds_done += 1
        return self.batch_at(self._rounds_done)

    def batch_at(self, round_number: int) -> Batch:
        """The batch of any round (from 1), without moving the stream."""
        if round_number < 1:
            raise ValueError(f"rounds count from 1, got {round_number}")
        epoch, index = divmod(round_number - 1, self.rounds_per_epoch)
        order = self._order(epoch + 1)[index * self._batch_size : (index + 1) * self._batch_size]
        return Batch(round_number, epoch + 1, tuple(self._notes[i] for i in order), self._modes(round_number))

    def next_labelled(self, count: int) -> tuple[LabelledNote, ...]:
        """The next ``count`` gold-labelled notes; ConfigError where the stream was built without any."""
        if self._labelled is None:
            raise ConfigError("no labelled notes were given, but labelled rows were asked for")
        return self._labelled.next_labelled(count)

    def state_dict(self) -> dict[str, Any]:
        """JSON-able position of both streams."""
        return {
            "fingerprint": self._fingerprint,
            "batch_size": self._batch_size,
            "seed": self._seed,
            "rounds_done": self._rounds_done,
            "labelled": None if self._labelled is None else self._labelled.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to a saved position; ConfigError where it belongs to other notes, batch size or seed."""
        _refuse_other(state, "notes", fingerprint=self._fingerprint, batch_size=self._batch_size, seed=self._seed)
        labelled = state.get("labelled")
        if (labelled is None) != (self._labelled is None):
            raise ConfigError("the saved position and this run do not agree on whether there are labelled notes")
        if self._labelled is not None and labelled is not None:
            self._labelled.load_state_dict(labelled)
        self._rounds_done = int(state["rounds_done"])

    def _order(self, epoch: int) -> list[int]:
        if self._shuffled[0] != epoch:
            order = list(range(len(self._notes)))
            random.Random(f"notes:{self._seed}:{epoch}").shuffle(order)
            self._shuffled = (epoch, order)
        return self._shuffled[1]

    def _modes(self, round_number: int) -> tuple[Mode, ...]:
        half, odd = divmod(self._batch_size, 2)
        modes = [Mode.BENIGN] * half + [Mode.ERROR] * half
        if odd:
            modes.append(Mode.ERROR if round_number % 2 else Mode.BENIGN)
        random.Random(f"modes:{self._seed}:{round_number}").shuffle(modes)
        return tuple(modes)


def notes_fingerprint(notes: Iterable[Note]) -> str:
    """SHA-256 over every field of the notes, in order."""
    return _fingerprint(
        (n.note_id, n.text, n.error_text, n.error_type, n.error_sentence, n.corrected_sentence) for n in notes
    )


def _fingerprint(rows: Iterable[tuple[str | None, ...]]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        for field in row:
            # A length before each field keeps ("ab", "c") and ("a", "bc") apart; -1 is None.
            encoded = b"" if field is None else field.encode("utf-8", "surrogatepass")
            digest.update(f"{-1 if field is None else len(encoded)}:".encode())
            digest.update(encoded)
    return digest.hexdigest()


def _refuse_other(state: Mapping[str, Any], what: str, **own: object) -> None:
    for key, value in own.items():
        if state.get(key) != value:
            detail = "other notes" if key == "fingerprint" else f"{key} {state.get(key)!r}, not {value!r}"
            raise ConfigError(f"the saved position of the {what} was taken with {detail}; it cannot be used here")
