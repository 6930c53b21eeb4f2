"""One HTML file with the games of some runs: it needs nothing else, asks nobody for anything, and is private."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError
from medserl.files import write_atomically
from medserl.gamelog.kinds import Row
from medserl.gamelog.read import check_games
from medserl.report.games_data import Packer
from medserl.report.pages import BASE, render

PAGE = "games.html"
_SCRIPTS = ("games_data.js", "games_filter.js", "games_view.js")


def write_games(
    run_dirs: Sequence[Path], out: Path, redact: bool = False, see: Callable[[Row], None] = lambda row: None
) -> int:
    """Write the page of some runs to ``out`` (mode 0600); how many games it shows.

    Args:
        run_dirs: The runs.
        out: The page.
        redact: Leave out the texts, and what says whose a note is.
        see: Is shown every game on the way.

    Raises:
        ConfigError: a run holds no games, or the page cannot be written.
    """

    for run_dir in run_dirs:
        check_games(run_dir)
    packer = Packer(run_dirs, redact, see)
    packed = packer.pack()
    try:
        write_atomically(out, games_page(packer.runs, packed))
    except OSError as error:
        raise ConfigError(f"{out}: cannot be written ({error.strerror}); give another --out") from None
    return int(packed["games"])


def games_page(runs: Sequence[str], packed: dict[str, Any]) -> str:
    """The page with its games in it."""
    return _page(runs, live=False, index=packed["index"], chunks=packed["chunks"], links=[])


def live_page(runs: Sequence[str], links: Sequence[tuple[str, str]]) -> str:
    """The page that asks the server it came from for its games, and for newer ones.

    Args:
        runs: Names of the runs.
        links: Names and addresses of their reports.
    """
    return _page(runs, live=True, index="", chunks=[], links=list(links))


def _page(runs: Sequence[str], *, live: bool, **values: Any) -> str:
    style, script = _assets()
    # Even where something of a note became markup, it could neither run nor load anything.
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src 'sha256-{_digest(style)}'",
            f"script-src 'sha256-{_digest(script)}'",
            f"connect-src {chr(39)}{'self' if live else 'none'}{chr(39)}",
            "base-uri 'none'; form-action 'none'",
        ]
    )
    title = ", ".join(runs)
    return render(BASE, "games.html", title=title, policy=policy, style=style, script=script, live=live, **values)


@cache
def _assets() -> tuple[str, str]:
    script = "\n".join((BASE / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    return (BASE / "games.css").read_text(encoding="utf-8"), script


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
