"""Alarms of a run: what its rounds' metrics say when self-play goes astray, and where to look then. Pure.

Each looks at means over the last rounds, so that one odd round raises none, not even where it alone could measure the
metric. A metric that a run does not measure (an inversion that no referee checks) raises nothing, and neither do shares
of a handful of games: two answers are often the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

PREFIX = "alarm/"
"""Before an alarm's name in metrics.jsonl and TensorBoard: 1 in a round that raises it, else 0."""
ACCEPTANCE, KL = "vcf_acceptance_rate", "actor/reward_kl_penalty"
ONE_ANSWER = "assessor/always_one_answer_rate"
LENGTHS = ("injector/response_tokens", "assessor/response_tokens")
INVERSIONS = ("label_inversion_rate/second_referee", "label_inversion_rate")
REWARDS = ("mean_reward/assessor", "mean_reward/injector")
HELD_OUT = "val/greedy/balanced_accuracy"
DECIDED, ENOUGH = "games_decisive", 20
"""Decided games of a round; so many of them in all make a share that says something."""
EARLIER = 2
"""Validations that the last ones are compared with, at least: the embedded default has seven in all."""

Row = Mapping[str, Any]


@dataclass
class AlarmSettings:
    """When a run raises an alarm; a limit of null switches its alarm off."""

    rounds: int = 5
    """Number of rounds whose mean is judged; there are no alarms before that many rounds are over."""
    min_acceptance: float | None = 0.3
    """Minimum share of the injector's attempts that the filter must accept."""
    max_one_answer: float | None = 0.95
    """Maximum share of the assessor's more frequent answer in the games."""
    max_length_factor: float | None = 2.0
    """How many times longer, or shorter, a role's replies may be than in the run's first rounds."""
    max_kl: float | None = 0.5
    """Maximum KL divergence from the reference, in nats per token."""
    max_inversion: float | None = 0.35
    """Maximum share of games whose label is not what was asked for (according to the second referee, if there is
    one)."""
    min_reward_gain: float | None = 0.1
    """Gain in a role's mean reward that raises an alarm if the held-out notes show no gain."""
    validations: int = 4
    """Number of validations in which a gain on held-out notes is looked for."""
    stop: bool = False
    """End the run, with a checkpoint, after a round that raises an alarm."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm that a round raises: its name, and a sentence with the figures and what to look at."""

    name: str
    sentence: str


def raised(rows: Sequence[Row], settings: AlarmSettings) -> list[Alarm]:
    """The alarms that the newest round of a history raises.

    Args:
        rows: The rows of metrics.jsonl, oldest first; those of validations that stand alone count for the held-out
            figures only.
        settings: The limits.
    """
    if not rows or len(_played(rows)) < settings.rounds:
        return []
    found = ((name, rule(rows, settings)) for name, rule in RULES.items())
    return [Alarm(name, sentence) for name, sentence in found if sentence is not None]


def as_metrics(alarms: Sequence[Alarm]) -> dict[str, float]:
    """``alarm/NAME`` of every alarm that there is: 1 where it is raised."""
    names = {alarm.name for alarm in alarms}
    return {f"{PREFIX}{name}": float(name in names) for name in RULES}


def past(rows: Sequence[Row]) -> dict[str, list[int]] | None:
    """Rounds in which each alarm was raised, of those that were; None where no round was looked at."""
    if not any(f"{PREFIX}{name}" in row for row in rows for name in RULES):
        return None
    return {
        name: rounds
        for name in RULES
        if (rounds := [int(row["round"]) for row in rows if row.get(f"{PREFIX}{name}", 0) > 0])
    }


class Alarms:
    """Looks at every round of a run.

    Args:
        settings: The limits.
        rows: The rows of metrics.jsonl so far, of earlier starts.
    """

    def __init__(self, settings: AlarmSettings, rows: Sequence[Row] = ()) -> None:
        self.settings = settings
        self.new: list[Alarm] = []
        """Alarms of the last round that was seen and that the round before it did not raise."""
        self.current: list[Alarm] = []
        """All alarms of the last round that was seen; empty before the first one of this start."""
        self._rows = list(rows)

    def see(self, number: int, metrics: Mapping[str, float]) -> dict[str, float]:
        """Look at round ``number``; returns ``alarm/NAME`` for its metrics."""
        played = _played(self._rows)
        before = {name for name in RULES if played and played[-1].get(f"{PREFIX}{name}", 0) > 0}
        self._rows.append({"round": number, **metrics})
        self.current = raised(self._rows, self.settings)
        self.new = [alarm for alarm in self.current if alarm.name not in before]
        marks = as_metrics(self.current)
        self._rows[-1] = {**self._rows[-1], **marks}
        return marks

    @property
    def end_run(self) -> bool:
        """Whether the run is to end after the last round."""
        return self.settings.stop and bool(self.current)


def _played(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if not row.get("validation")]


def _values(rows: Sequence[Row], metric: str) -> list[float]:
    return [float(row[metric]) for row in rows if metric in row and not math.isnan(row[metric])]


