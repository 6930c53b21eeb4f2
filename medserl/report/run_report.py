"""``RUN_DIR/report.html`` and ``report.json``: how a run went, made from what it wrote down. No torch, no network."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from medserl.errors import ConfigError
from medserl.files import regular, write_all_atomically
from medserl.game.referee.instruction import unchecked_labels
from medserl.gamelog.parts import parts
from medserl.report.alarms import past
from medserl.report.convergence import PLOTS, summarise
from medserl.report.held_out import DEFAULT_METRIC, WORSE, Value, answer, band, besides, chance, held_out, name_of
from medserl.report.pages import BASE, render
from medserl.report.plots import bar_plot, line_plot
from medserl.report.round_totals import rejections, seconds
from medserl.report.terminal import Table
from medserl.run import checkpoint
from medserl.run.run_dir import CONFIG_FILE, PROVENANCE_FILE
from medserl.run.run_log import METRICS_FILE, parse_metrics
from medserl.words import counted

_WARD = "ward"  # as in medserl.config.settings, which lies above
PAGE, DATA = "report.html", "report.json"
_SIZE = (600, 290)  # a phone shows the whole of it, its letters small but legible


def write_report(run_dir: Path) -> dict[str, Any]:
    """Write both files (mode 0600) beside the run's other ones; returns what report.json holds.

    Raises:
        ConfigError: not a run directory of ``medserl train``, not a round is recorded in it, or one of its files is
            damaged.
    """
    report = make_report(run_dir)
    shown = page(report, sample_games(run_dir))
    write_all_atomically({run_dir / DATA: json.dumps(report, indent=1) + "\n", run_dir / PAGE: shown})
    return report


def make_report(run_dir: Path) -> dict[str, Any]:
    """Everything that the report says, as plain values: numbers, names and settings, no text of any note."""
    for name in (METRICS_FILE, PROVENANCE_FILE, CONFIG_FILE):
        if not (run_dir / name).is_file():
            raise ConfigError(f"{run_dir}: has no {name}; give the directory of a run of `medserl train`")
    rows, unread = _rounds(run_dir / METRICS_FILE)
    starts = _starts(run_dir / PROVENANCE_FILE)
    config = _configuration(run_dir / CONFIG_FILE)
    metric = OmegaConf.select(config, "medserl.validation.best_metric") or DEFAULT_METRIC
    found = held_out(rows, metric)
    return {
        "run": run_dir.absolute().name,
        "directory": str(run_dir),
        "answer": answer(found),
        "besides": besides(rows, found),
        "held_out": None if found is None else found.plain(),
        **summarise(rows, metric),
        "rejections": rejections(rows),
        "seconds": seconds(rows),
        "changed": [override.lstrip("+~").partition("=")[::2] for override in starts[-1].get("overrides", [])],
        "alarms": past(rows),
        "labels": unchecked_labels(
            OmegaConf.select(config, "medserl.referee.name"), OmegaConf.select(config, "medserl.second_referee.name")
        ),
        "best": _best(run_dir),
        "games": bool(parts(run_dir)),
        "newest_checkpoint": checkpoint.latest_step(run_dir / "checkpoints", content=False) or None,
        "seed": OmegaConf.select(config, "medserl.seed"),
        "starts": starts,
        "configuration": OmegaConf.to_container(config),
        "lines_left_out": unread,
    }


def _rounds(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of metrics.jsonl, and the numbers of its lines that are none; the last may be under way."""
    content = regular(path).read_bytes()
    rows, bad = parse_metrics(content)
    if not rows and bad:
        raise ConfigError(f"{path}: holds no line that is a round's; restore it")
    if not rows:
        raise ConfigError(f"{path}: no round is recorded yet; try again when one is finished")
    last = content.count(b"\n") + 1
    return [_numbers(row) for row in rows], [number for number, _ in bad if number != last]


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is no number, or none to compute with: a run writes none of these."""
    largest = sys.float_info.max
    return {name: value for name, value in row.items() if isinstance(value, int | float) and abs(value) <= largest}


def _starts(path: Path) -> list[dict[str, Any]]:
    starts = _parsed(path, lambda text: json.loads(text)["starts"])
    if not isinstance(starts, list) or not starts or not all(_is_start(start) for start in starts):
        raise ConfigError(f"{path}: does not say how the run was started; restore it")
    return starts


def _is_start(start: Any) -> bool:
    """What a start says must have its types; it may say less, where a file that was damaged has begun anew."""
    if not isinstance(start, dict):
        return False
    kinds = {"overrides": list, "packages": dict}
    typed = all(isinstance(start.get(name, kind()), kind) for name, kind in kinds.items())
    return typed and all(isinstance(word, str) for word in start.get("overrides", ()))


def _configuration(path: Path) -> DictConfig:
    config = _parsed(path, OmegaConf.create)
    if not isinstance(config, DictConfig) or "medserl" not in config:
        raise ConfigError(f"{path}: is not a configuration of `medserl train` (it has no medserl); restore it")
    return config


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(regular(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, LookupError, TypeError, RecursionError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: is damaged ({type(error).__name__}); restore it") from None


def _best(run_dir: Path) -> dict[str, Any] | None:
    root = run_dir / "checkpoints"
    marked = checkpoint.told_best(root)
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
    return f"Best checkpoint by {name_of(best['metric'])}: round {best['step']}, with {best['value']:.3f}{gone}."


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
    rounds = counted(report["rounds"], "round")
    verdicts = report["flattened"].items()
    unchecked = [said] if (said := label_sentence(report)) else []
    sentences = [
        report["answer"],
        *report["besides"],
        best_sentence(report),
        alarm_sentence(report),
        *unchecked,
        rounds,
        *(v["sentence"] for _, v in verdicts),
    ]
    judged = report["held_out"]["verdict"] if report["held_out"] else ""
    rows = [["held-out notes", judged, " ".join([report["answer"], *report["besides"]])]]
    rows.append(["checkpoint", "", best_sentence(report)])
    rows += [["labels", "not checked", said] for said in unchecked]
    rows.append(["alarms", "BAD" if report["alarms"] else "", alarm_sentence(report)])
    rows += [[name, verdict["state"], verdict["sentence"].partition(": ")[2]] for name, verdict in verdicts]
    if report["lines_left_out"]:
        sentences.append(_left_out(report))
        rows.append(["left out", "", _left_out(report)])
    return Table([rounds, "judged", "because"], rows, "\n".join(sentences))


def page(report: Mapping[str, Any], games: Sequence[Mapping[str, Any]] = ()) -> str:
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
        time=bar_plot("Minutes by phase", spent, "minutes", (600, 60 + 34 * len(spent))) if spent else None,
        alarms=alarm_sentence(report),
        labels=label_sentence(report),
        plots=plots,
        games=games,
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


def sample_games(run_dir: Path, each: int = 5) -> list[dict[str, Any]]:
    """Games of the last logged round that the assessor lost and won, those that surprised it most first.

    They are read anew for the page and are in no report.json: the page is as private as the games themselves.
    """
    logged = parts(run_dir)
    if not logged:
        return []
    from medserl.gamelog.kinds import Source
    from medserl.gamelog.read import read_part
    from medserl.report.game_sample import sample

    played = ([row for row in read_part(part) if row["source"] == Source.PLAY] for part in reversed(logged))
    return sample(next(filter(None, played), []), each)


def next_steps(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What people do after a run, and the command for it."""
    run = shlex.quote(report["directory"])
    steps = [
        ("take the best model" if report["best"] else "take the newest model", f"medserl export {run} --out model"),
        ("judge it on notes that the run has not seen", f"medserl evaluate --model model --data {_unseen(report)}"),
        ("train longer, for twice as many rounds", _train_on(report)),
        ("look at all curves", f"tensorboard --logdir {run}"),
    ]
    if report["held_out"] and report["held_out"]["verdict"] == WORSE:
        del steps[2]
    if not report["newest_checkpoint"] and not report["best"]:
        steps = steps[-1:]
    if report["games"]:
        steps.insert(0, ("see what was played, and why games were lost", f"medserl games {run}"))
    return steps


