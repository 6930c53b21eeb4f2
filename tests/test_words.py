"""How sentences count."""

import pytest

from medserl.words import counted


@pytest.mark.parametrize(
    ("number", "one", "many", "text"),
    [
        (0, "note", None, "no note"),
        (1, "pass", "passes", "1 pass"),
        (2, "pass", "passes", "2 passes"),
        (64000, "game", None, "64 000 games"),
    ],
)
def test_counted(number: int, one: str, many: str | None, text: str) -> None:
    assert counted(number, one, many) == text
