"""What the game log and its page cost: ``python benchmarks/games.py RUN_DIR [--games 64000]``.

Takes the games of a finished run as often as it needs, each copy with a word of its own, so that texts do not repeat.
Writing is told as a share of the rounds' time, validations included, which the run recorded. Opening needs playwright
and a Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from medserl.gamelog.log import GameLog
from medserl.gamelog.read import read_games
from medserl.report.games_page import write_games
from medserl.run.run_log import METRICS_FILE, read_metrics


def copies(rows: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """So many rows, each with a word of its own in note and edit."""
    found = []
    for i, row in enumerate(islice(cycle(rows), count)):
        texts = {name: f"{row[name]} #{i}" for name in ("original", "shown") if row[name] is not None}
        found.append(row | texts | {"round": i // 100 + 1, "place": i % 100})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--games", type=int, default=64000)
    options = parser.parse_args()
    rows = list(read_games(options.run_dir))
    metrics = read_metrics(options.run_dir / METRICS_FILE)
    took = sum(row.get("timing_s/step", 0.0) + row.get("timing_s/validate", 0.0) for row in metrics)
    by_round = {number: [row for row in rows if row["round"] == number] for number in {row["round"] for row in rows}}
    with tempfile.TemporaryDirectory() as folder:
        log, seconds = GameLog(Path(folder)), []
        log.write(0, rows[:1])  # what is slow once
        for number, played in by_round.items():
            began = time.perf_counter()
            log.write(number, played)
            seconds.append(time.perf_counter() - began)
        result = {"write_s": statistics.median(seconds), "share_of_rounds": sum(seconds) / took}
    with tempfile.TemporaryDirectory() as folder:
        log, many = GameLog(Path(folder)), copies(rows, options.games)
        for first in range(0, len(many), 100):
            log.write(first // 100 + 1, many[first : first + 100])
        began, page = time.perf_counter(), Path(folder) / "games.html"
        write_games([Path(folder)], page)
        result |= {"make_page_s": time.perf_counter() - began, "page_mb": page.stat().st_size / 1e6}
        print(json.dumps(result | opened(page)))


def opened(page: Path) -> dict[str, float]:
    """Seconds until the first games are seen, and until a search through all texts is over."""
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium", "google-chrome"))))
    with sync_playwright() as driver:
        tab = driver.chromium.launch(executable_path=found).new_page()
        began = time.perf_counter()
        tab.goto(f"file://{page}")
        tab.wait_for_selector("article")
        seen = time.perf_counter()
        tab.fill("input[type=search]", "nowhere in any note")
        tab.get_by_text("0 of ").wait_for()
        return {"open_s": seen - began, "search_s": time.perf_counter() - seen}


if __name__ == "__main__":
    main()
