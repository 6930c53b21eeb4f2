"""Batches: fresh every round, seeded, resumable; splits disjoint."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import ConfigError, DataError
from medserl.game.notes import (
    Label,
    LabelledNote,
    LabelledStream,
    Mode,
    Note,
    NoteStream,
    check_disjoint,
    labelled_from_notes,
    notes_fingerprint,
)


def make_notes(count: int, with_error: int = 0) -> list[Note]:
    return [Note(f"n{i}", f"Note {i}.", f"Wrong {i}." if i < with_error else None) for i in range(count)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32), st.integers(1, 3))
def test_an_epoch_deals_no_note_twice_and_halves_the_modes(count: int, size: int, seed: int, epochs: int) -> None:
    if size > count:
        size = count
    stream = NoteStream(make_notes(count), size, seed)
    assert stream.rounds_per_epoch == count // size
    for epoch in range(1, epochs + 1):
        dealt: list[str] = []
        for index in range(stream.rounds_per_epoch):
            batch = stream.next_batch()
            assert batch.epoch == epoch
            assert batch.round == (epoch - 1) * stream.rounds_per_epoch + index + 1 == stream.rounds_done
            assert len(batch.notes) == len(batch.modes) == size
            modes = Counter(batch.modes)
            assert abs(modes[Mode.BENIGN] - modes[Mode.ERROR]) == size % 2
            dealt.extend(note.note_id for note in batch.notes)
        assert len(dealt) == len(set(dealt)) == count // size * size


def test_epochs_and_seeds_shuffle_differently() -> None:
    notes = make_notes(60)

    def ids(stream: NoteStream) -> list[str]:
        return [note.note_id for _ in range(6) for note in stream.next_batch().notes]

    stream = NoteStream(notes, 10, seed=1)
    first, second = ids(stream), ids(stream)
    assert sorted(first) == sorted(second)
    assert first != second
    assert ids(NoteStream(notes, 10, seed=1)) == first
    assert ids(NoteStream(notes, 10, seed=2)) != first
    assert first != [note.note_id for note in notes]


def test_an_odd_batch_alternates_the_extra_mode() -> None:
    stream = NoteStream(make_notes(10), 5, seed=0)
    errors = [Counter(stream.next_batch().modes)[Mode.ERROR] for _ in range(4)]
    assert errors == [3, 2, 3, 2]


@given(st.integers(2, 20), st.integers(1, 8), st.integers(0, 12), st.integers(0, 9))
def test_a_restored_stream_goes_on_exactly(count: int, size: int, rounds: int, labelled: int) -> None:
    notes = make_notes(count, with_error=count // 2 + 1)
    size = min(size, count)

    def fresh() -> NoteStream:
        return NoteStream(notes, size, 5, labelled_from_notes(notes))

    stream = fresh()
    for _ in range(rounds):
        stream.next_batch()
        stream.next_labelled(labelled)
    state = json.loads(json.dumps(stream.state_dict()))
    restored = fresh()
    restored.load_state_dict(state)
    for _ in range(5):
        assert restored.next_batch() == stream.next_batch()
        assert restored.next_labelled(labelled) == stream.next_labelled(labelled)
    assert restored.state_dict() == stream.state_dict()


def test_looking_at_a_round_does_not_move_the_stream() -> None:
    stream = NoteStream(make_notes(9), 2, seed=3)
    ahead = [stream.batch_at(number) for number in (7, 1, 4)]
    batches = {batch.round: batch for batch in (stream.next_batch() for _ in range(8))}
    assert ahead == [batches[7], batches[1], batches[4]]
    with pytest.raises(ValueError, match="count from 1"):
        stream.batch_at(0)


@pytest.mark.parametrize(
    ("notes", "size", "seed", "what"),
    [
        (make_notes(9), 2, 0, "other notes"),
        ([*make_notes(7), Note("n7", "Changed.")], 2, 0, "other notes"),
        (make_notes(8)[::-1], 2, 0, "other notes"),
        (make_notes(8), 4, 0, "batch_size 2, not 4"),
        (make_notes(8), 2, 1, "seed 0, not 1"),
    ],
)
def test_a_foreign_position_is_refused(notes: list[Note], size: int, seed: int, what: str) -> None:
    state = NoteStream(make_notes(8), 2, 0).state_dict()
    stream = NoteStream(notes, size, seed)
    with pytest.raises(ConfigError, match=what):
        stream.load_state_dict(state)
    assert stream.rounds_done == 0


def test_a_position_with_or_without_labelled_notes_is_not_the_others() -> None:
    notes = make_notes(8, with_error=4)
    bare, with_labelled = NoteStream(notes, 2, 0), NoteStream(notes, 2, 0, labelled_from_notes(notes))
    with pytest.raises(ConfigError, match="labelled"):
        bare.load_state_dict(with_labelled.state_dict())
    with pytest.raises(ConfigError, match="labelled"):
        with_labelled.load_state_dict(bare.state_dict())
    with pytest.raises(ConfigError, match="labelled"):
        bare.next_labelled(2)


@pytest.mark.parametrize("size", [-1, 9])
def test_impossible_batch_sizes(size: int) -> None:
    with pytest.raises(ConfigError, match="batch size"):
        NoteStream(make_notes(8), size, 0)


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(DataError, match="'a' occurs more than once"):
        NoteStream([Note("a", "x."), Note("a", "x.")], 1, 0)


def test_the_fingerprint_sees_every_field_and_its_borders() -> None:
    notes = [Note("ab", "c"), Note("a", "bc"), Note("a", "bc", ""), Note("a", "bc", None, "")]
    notes += [Note("a", "bc", None, None, ""), Note("a", "bc", None, None, None, "")]
    prints = [notes_fingerprint([note]) for note in notes]
    assert len(set(prints)) == len(notes)
    assert notes_fingerprint(notes) != notes_fingerprint(notes[::-1])


# ----------------------------------------------------------------------------------------------- labelled


def test_pairs_come_together_and_classes_are_balanced() -> None:
    stream = LabelledStream(labelled_from_notes(make_notes(6, with_error=6)), seed=4)
    drawn = stream.next_labelled(12)
    for left, right in zip(drawn[::2], drawn[1::2], strict=True):
        assert left.note_id == right.note_id
        assert left.label is right.label.other
    assert len({(note.note_id, note.label) for note in drawn}) == 12
    assert {drawn[i].label for i in range(0, 12, 2)} == set(Label)


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8), st.lists(st.integers(0, 5), max_size=8))
def test_any_pool_gives_balanced_classes(pairs: int, right: int, wrong: int, draws: list[int]) -> None:
    pool = labelled_from_notes(make_notes(pairs, with_error=pairs))
    pool += [LabelledNote(f"r{i}", f"Right {i}.", Label.CORRECT) for i in range(right)]
    pool += [LabelledNote(f"w{i}", f"Bad {i}.", Label.INCORRECT) for i in range(wrong)]
    stream = LabelledStream(pool, seed=0)
    drawn = [note for count in draws for note in stream.next_labelled(count)]
    assert len(drawn) == sum(draws)
    labels = Counter(note.label for note in drawn)
    assert abs(labels[Label.CORRECT] - labels[Label.INCORRECT]) <= 1
    epoch = 2 * (pairs + min(right, wrong))
    first = drawn[:epoch]
    assert len({(note.note_id, note.label) for note in first}) == len(first)


def test_the_surplus_class_gets_its_turn_in_later_epochs() -> None:
    pool = [LabelledNote(f"r{i}", f"Right {i}.", Label.CORRECT) for i in range(12)]
    pool.append(LabelledNote("w", "Bad.", Label.INCORRECT))
    seen = {note.note_id for note in LabelledStream(pool, seed=0).next_labelled(120)}
    assert len(seen) > 8


@pytest.mark.parametrize("label", list(Label))
def test_one_class_alone_is_refused(label: Label) -> None:
    with pytest.raises(ConfigError, match=f"no {label.other.value} note"):
        LabelledStream([LabelledNote("a", "x.", label)], seed=0)


# ------------------------------------------------------------------------------------------------- splits


def test_splits_that_share_nothing() -> None:
    check_disjoint({"train": make_notes(3), "test": [Note("t", "Test.")], "empty": []})


def test_an_id_in_two_splits_is_named() -> None:
    test = labelled_from_notes([Note("n1", "Another text.")])
    with pytest.raises(DataError, match=r"'n1'.*'test'.*'train'"):
        check_disjoint({"train": make_notes(3), "test": test})


def test_a_text_in_two_splits_is_named() -> None:
    with pytest.raises(DataError, match=r"'t'.*'test'.*'n2'.*'train'"):
        check_disjoint({"train": make_notes(3), "test": [Note("t", "Note\n2. ")]})


@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99), st.integers(0, 30))
def test_no_draw_has_a_note_twice_where_there_are_enough(pairs: int, half: int, seed: int, saved_at: int) -> None:
    """Rounds whose size does not divide the notes span two passes over them."""
    size = 2 * min(half, pairs)
    pool = labelled_from_notes(make_notes(pairs, with_error=pairs))
    stream = LabelledStream(pool, seed)
    draws = []
    for number in range(30):
        if number == saved_at:
            state = json.loads(json.dumps(stream.state_dict()))
            stream = LabelledStream(pool, seed)
            stream.load_state_dict(state)
        draws.append(stream.next_labelled(size))
        assert len(set(draws[-1])) == size
        assert Counter(note.label for note in draws[-1]) == {Label.CORRECT: size // 2, Label.INCORRECT: size // 2}
    whole = LabelledStream(pool, seed)
    assert draws == [whole.next_labelled(size) for _ in draws]
    dealt = Counter(note for draw in draws for note in draw)
    assert max(dealt.values()) - min(dealt[note] for note in pool) <= 1


def test_a_draw_that_needs_more_than_there_is_repeats_notes() -> None:
    drawn = LabelledStream(labelled_from_notes(make_notes(3, with_error=3)), seed=1).next_labelled(16)
    assert sorted(Counter(drawn).values()) == [2, 2, 3, 3, 3, 3]


def test_a_position_of_an_earlier_version_is_taken_up() -> None:
    pool = labelled_from_notes(make_notes(8, with_error=8))
    stream, other = LabelledStream(pool, seed=1), LabelledStream(pool, seed=1)
    stream.next_labelled(4)
    other.load_state_dict({key: value for key, value in stream.state_dict().items() if key != "deferred"})
    assert other.next_labelled(8) == stream.next_labelled(8)


def test_batch_size_zero_deals_empty_batches_for_runs_on_labelled_notes_only() -> None:
    stream = NoteStream(make_notes(8), 0, 0)
    assert [len(stream.next_batch().notes) for _ in range(3)] == [0, 0, 0]
