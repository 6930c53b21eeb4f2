"""How sentences for people count."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """``no game``, ``1 game``, ``2 games``; ``many`` where the plural is not made with an s."""
    if number == 1:
        return f"1 {one}"
    plural = many or f"{one}s"
    return f"{number:,}".replace(",", " ") + f" {plural}" if number else f"no {one}"
