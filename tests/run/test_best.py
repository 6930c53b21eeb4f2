"""Which validation counts as the best, when a run gives up waiting for a better one, how both survive a resume."""

import json
from pathlib import Path

import pytest

from medserl.config.settings import GameSettings
from medserl.run import checkpoint
from medserl.run.best import BestSoFar
from medserl.training.api import MedSeRLTrainer

METRIC = "val/greedy/balanced_accuracy"


def validated(best: BestSoFar, values: list[float | None]) -> list[bool]:
    first = 1 if best.found is None else best.found["step"] + best.without_better + 1
    return [best.see({} if value is None else {METRIC: value}, n) for n, value in enumerate(values, start=first)]


def test_only_a_better_validation_is_worth_a_checkpoint() -> None:
    best = BestSoFar(METRIC)
    assert validated(best, [0.6, None, 0.6, 0.7, float("nan"), 0.65]) == [True, False, False, True, False, False]
    assert best.found == {"step": 4, "metric": METRIC, "value": 0.7}


@pytest.fixture
def trainer() -> MedSeRLTrainer:
    made = MedSeRLTrainer.__new__(MedSeRLTrainer)
    made.settings, made._best = GameSettings(), BestSoFar(METRIC)
    return made


def test_patience_counts_validations_not_rounds(trainer: MedSeRLTrainer) -> None:
    trainer.settings.validation.patience = 2
    validated(trainer._best, [0.6, None, None, 0.5, None])
    assert not trainer._out_of_patience
    validated(trainer._best, [0.55])
    assert trainer._out_of_patience


def test_without_patience_a_run_never_gives_up(trainer: MedSeRLTrainer) -> None:
    validated(trainer._best, [0.6] + [0.1] * 50)
    assert not trainer._out_of_patience


def rows(values: dict[int, float]) -> list[dict[str, float]]:
    before = {"round": 0, "validation": True, METRIC: 0.99}  # before the first round: no checkpoint is its
    return [before, *({"round": n, METRIC: value} for n, value in values.items())]


def saved(root: Path, step: int) -> None:
    checkpoint.staging_dir(root).joinpath(f"global_step_{step}").mkdir()
    checkpoint.publish(root, step, {}, None)


def test_a_resumed_run_knows_its_best_and_its_patience(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    checkpoint.mark_best(tmp_path, 2, METRIC, 0.7)
    best = BestSoFar(METRIC)
    best.take_up(rows({1: 0.6, 2: 0.7, 3: 0.65, 4: 0.6}), tmp_path, 4)
    assert best.found == checkpoint.best(tmp_path) == {"step": 2, "metric": METRIC, "value": 0.7}
    assert best.without_better == 2


@pytest.mark.parametrize("kept", [True, False])
def test_a_mark_on_a_round_that_is_played_again_is_taken_back(tmp_path: Path, kept: bool) -> None:
    """Round 4's checkpoint was damaged; the mark goes back to round 2's where retention has left that one."""
    if kept:
        saved(tmp_path, 2)
    saved(tmp_path, 3)
    checkpoint.mark_best(tmp_path, 4, METRIC, 0.8)
    best = BestSoFar(METRIC)
    best.take_up(rows({1: 0.6, 2: 0.7, 3: 0.65}), tmp_path, 3)
    assert best.found == {"step": 2, "metric": METRIC, "value": 0.7}
    assert checkpoint.best(tmp_path) == (best.found if kept else None)
    assert best.see({METRIC: 0.8}, 4), "played again, round 4 is the best again"


def test_a_mark_outlives_its_metrics(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    checkpoint.mark_best(tmp_path, 2, METRIC, 0.7)
    best = BestSoFar(METRIC)
    best.take_up([], tmp_path, 5)
    assert best.found == json.loads((tmp_path / checkpoint.BEST).read_text())
