"""``RUN_DIR/report.html`` and ``report.json``: how a run went, made from what it wrote down. No torch, no network."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from medserl.errors import ConfigError
from medserl.files import write_atomically
from medserl.report.convergence import PLOTS, summarise
from medserl.report.held_out import DEFAULT_METRIC, Value, answer, band, chance, held_out, name_of
from medserl.report.pages import BASE, render
from medserl.report.plots import bar_plot, line_plot
from medserl.report.round_totals import rejections, seconds
from medserl.report.terminal import Table
from medserl.run import checkpoint
from medserl.run.run_dir import CONFIG_FILE, PROVENANCE_FILE
from medserl.run.run_log import METRICS_FILE, read_metrics
from medserl.words import counted

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
    metric = OmegaConf.select(config, "medserl.validation.best_metric") or DEFAULT_METRIC
    found = held_out(rows, metric)
    return {
        "run": run_dir.absolute().name,
        "directory": str(run_dir),
        "answer": answer(found),
        "held_out": None if found is None else found.plain(),
        **summarise(rows, metric),
        "rejections": rejections(rows),
        "seconds": seconds(rows),
        "notes": _notes(config),
        "changed": [override.lstrip("+~").partition("=")[::2] for override in starts[-1]["overrides"]],
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


def _notes(config: Any) -> list[str]:
    """What a reader must know before the numbers."""
    if OmegaConf.select(config, "medserl.referee.name") != "instruction":
        return []
    return [
        "The referee is `instruction`: a game's label is what the injector was asked for, and nobody checked whether "
        "the edit did it. Label inversion is therefore not measured."
    ]


def best_sentence(report: Mapping[str, Any]) -> str:
    """Which checkpoint to take."""
    best, newest = report["best"], report["newest_checkpoint"]
    if best is None:
        which = f"the newest is that of round {newest}" if newest else "there is none"
        return f"No checkpoint is marked as the best, which a run does that validates (trainer.test_freq); {which}."
    gone = "" if best["checkpoint"] else ", whose checkpoint has been removed"
    return f"Best by {best['metric']}: round {best['step']} with {best['value']:.4f}{gone}."


def summary_table(report: Mapping[str, Any]) -> Table:
    """The report in a few lines; on a terminal as a table."""
    rounds = counted(report["rounds"], "round")
    verdicts = report["flattened"].items()
    sentences = [report["answer"], best_sentence(report), rounds, *(v["sentence"] for _, v in verdicts)]
    rows = [["held-out notes", "", report["answer"]], ["checkpoint", "", best_sentence(report)]]
    rows += [[name, verdict["state"], verdict["sentence"].partition(": ")[2]] for name, verdict in verdicts]
    return Table([rounds, "judged", "because"], rows, "\n".join(sentences))


def page(report: Mapping[str, Any]) -> str:
    """One HTML file that needs nothing else: inline SVG, no script, no link to anywhere."""
    best = report["best"]
    mark = (float(best["step"]), f"best, round {best['step']}") if best else None
    plots = []
    for title, metrics, unit, chance_, remark in PLOTS:
        curves = {name: [report["curves"][name]] for name in metrics if name in report["curves"]}
        drawing = line_plot(title, curves, unit=unit, chance=chance_, size=_SIZE, mark=mark) if curves else None
        plots.append((title, remark, drawing))
    spent = [(name, took / 60) for name, took in report["seconds"]]
    return render(
        BASE,
        "report.html",
        report=report,
        rounds=counted(report["rounds"], "round"),
        best=best_sentence(report),
        lead=_lead(report["held_out"], mark),
        time=bar_plot("Minutes by phase", spent, "minutes", (880, 60 + 34 * len(spent))) if spent else None,
        plots=plots,
        next=next_steps(report),
        made_by=_made_by(report),
        config_file=CONFIG_FILE,
    )


def _lead(found: Mapping[str, Any] | None, mark: tuple[float, str] | None) -> str | None:
    """The plot that answers the question, with its band and the line at chance."""
    if found is None:
        return None
    points = [Value(**point) for point in found["points"]]
    name = name_of(found["metric"])
    return line_plot(
        f"Held-out notes: {name}",
        {name: [[(point.round, point.value) for point in points]]},
        unit=name,
        chance=chance(found["metric"]),
        size=_SIZE,
        mark=mark,
        bands={name: band(points)},
    )


def next_steps(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What people do after a run, and the command for it."""
    run = shlex.quote(report["directory"])
    steps = [
        ("take the best model" if report["best"] else "take the newest model", f"medserl export {run} --out model"),
        ("judge it on notes that the run has not seen", "medserl evaluate --model model --data notes.jsonl"),
        ("look at all curves", f"tensorboard --logdir {run}"),
    ]
    if not report["newest_checkpoint"] and not report["best"]:
        steps = steps[2:]
    return steps


def _made_by(report: Mapping[str, Any]) -> dict[str, Any]:
    last = report["starts"][-1]
    dirty = " with changes" if last["git_dirty"] else ""
    return {
        "started": f"{report['starts'][0]['started']} ({counted(len(report['starts']), 'start')})",
        "seed": report["seed"],
        "configuration": " ".join([last["config"], *last["overrides"]]),
        "medserl": f"{last['medserl']}, commit {last['git_commit'] or 'unknown'}{dirty}",
        "Python": f"{last['python']}, {last['platform']}",
        "packages": ", ".join(f"{name} {version}" for name, version in last["packages"].items() if version),
    }