def _unseen(report: Mapping[str, Any]) -> str:
    """Notes to judge a model on: of the ward's the test patients, else a file that only the user can name."""
    notes = report["configuration"]["medserl"].get("notes") or {}
    return "ward:test" if notes.get("source") == _WARD and not notes.get("path") else "notes.jsonl"


def _train_on(report: Mapping[str, Any]) -> str:
    """The command of the run's last start, with twice the rounds."""
    last, ours = report["starts"][-1], ("medserl.run_dir=", "medserl.max_rounds=")
    known = ["--config", last["config"]] if str(last.get("config", "(python)")) != "(python)" else []
    kept = [word for word in last.get("overrides", ()) if not word.lstrip("+").startswith(ours)]
    rounds = ["--run-dir", report["directory"], "--max-rounds", str(2 * max(report["rounds"], 1))]
    return shlex.join(["medserl", "train", *known, *rounds, *kept])


def _left_out(report: Mapping[str, Any]) -> str:
    numbers = report["lines_left_out"]
    shown = ", ".join(map(str, numbers[:5])) + (", …" if len(numbers) > 5 else "")
    return f"{METRICS_FILE}: line {shown} cannot be read and was left out."


def _made_by(report: Mapping[str, Any]) -> dict[str, Any]:
    last, unknown = report["starts"][-1], "unknown"
    dirty = " with changes" if last.get("git_dirty") else ""
    made_by = {
        "started": f"{report['starts'][0].get('started', unknown)} ({counted(len(report['starts']), 'start')})",
        "seed": report["seed"],
        "configuration": " ".join(map(str, [last.get("config", unknown), *last.get("overrides", ())])),
        "medserl": f"{last.get('medserl', unknown)}, commit {last.get('git_commit') or unknown}{dirty}",
        "Python": f"{last.get('python', unknown)}, {last.get('platform', unknown)}",
        "packages": ", ".join(f"{name} {version}" for name, version in last.get("packages", {}).items() if version),
    }
    return {**made_by, "left out": _left_out(report)} if report["lines_left_out"] else made_by
