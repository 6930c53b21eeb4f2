"""Some games of a round that say most: those that surprised the assessor most, lost and won; also as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from medserl.gamelog.kinds import Outcome, Row, Source, outcome, surprise
from medserl.report.games_text import headline, words_changed

_MARKUP = re.compile(r"([\\`*_~<>#|\[\]!&])")
_ESCAPED = r"\\\1"
_CHANGED = {"gone": "~~", "came": "**"}


def sample(rows: Iterable[Row], each: int = 5) -> list[dict[str, Any]]:
    """Up to ``each`` games of self-play that the assessor lost, and as many that it won."""
    rows = [row for row in rows if row["source"] == Source.PLAY]
    found = []
    for kind, title in ((Outcome.WRONG, "lost by the assessor"), (Outcome.RIGHT, "won by the assessor")):
        chosen = sorted((row for row in rows if outcome(row) is kind), key=lambda row: -(surprise(row) or 0.0))
        found += [
            {
                "how": title,
                "said": headline(row),
                "note": words_changed(row["original"] or "", row["shown"] or ""),
            }
            for row in chosen[:each]
        ]
    return found


def sample_text(rows: Iterable[Row], each: int = 3) -> str:
    """A sample as Markdown, for TensorBoard; empty where no game was decided. Nothing in a note is markup there."""
    return "\n\n".join(
        f"**{game['how']}** · {_MARKUP.sub(_ESCAPED, ' '.join(game['said'].split()))}\n\n"
        f"> {''.join(_marked(*part) for part in game['note'])}"
        for game in sample(rows, each)
    )


def _marked(kind: str, words: str) -> str:
    text, mark = _MARKUP.sub(_ESCAPED, " ".join(words.split())), _CHANGED.get(kind, "")
    return f"{mark}{text}{mark} " if text else ""
