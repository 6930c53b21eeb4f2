"""Which validation counts as the best, and when a run gives up waiting for a better one."""

from types import SimpleNamespace
from typing import Any

import pytest

from medserl.training.api import MedSeRLTrainer
from medserl.training.settings import GameSettings

METRIC = "val/greedy/balanced_accuracy"


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> MedSeRLTrainer:
    """A trainer that has not been started, at a round that the test sets."""
    made = MedSeRLTrainer.__new__(MedSeRLTrainer)
    made.settings = GameSettings()
    made._best, made._without_better = None, 0
    state: Any = SimpleNamespace(global_steps=0)
    monkeypatch.setattr(MedSeRLTrainer, "trainer", property(lambda self: state))
    return made


def validated(trainer: MedSeRLTrainer, values: list[float | None]) -> list[bool]:
    found = []
    for value in values:
        trainer.trainer.global_steps += 1
        found.append(trainer._remember_best({} if value is None else {METRIC: value}))
    return found


def test_only_a_better_validation_is_worth_a_checkpoint(trainer: MedSeRLTrainer) -> None:
    assert validated(trainer, [0.6, None, 0.6, 0.7, float("nan"), 0.65]) == [True, False, False, True, False, False]
    assert trainer._best == {"step": 4, "metric": METRIC, "value": 0.7}


def test_patience_counts_validations_not_rounds(trainer: MedSeRLTrainer) -> None:
    trainer.settings.validation.patience = 2
    validated(trainer, [0.6, None, None, 0.5, None])
    assert not trainer._out_of_patience
    validated(trainer, [0.55])
    assert trainer._out_of_patience


def test_without_patience_a_run_never_gives_up(trainer: MedSeRLTrainer) -> None:
    validated(trainer, [0.6] + [0.1] * 50)
    assert not trainer._out_of_patience


def test_another_metric_may_choose(trainer: MedSeRLTrainer) -> None:
    trainer.settings.validation.best_metric = "val/greedy/mcc"
    trainer.trainer.global_steps = 1
    assert trainer._remember_best({METRIC: 0.9, "val/greedy/mcc": 0.2})
    assert trainer._best is not None and trainer._best["metric"] == "val/greedy/mcc"
