"""``OUT/index.html``: what each stage of a pipeline came to, with links to its results. No text of any note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medserl.files import read_json, write_atomically
from medserl.pipeline.plan import PAGE, Folders, Request
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
    done = {stage: _read(folders.done(stage)) for stage in request.stages}
    links = {
        stage: {name: target for name, target in _LINKS[stage].items() if (folders.out / target).exists()}
        for stage in done
    }
    comparison = None
    if done["report"] is not None:
        comparison = _read(folders.out / "report" / "comparison.json")
        assert comparison is not None, "the report stage writes it before its last file"
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


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = read_json(path)
    return found


def _verdict(done: dict[str, dict[str, Any] | None]) -> str:
    report = done["report"]
    if report is None:
        return "Not finished: the same command continues it."
    sentence: str = report["sentence"]
    return f"{sentence} First: the model that self-play started from; second: the trained one."
