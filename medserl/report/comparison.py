"""Runs beside each other: their curves with bands over seeds, and a paired test. No torch, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from medserl.errors import ConfigError
from medserl.files import write_atomically
from medserl.report.held_out import chance, name_of
from medserl.report.pages import BASE, render
from medserl.report.plots import line_plot
from medserl.report.run_report import label_sentence, make_report
from medserl.report.terminal import Table
from medserl.words import counted

PAGE = "comparison.html"
_SIZE = (880, 360)


@dataclass(frozen=True)
class Group:
    """Runs of one configuration that differ in their seed only.

    Attributes:
        name: What distinguishes it from the others.
        runs: Seed -> report.
    """

    name: str
    runs: Mapping[Any, Mapping[str, Any]]

    def ends(self) -> dict[Any, float]:
        """Seed -> the held-out metric at the last validation."""
        return {seed: run["held_out"]["points"][-1]["value"] for seed, run in self.runs.items()}

    def curves(self) -> list[list[tuple[int, float]]]:
        """The held-out metric by round, a curve a run."""
        return [[(p["round"], p["value"]) for p in run["held_out"]["points"]] for run in self.runs.values()]


def compare_runs(run_dirs: Sequence[Path], out: Path) -> Table:
    """Write the comparison as one private page; returns what a terminal shows.

    Raises:
        ConfigError: not a run, a run without held-out notes, runs that were judged by different metrics or on
            different numbers of notes, the same run twice.
    """
    groups = grouped(run_dirs)
    metric = next(iter(groups[0].runs.values()))["held_out"]["metric"]
    drawing = line_plot(
        f"Held-out notes: {name_of(metric)}",
        {group.name: group.curves() for group in groups},
        unit=name_of(metric),
        chance=chance(metric),
        size=_SIZE,
        bands={group.name: spread(group.curves()) for group in groups if len(group.runs) > 1},
    )
    rows, sentences = [_row(group) for group in groups], [*paired_tests(groups), *_unchecked(groups)]
    write_atomically(
        out,
        render(BASE, "comparison.html", metric=metric, plot=drawing, head=_HEAD, rows=rows, sentences=sentences),
    )
    return Table(_HEAD, rows, "\n".join(["\t".join(_HEAD), *("\t".join(row) for row in rows), *sentences]))


def grouped(run_dirs: Sequence[Path]) -> list[Group]:
    """Runs by what was overridden in their configuration, the seed aside."""
    if len({path.resolve() for path in run_dirs}) < len(run_dirs):
        raise ConfigError("report: a run is named twice; name each once")
    found: dict[tuple[str, ...], dict[Any, Any]] = {}
    shown: dict[tuple[str, ...], Path] = {}
    judged_by: tuple[str, int | None] | None = None
    for path in run_dirs:
        report = make_report(path)
        if report["held_out"] is None:
            raise ConfigError(f"{path}: this run judged no held-out notes, so there is nothing to compare")
        this = (report["held_out"]["metric"], report["held_out"]["texts"])
        if judged_by not in (None, this):
            raise ConfigError(
                f"{path}: judged by {_measure(this)}, the runs before it by {_measure(judged_by)}; compare runs that "
                "were judged alike"
            )
        judged_by = this
        key = _configured(report)
        runs = found.setdefault(key, {})
        if report["seed"] in runs:
            key = (*key, str(path))  # the same seed again: a repetition stands by itself
            runs = found.setdefault(key, {})
        runs[report["seed"]] = report
        shown.setdefault(key, path)
    return [Group(_name(key, shown[key], found), runs) for key, runs in found.items()]


def _measure(found: tuple[str, int | None] | None) -> str:
    assert found is not None
    return found[0] if found[1] is None else f"{found[0]} on {counted(found[1], 'text')}"


def _configured(report: Mapping[str, Any]) -> tuple[str, ...]:
    last = report["starts"][-1]
    ignored = ("medserl.seed=", "medserl.run_dir=", "trainer.logger=")
    return (
        str(last.get("config")),
        *sorted(o for o in last.get("overrides", []) if not o.lstrip("+").startswith(ignored)),
    )


def _name(key: tuple[str, ...], path: Path, found: Mapping[tuple[str, ...], Any]) -> str:
    """The overrides that not every group has; the run's own name where that leaves nothing."""
    common = set.intersection(*(set(other) for other in found)) if len(found) > 1 else set()
    own = [part for part in key if part not in common]
    return " ".join(own) if own and len(found) > 1 else path.absolute().name


def _unchecked(groups: Sequence[Group]) -> list[str]:
    """A sentence for every group in whose runs nobody checked the labels."""
    said = ((group.name, label_sentence(run)) for group in groups for run in group.runs.values())
    return list(dict.fromkeys(f"{name}: {sentence}" for name, sentence in said if sentence))


def spread(curves: Sequence[Sequence[tuple[int, float]]]) -> list[tuple[float, float, float]]:
    """Mean minus and plus a standard deviation over runs, at the rounds that every run has."""
    values: dict[int, list[float]] = {}
    for curve in curves:
        for number, value in curve:
            values.setdefault(number, []).append(value)
    whole = [(number, found) for number, found in sorted(values.items()) if len(found) == len(curves) > 1]
    return [(float(number), fmean(found) - stdev(found), fmean(found) + stdev(found)) for number, found in whole]


_HEAD = ("configuration", "runs", "start", "end", "best", "change")


def _row(group: Group) -> tuple[str, ...]:
    points = [run["held_out"]["points"] for run in group.runs.values()]
    starts, ends = [p[0]["value"] for p in points], [p[-1]["value"] for p in points]
    bests = [run["held_out"]["best"]["value"] for run in group.runs.values()]
    changes = [end - start for start, end in zip(starts, ends, strict=True)]
    return (group.name, str(len(points)), _mean(starts), _mean(ends), _mean(bests), _mean(changes, "+.3f"))


def _mean(values: Sequence[float], form: str = ".3f") -> str:
    return f"{fmean(values):{form}}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def paired_tests(groups: Sequence[Group]) -> list[str]:
    """A sentence for every two groups: the difference of their last validations, paired by seed.

    Student's t over the seeds that both have (`scipy.stats.ttest_rel`); fewer than two leave nothing to test.
    """
    from scipy.stats import t

    sentences = []
    for one, other in combinations(groups, 2):
        first, second = one.ends(), other.ends()
        seeds = [seed for seed in first if seed in second]
        what = f"{other.name} against {one.name}"
        if len(seeds) < 2:
            shared = counted(len(seeds), "seed") if seeds else "no seed"
            sentences.append(f"{what}: {shared} in common; two are needed to tell a difference from chance.")
            continue
        differences = [second[seed] - first[seed] for seed in seeds]
        mean, error = fmean(differences), stdev(differences) / math.sqrt(len(seeds))
        half = float(t.ppf(0.975, len(seeds) - 1)) * error
        p = float(2 * t.sf(abs(mean) / error, len(seeds) - 1)) if error else (1.0 if mean == 0 else 0.0)
        sentences.append(
            f"{what}: {mean:+.3f} at the end over {counted(len(seeds), 'seed')} (95 % interval {mean - half:+.3f} to "
            f"{mean + half:+.3f}, p = {p:.3f}, paired by seed)."
        )
    return sentences
