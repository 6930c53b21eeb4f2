"""``RUN_DIR/report.html`` and ``report.json``: how a run went, made from what it wrote down. No torch, no network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from medserl.errors import ConfigError
from medserl.files import write_atomically
from medserl.game.referee.instruction import unchecked_labels
from medserl.report.alarms import past
from medserl.report.convergence import PLOTS, summarise
from medserl.report.pages import BASE, render
from medserl.report.plots import line_plot
from medserl.report.terminal import Table
from medserl.run import checkpoint
from medserl.run.run_dir import CONFIG_FILE, PROVENANCE_FILE
from medserl.run.run_log import METRICS_FILE, read_metrics

PAGE, DATA = "report.html", "report.json"
_SIZE = (880, 320)


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
        "alarms": past(rows),
        "labels": unchecked_labels(
            OmegaConf.select(config, "medserl.referee.name"), OmegaConf.select(config, "medserl.second_referee.name")
        ),
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


def alarm_sentence(report: Mapping[str, Any]) -> str:
    """Which alarms the run raised, and when."""
    alarms = report["alarms"]
    if alarms is None:
        return "Alarms were not looked for in this run."
    if not alarms:
        return "No alarm was raised."
    rounds = (
        f"{name} in {len(found)} round{'s' if len(found) > 1 else ''} (first {found[0]}, last {found[-1]})"
        for name, found in alarms.items()
    )
    return f"Alarms: {'; '.join(rounds)}. train.log says at the first round of each what to look at."


def label_sentence(report: Mapping[str, Any]) -> str:
    """That nobody checked the run's labels, where nobody did."""
    said: str | None = report["labels"]
    return f"{said[0].upper()}{said[1:]}." if said else ""


def summary_table(report: Mapping[str, Any]) -> Table:
    """The report in a few lines; on a terminal as a table."""
    verdicts = report["flattened"].items()
    judged = [v["sentence"] for _, v in verdicts]
    unchecked = [said] if (said := label_sentence(report)) else []
    sentences = [f"{report['rounds']} rounds", *judged, *unchecked, alarm_sentence(report), best_sentence(report)]
    rows = [[name, verdict["state"], verdict["sentence"].partition(": ")[2]] for name, verdict in verdicts]
    rows += [["labels", "not checked", said] for said in unchecked]
    rows.append(["alarms", "BAD" if report["alarms"] else "", alarm_sentence(report)])
    rows.append(["checkpoint", "", best_sentence(report)])
    return Table([f"{report['rounds']} rounds", "judged", "because"], rows, "\n".join(sentences))


def page(report: Mapping[str, Any]) -> str:
    """One HTML file that needs nothing else: inline SVG, no script, no link to anywhere."""
    best = report["best"]
    mark = (float(best["step"]), f"best, round {best['step']}") if best else None
    plots = []
    for title, metrics, unit, chance in PLOTS:
        curves = {name: [report["curves"][name]] for name in metrics if name in report["curves"]}
        drawing = line_plot(title, curves, unit=unit, chance=chance, size=_SIZE, mark=mark) if curves else None
        plots.append((title, drawing))
    return render(
        BASE,
        "report.html",
        report=report,
        best=best_sentence(report),
        alarms=alarm_sentence(report),
        labels=label_sentence(report),
        plots=plots,
        made_by=_made_by(report),
        configuration=json.dumps(report["configuration"], indent=1),
    )


def _made_by(report: Mapping[str, Any]) -> dict[str, Any]:
    last = report["starts"][-1]
    dirty = " with changes" if last["git_dirty"] else ""
    return {
        "started": f"{report['starts'][0]['started']} ({len(report['starts'])} start(s))",
        "seed": report["seed"],
        "configuration": " ".join([last["config"], *last["overrides"]]),
        "medserl": f"{last['medserl']}, commit {last['git_commit'] or 'unknown'}{dirty}",
        "Python": f"{last['python']}, {last['platform']}",
        "packages": ", ".join(f"{name} {version}" for name, version in last["packages"].items() if version),
    }
