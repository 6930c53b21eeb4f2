"""Held-out notes: where they come from, and that none of them trains."""

import json
from pathlib import Path

import pytest

from medserl.config.load import game_settings, load_config
from medserl.config.plugins import has_validation_notes
from medserl.data.rounds import RoundSource, training_notes, validation_notes
from medserl.errors import ConfigError, DataError
from medserl.preflight.checks import check_validation
from medserl.ward import ward_notes
from medserl.ward.generator import some_conditions
from medserl.ward.table import load_table

VALIDATES = ["trainer.test_freq=1"]


def pairs(path: Path, names: list[str]) -> Path:
    text = "The patient {} has type 2 diabetes. He takes metformin. He feels well."
    rows = [
        {"note_id": n, "correct_note": text.format(n), "incorrect_note": text.format(n).replace("2", "1")}
        for n in names
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_ward_is_validated_on_patients_of_its_validation_split() -> None:
    config = load_config("embedded", [*VALIDATES, "medserl.validation.count=30", "medserl.notes.count=64"])
    settings = game_settings(config)
    held_out = check_validation(config, settings, training_notes(settings))
    assert len(held_out) == 30 == len(validation_notes(settings))


def test_a_held_out_note_that_trains_is_an_error(tmp_path: Path) -> None:
    train, held = pairs(tmp_path / "train.jsonl", ["a", "b"]), pairs(tmp_path / "held.jsonl", ["b", "c"])
    overrides = [*VALIDATES, f"medserl.notes.path={train}", f"medserl.validation.path={held}"]
    config = load_config("embedded", overrides)
    settings = game_settings(config)
    with pytest.raises(DataError, match="is a training note too"):
        check_validation(config, settings, training_notes(settings))


def test_a_run_on_a_file_without_held_out_notes_does_not_validate(tmp_path: Path) -> None:
    config = load_config("embedded", [*VALIDATES, f"medserl.notes.path={pairs(tmp_path / 'train.jsonl', ['a', 'b'])}"])
    settings = game_settings(config)
    assert check_validation(config, settings, training_notes(settings)) == []
    assert not has_validation_notes(settings)


def test_a_run_on_labelled_notes_only_has_rounds() -> None:
    config = load_config("embedded", ["medserl.rollout_batch_size=0", "medserl.labelled_batch_size=16"])
    settings = game_settings(config)
    source = RoundSource(settings)
    round_ = source.next_round()
    assert len(round_.batch.notes) == 0 and len(round_.labelled) == 16 == config.data.train_batch_size


def test_gold_labels_can_be_known_for_some_conditions_only() -> None:
    settings = game_settings(load_config("embedded", ["medserl.notes.labelled_conditions=14"]))
    source = RoundSource(settings)
    chosen = some_conditions(load_table(), 14)
    known = {n.note_id for n in ward_notes("train", settings.notes.count, settings.notes.seed, conditions=chosen)}
    rounds = [source.next_round() for _ in range(3)]
    assert all(note.note_id in known for round_ in rounds for note in round_.labelled)
    assert not all(note.note_id in known for round_ in rounds for note in round_.batch.notes)
    with pytest.raises(ConfigError, match="labelled_conditions: 57, but the table has 56"):
        RoundSource(game_settings(load_config("embedded", ["medserl.notes.labelled_conditions=57"])))


@pytest.mark.parametrize(
    "overrides",
    [
        ["medserl.rollout_batch_size=0"],
        ["medserl.labelled_batch_size=3"],
        ["medserl.notes.labelled_conditions=0"],
        ["medserl.notes.labelled_conditions=3", "medserl.notes.path=notes.jsonl"],
        ["medserl.rollout_batch_size=1"],
        ["medserl.validation.patience=0"],
        ["medserl.advantage.injector_weight=-1"],
    ],
)
def test_sizes_that_make_no_round_are_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match="medserl"):
        load_config("embedded", overrides)