def _recent(rows: Sequence[Row], metric: str, settings: AlarmSettings) -> float | None:
    """Mean over the last rounds; None where fewer than half of them measured it."""
    values = _values(_played(rows)[-settings.rounds :], metric)
    return fmean(values) if 2 * len(values) >= settings.rounds else None


def _few_games(rows: Sequence[Row], settings: AlarmSettings) -> bool:
    """Whether the last rounds are known to have decided next to no game."""
    decided = [row[DECIDED] for row in _played(rows)[-settings.rounds :] if DECIDED in row]
    return bool(decided) and sum(decided) < ENOUGH


def _acceptance(rows: Sequence[Row], settings: AlarmSettings) -> str | None:
    found, least = _recent(rows, ACCEPTANCE, settings), settings.min_acceptance
    if least is None or found is None or found >= least:
        return None
    return (
        f"only {found:.2f} of the injector's attempts pass the filter over {settings.rounds} rounds (limit {least:g}): "
        "look at vcf_rejections/*, which say why; the injector may have lost its format (a lower learning rate or "
        "medserl.advantage.injector_weight)"
    )


def _one_answer(rows: Sequence[Row], settings: AlarmSettings) -> str | None:
    found, most = _recent(rows, ONE_ANSWER, settings), settings.max_one_answer
    if most is None or found is None or found <= most or _few_games(rows, settings):
        return None
    return (
        f"the assessor gives one answer in {found:.2f} of the games over {settings.rounds} rounds (limit {most:g}): "
        "look at assessor/recall_correct and assessor/recall_incorrect, and whether the labels are balanced "
        "(medserl.balance_labels)"
    )


def _length(rows: Sequence[Row], settings: AlarmSettings) -> str | None:
    most, played = settings.max_length_factor, _played(rows)
    if most is None or len(played) < 2 * settings.rounds:
        return None
    for metric in LENGTHS:
        first, now = _values(played[: settings.rounds], metric), _recent(rows, metric, settings)
        before = fmean(first) if first else 0.0
        if now is None or before <= 0 or before / most <= now <= before * most:
            continue
        return (
            f"{metric} went from {before:.0f} to {now:.0f} (limit: a factor of {most:g}): look at some games "
            "(`medserl games`) and at response_length/clip_ratio, the share of replies that were cut off"
        )
    return None


def _kl(rows: Sequence[Row], settings: AlarmSettings) -> str | None:
    found, most = _recent(rows, KL, settings), settings.max_kl
    if most is None:
        return None
    if all(math.isnan(row.get(KL, 0.0)) for row in _played(rows)[-settings.rounds :]):
        return (
            f"KL to the reference was no number for {settings.rounds} rounds: the weights are lost (limit {most:g}); "
            "look at actor/grad_norm, and go back to a checkpoint with a lower learning rate"
        )
    if found is None or found <= most:
        return None
    return (
        f"KL to the reference is {found:.2f} nats per token over {settings.rounds} rounds (limit {most:g}): look at "
        "actor/entropy and the parse failures; a lower learning rate or a higher algorithm.kl_ctrl.kl_coef "
        "keeps it down"
    )


def _inversion(rows: Sequence[Row], settings: AlarmSettings) -> str | None:
    most = settings.max_inversion
    for metric in INVERSIONS:
        found = _recent(rows, metric, settings)
        if found is not None:
            break
    if most is None or found is None or found <= most or _few_games(rows, settings):
        return None
    return (
        f"{metric} is {found:.2f} over {settings.rounds} rounds (limit {most:g}): labels and modes diverge; with the "
        "referee instruction the assessor learns them the wrong way round: take another referee, or look at "
        "medserl.rewards.contradiction"
    )


def _hollow(rows: Sequence[Row], settings: AlarmSettings) -> str | None:
    """A reward that rose over the last validations, none of which was better than the best before them."""
    gain = settings.min_reward_gain
    judged = [row for row in rows if math.isfinite(row.get(HELD_OUT, math.nan))]
    if gain is None or len(judged) < settings.validations + EARLIER:
        return None
    earlier, later = judged[: -settings.validations], judged[-settings.validations :]
    best, now = max(_values(earlier, HELD_OUT)), max(_values(later, HELD_OUT))
    if now > best:
        return None
    since, span = int(earlier[-1]["round"]), int(later[-1]["round"]) - int(earlier[-1]["round"])
    played = _played(rows)
    for metric in REWARDS:
        old = _values([row for row in played if since - span < row["round"] <= since], metric)
        new = _values([row for row in played if row["round"] > since], metric)
        if old and new and fmean(new) - fmean(old) >= gain:
            return (
                f"{metric} rose from {fmean(old):+.2f} to {fmean(new):+.2f} while {HELD_OUT} found nothing better than "
                f"{best:.3f} in {settings.validations} validations (limit {gain:g}): what is rewarded is not what is "
                "wanted; look at some games (`medserl games`) and at the referee"
            )
    return None


RULES: dict[str, Callable[[Sequence[Row], AlarmSettings], str | None]] = {
    "acceptance": _acceptance,
    "one_answer": _one_answer,
    "length": _length,
    "kl": _kl,
    "inversion": _inversion,
    "reward_without_gain": _hollow,
}
