"""What `medserl train` says of its rounds before it starts."""

from types import SimpleNamespace
from typing import Any

import pytest

from medserl.cli.train_plan import rounds_line
from medserl.config.load import game_settings, load_config


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("medserl.seed=2", "of 32 notes and 16 gold-labelled notes"),
        (
            "medserl.replay_batch_size=8",
            "of 32 notes, 16 gold-labelled notes and up to 8 questions about earlier rounds",
        ),
    ],
)
def test_what_a_round_consists_of(override: str, told: str) -> None:
    config = load_config("embedded", [override])
    trainer: Any = SimpleNamespace(config=config, settings=game_settings(config), planned_rounds=30)
    assert rounds_line(trainer) == f"30 rounds (1 pass over the notes) {told}"
