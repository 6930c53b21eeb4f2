"""``medserl games``: the games of runs on a page, and in the terminal."""

from __future__ import annotations

import argparse
from enum import StrEnum
from pathlib import Path

from medserl.errors import EXIT_OK, ConfigError
from medserl.game.labels import Mode
from medserl.game.vcf import Reason
from medserl.gamelog.kinds import SORTS, Outcome, Source

DEFAULT_SHOWN = 3


def add_games(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl games``."""
    parser = commands.add_parser(
        "games",
        help="show the games of runs: notes with their change, who was right, and every reply",
        description="Write one page with all games of the runs, to open in a browser, and print a summary. A run may "
        "still be under way. On a terminal, the games that surprised the assessor most are shown too; "
        "the options below choose other games.",
    )
    parser.set_defaults(run=run_games)
    parser.add_argument(
        "run_dirs", type=Path, nargs="+", metavar="RUN", help="the directory of a run of `medserl train`"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: games.html in the first RUN)")
    parser.add_argument("--redact", action="store_true", help="leave out all texts and note ids, and keep only numbers")
    parser.add_argument(
        "--show",
        type=int,
        metavar="N",
        help=f"how many games to show here (default: {DEFAULT_SHOWN}, or none if the output is piped)",
    )
    chosen = parser.add_argument_group("games to show here (the page has filters of its own)")
    chosen.add_argument("--rounds", metavar="N or M-N", help="games of these rounds")
    chosen.add_argument("--kind", choices=_words(Source), help="games of this kind")
    chosen.add_argument("--mode", choices=_words(Mode), help="games in which the injector was asked for this")
    chosen.add_argument("--type", metavar="TYPE", help="games of this error type, e.g. diagnosis")
    chosen.add_argument("--outcome", choices=_words(Outcome), help="games that ended in this way")
    chosen.add_argument(
        "--reason", choices=_words(Reason), help="games with an attempt that was rejected for this reason"
    )
    chosen.add_argument("--contradiction", action="store_true", help="games whose edit was not what was asked for")
    chosen.add_argument("--disagreement", action="store_true", help="games on which the two referees disagree")
    chosen.add_argument("--search", metavar="TEXT", help='games with these words, or with "a phrase" in double quotes')
    chosen.add_argument("--sort", choices=SORTS, default="surprise", help="which games come first (default: surprise)")


def _words(kinds: type[StrEnum]) -> list[str]:
    return [kind.value for kind in kinds]


def run_games(options: argparse.Namespace, overrides: list[str]) -> int:
    """Write the page; print what the games show, and some of them."""
    import heapq
    import sys

    from medserl.gamelog.kinds import Row
    from medserl.report.games_data import read_runs
    from medserl.report.games_page import PAGE, write_games
    from medserl.report.games_text import Choice, Tally, first_of_each, show_game
    from medserl.report.terminal import Table, show

    if overrides:
        raise ConfigError(f"{overrides[0]}: games takes run directories and no overrides")
    count = (DEFAULT_SHOWN if sys.stdout.isatty() else 0) if options.show is None else options.show
    if count < 0:
        raise ConfigError(f"--show: {count} games cannot be shown; give 0 or more")
    choice = Choice(
        rounds=_rounds(options.rounds),
        source=options.kind,
        mode=options.mode,
        error_type=options.type,
        reason=options.reason,
        outcome=options.outcome,
        contradiction=options.contradiction,
        disagreement=options.disagreement,
        search=options.search,
        sort=options.sort,
    )
    tally, fitting = Tally(), 0

    def see(row: Row) -> None:
        nonlocal fitting
        if choice.fits(row):
            fitting += 1
            tally.see(row)

    out = options.out or options.run_dirs[0] / PAGE
    written = write_games(options.run_dirs, out, options.redact, see)
    if count:
        rows = (row for row in read_runs(options.run_dirs, options.redact) if choice.fits(row))
        # Unasked, each text once: held-out notes are judged at every validation, in two ways.
        once = rows if options.show is not None else first_of_each(rows, choice.key)
        for row in heapq.nsmallest(count, once, key=choice.key):
            show_game(row)
        print()
    of = "" if fitting == written else f" of {written:,}"
    show(Table([f"{fitting:,}{of} {'game' if written == 1 else 'games'}", "", ""], tally.rows))
    print(f"all of them, to look at in a browser: {out}")
    return EXIT_OK


def _rounds(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    first, dash, last = text.partition("-")
    if not first.isdigit() or (dash and not last.isdigit()):
        raise ConfigError(f"--rounds {text!r}: is neither a round nor two with a dash between; write 7 or 3-10")
    return int(first), int(last) if dash else int(first)
