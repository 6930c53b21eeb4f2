"""``RUN_DIR/report.html`` and ``report.json``: how a run went, made from what it wrote down. No torch, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from medserl.errors import ConfigError
from medserl.files import write_atomically
from medserl.report.convergence import PLOTS, summarise
from medserl.report.plots import line_plot
from medserl.run import checkpoint
from medserl.run.run_dir import CONFIG_FILE, PROVENANCE_FILE
from medserl.run.run_log import METRICS_FILE, read_metrics

PAGE, DATA = "report.html", "report.json"
_SIZE = (560, 260)
_STYLE = (
    "body{font-family:sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}td{padding:2px 14px 2px 0;vertical-align:top}pre{overflow-x:auto}"
    "svg{max-width:100%;height:auto}"
)


def write_report(run_dir: Path) -> dict[str, Any]:
    """Write both files (mode 0600) beside the run's other ones; returns what report.json holds.

    Raises:
        ConfigError: not a run directory of ``medserl train``, or not a round is recorded in it.
    """
    report = make_report(run_dir)
    write_atomically(run_dir / DATA, json.dumps(report, indent=1) + "\n")
    write_atomically(run_dir / PAGE, page(report))
    return report


def make_report(run_dir: Path) -> dict[str, Any]:
    """Everything that the report says, as plain values: numbers, names and settings, no text of any note."""
    for name in (METRICS_FILE, PROVENANCE_FILE, CONFIG_FILE):
        if not (run_dir / name).is_file():
            raise ConfigError(f"{run_dir}: has no {name}; give the directory of a run of `medserl train`")
    rows = read_metrics(run_dir / METRICS_FILE)
    if not rows:
        raise ConfigError(f"{run_dir / METRICS_FILE}: no round is recorded yet; report when one is finished")
    starts = json.loads((run_dir / PROVENANCE_FILE).read_text(encoding="utf-8"))["starts"]
    config = OmegaConf.load(run_dir / CONFIG_FILE)
    return {
        "run": run_dir.absolute().name,
        **summarise(rows),
        "best": _best(run_dir),
        "newest_checkpoint": checkpoint.latest_step(run_dir / "checkpoints", content=False) or None,
        "seed": OmegaConf.select(config, "medserl.seed"),
        "starts": starts,
        "configuration": OmegaConf.to_container(config),
    }


def _best(run_dir: Path) -> dict[str, Any] | None:
    root = run_dir / "checkpoints"
    marked = checkpoint.best(root)
    if marked is None:
        return None
    name = f"{checkpoint.STEP_PREFIX}{marked['step']}"
    return {**marked, "checkpoint": name if (root / name).is_dir() else None}


def best_sentence(report: Mapping[str, Any]) -> str:
    """Which checkpoint to take."""
    best, newest = report["best"], report["newest_checkpoint"]
    if best is None:
        which = f"the newest is that of round {newest}" if newest else "there is none"
        return f"No checkpoint is marked as the best, which a run does that validates (trainer.test_freq); {which}."
    gone = "" if best["checkpoint"] else ", whose checkpoint has been removed"
    return f"Best by {best['metric']}: round {best['step']} with {best['value']:.4f}{gone}."


def summary_text(report: Mapping[str, Any]) -> str:
    """The report in a few lines, for a terminal."""
    verdicts = [verdict["sentence"] for verdict in report["flattened"].values()]
    return "\n".join([f"{report['rounds']} rounds", *verdicts, best_sentence(report)])


def page(report: Mapping[str, Any]) -> str:
    """One HTML file that needs nothing else: inline SVG, no script, no link to anywhere."""
    verdicts = "".join(f"<li>{escape(verdict['sentence'])}</li>" for verdict in report["flattened"].values())
    best = report["best"]
    mark = (float(best["step"]), f"best, round {best['step']}") if best else None
    figures = []
    for title, metrics in PLOTS:
        curves = {name: [report["curves"][name]] for name in metrics if name in report["curves"]}
        if curves:
            figures.append(f"<figure>{line_plot(title, curves, size=_SIZE, mark=mark)}</figure>")
        else:
            figures.append(f"<p>{escape(title)}: not measured in this run.</p>")
    configuration = escape(json.dumps(report["configuration"], indent=1))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(report['run'])}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{escape(report['run'])}: {report['rounds']} rounds</h1>\n"
        f"<p>{escape(best_sentence(report))}</p>\n<h2>Has it flattened?</h2>\n<ul>{verdicts}</ul>\n"
        f"<p>Rule: {escape(report['rule'])}.</p>\n<h2>Curves, by round</h2>\n{''.join(figures)}\n"
        f"<h2>Made by</h2>\n{_made_by(report)}\n"
        f"<details><summary>Configuration</summary><pre>{configuration}</pre></details>\n</body></html>\n"
    )


def _made_by(report: Mapping[str, Any]) -> str:
    last = report["starts"][-1]
    dirty = " with changes" if last["git_dirty"] else ""
    rows = {
        "started": f"{report['starts'][0]['started']} ({len(report['starts'])} start(s))",
        "seed": report["seed"],
        "configuration": " ".join([last["config"], *last["overrides"]]),
        "medserl": f"{last['medserl']}, commit {last['git_commit'] or 'unknown'}{dirty}",
        "Python": f"{last['python']}, {last['platform']}",
        "packages": ", ".join(f"{name} {version}" for name, version in last["packages"].items() if version),
    }
    cells = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table>{cells}</table>"
