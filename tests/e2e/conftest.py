"""Whole runs of ``medserl train`` on the real stack, made once and looked at often."""

from pathlib import Path

import pytest

from tests.e2e.runs import Run, train


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def uninterrupted(home: Path) -> Run:
    """Four rounds under TP=2 in one go."""
    return train(home / "uninterrupted", "--max-rounds", "4")


@pytest.fixture(scope="session")
def interrupted(home: Path) -> tuple[Run, Run]:
    """The same four rounds, ended by SIGTERM early on and taken up again."""
    first = train(home / "interrupted", "--max-rounds", "4", stop_after="round 1/4")
    return first, train(home / "interrupted", "--max-rounds", "4")
