"""``OUT/index.html``: what each stage of a pipeline came to, with links to its results. No text of any note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medserl.errors import ConfigError
from medserl.files import read_object, write_atomically
from medserl.pipeline.plan import AGAIN, DONE, PAGE, RECORDED, Folders, Request
from medserl.report.pages import render

_METRICS = ("accuracy", "balanced_accuracy", "mcc", "recall_correct", "recall_incorrect")
_LINKS = {
    "prepare": {"manifest": "prepare/data/manifest.json"},
    "sft": {"run": "sft/run", "model": "sft/run/model"},
    "train": {"report with curves": "train/run/report.html", "model": "train/model", "run": "train/run"},
    "evaluate": {"start": "evaluate/start/results.md", "trained": "evaluate/trained/results.md"},
    "report": {"comparison": "report/comparison.md"},
}


def write_page(folders: Folders, request: Request) -> Path:
    """Write the page (mode 0600) from the stages' last files; stages that are not done are said to be so."""
    done = {stage: _done(folders, stage) for stage in request.stages}
    links = {
        stage: {name: target for name, target in _LINKS[stage].items() if (folders.out / target).exists()}
        for stage in done
    }
    comparison = None
    if done["report"] is not None:
        comparison = _comparison(folders.out / "report" / "comparison.json")
    page = render(
        Path(__file__).with_name("templates"),
        "pipeline.html",
        verdict=_verdict(done),
        done=done,
        links=links,
        comparison=comparison,
        metrics=_METRICS,
    )
    write_atomically(folders.out / PAGE, page)
    return folders.out / PAGE


def _done(folders: Folders, stage: str) -> dict[str, Any] | None:
    path = folders.done(stage)
    return read_object(path, AGAIN, RECORDED[stage]) if path.is_file() else None


def _comparison(path: Path) -> dict[str, Any]:
    """What the report stage writes before its last file."""
    mend = f"remove {path.with_name(DONE)} to have it made again"
    found = read_object(path, mend, {"texts": int, "first": dict, "second": dict})
    for side in ("first", "second"):
        if not all(isinstance(found[side].get(name, ""), int | float | None) for name in _METRICS):
            raise ConfigError(f"{path}: {side!r} lacks a metric; {mend}")
    return found


def _verdict(done: dict[str, dict[str, Any] | None]) -> str:
    report = done["report"]
    if report is None:
        return "Not finished: the same command continues it."
    sentence: str = report["sentence"]
    return f"{sentence} First: the model that self-play started from; second: the trained one."
