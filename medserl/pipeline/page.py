"""``OUT/index.html``: what each stage of a pipeline came to, with links to its results. No text of any note."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from medserl.files import write_atomically
from medserl.pipeline.plan import PAGE, Folders, Request

_STYLE = (
    "body{font-family:sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td,th{padding:3px 14px 3px 0;text-align:left;vertical-align:top}"
)
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
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>medserl pipeline</title>',
        f"<style>{_STYLE}</style></head><body>\n<h1>medserl pipeline</h1>\n",
        f"<p>{escape(_verdict(done))}</p>\n{_stages(done, folders.out)}\n",
        *_notes(done["prepare"]),
        *_training(done["train"]),
        *_evaluation(folders, done["report"]),
        f"<details><summary>Settings</summary><pre>{escape(json.dumps(request.record(), indent=1))}</pre></details>\n",
        "</body></html>\n",
    ]
    write_atomically(folders.out / PAGE, "".join(parts))
    return folders.out / PAGE


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _verdict(done: dict[str, dict[str, Any] | None]) -> str:
    report = done["report"]
    if report is None:
        return "Not finished: the same command goes on."
    sentence: str = report["sentence"]
    return f"{sentence} First: the model that self-play started from; second: the trained one."


def _stages(done: dict[str, dict[str, Any] | None], out: Path) -> str:
    rows = ["<tr><th>stage</th><th>state</th><th>seconds</th><th>results</th></tr>"]
    for stage, record in done.items():
        links = ", ".join(
            f'<a href="{target}">{escape(name)}</a>'
            for name, target in _LINKS[stage].items()
            if (out / target).exists()
        )
        state, seconds = ("done", record["seconds"]) if record else ("not done", "")
        rows.append(f"<tr><td>{stage}</td><td>{state}</td><td>{seconds}</td><td>{links}</td></tr>")
    return _table(rows)


def _notes(prepared: dict[str, Any] | None) -> Iterator[str]:
    if prepared is None:
        return
    yield "<h2>Notes</h2>\n"
    rows = ["<tr><th>split</th><th>texts</th><th>classes</th></tr>"]
    for split, counts in prepared["splits"].items():
        labels = ", ".join(f"{count} {label}" for label, count in counts["labels"].items())
        rows.append(f"<tr><td>{split}</td><td>{counts['rows']}</td><td>{escape(labels)}</td></tr>")
    yield _table(rows)
    dropped = "; ".join(f"{count} rows: {reason}" for reason, count in prepared["dropped"].items()) or "none"
    yield f"<p>Left out: {escape(dropped)}.</p>\n"


def _training(trained: dict[str, Any] | None) -> Iterator[str]:
    if trained is None:
        return
    rounds, chosen = trained["rounds"], escape(trained["checkpoint"])
    yield f"<h2>Training</h2>\n<p>{rounds} rounds; the model is that of {chosen}.</p>\n"
    yield f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in trained['sentences'])}</ul>\n"


def _evaluation(folders: Folders, report: dict[str, Any] | None) -> Iterator[str]:
    if report is None:
        return
    found = _read(folders.out / "report" / "comparison.json")
    assert found is not None, "the report stage writes it before its last file"
    yield f"<h2>On the test split, {found['texts']} texts</h2>\n"
    rows = ["<tr><th></th><th>start</th><th>trained</th></tr>"]
    for name in _METRICS:
        cells = "".join(f"<td>{_number(found[side][name])}</td>" for side in ("first", "second"))
        rows.append(f"<tr><td>{name.replace('_', ' ')}</td>{cells}</tr>")
    yield _table(rows)


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _table(rows: list[str]) -> str:
    return f"<table>{''.join(rows)}</table>\n"
