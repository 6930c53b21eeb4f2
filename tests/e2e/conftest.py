"""Whole runs of ``medserl train`` on the real stack, made once and looked at often."""

from pathlib import Path

import pytest

from tests.e2e.runs import Run, train


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def uninterrupted(home: Path) -> Run:
    """Three rounds under TP=2 in one go, whose numbers go to a folder of MLflow's too."""
    store = {"MLFLOW_TRACKING_URI": f"file:{home / 'mlflow'}"}
    arguments = ("--max-rounds", "3", "medserl.trackers=[mlflow]")
    return train(home / "uninterrupted", *arguments, environment=store)
