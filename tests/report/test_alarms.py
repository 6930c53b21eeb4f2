"""Alarms: each with histories that must raise it and its neighbours that must not."""

import math
from dataclasses import replace
from typing import Any

import pytest

from medserl.config.load import game_settings, load_config
from medserl.data.rounds import planned_rounds
from medserl.report.alarms import PREFIX, RULES, Alarms, AlarmSettings, as_metrics, past, raised

DEFAULT = AlarmSettings()
HEALTHY = {
    "vcf_acceptance_rate": 0.6,
    "assessor/always_one_answer_rate": 0.7,
    "injector/response_tokens": 40.0,
    "assessor/response_tokens": 6.0,
    "actor/reward_kl_penalty": 0.02,
    "label_inversion_rate": 0.2,
    "mean_reward/assessor": 0.3,
    "mean_reward/injector": -0.3,
}


def history(rounds: int = 20, last: int = 5, **changed: float) -> list[dict[str, Any]]:
    """A healthy run whose last rounds have other values (``/`` is written ``__``)."""
    rows: list[dict[str, Any]] = [{"round": number, **HEALTHY} for number in range(1, rounds + 1)]
    for row in rows[-last:] if last else []:
        row.update({name.replace("__", "/"): value for name, value in changed.items()})
    return rows


def names(rows: list[dict[str, Any]], settings: AlarmSettings = DEFAULT) -> list[str]:
    return [alarm.name for alarm in raised(rows, settings)]


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("acceptance", {"vcf_acceptance_rate": 0.25}),
        ("one_answer", {"assessor__always_one_answer_rate": 0.97}),
        ("length", {"injector__response_tokens": 90.0}),
        ("length", {"assessor__response_tokens": 2.0}),
        ("kl", {"actor__reward_kl_penalty": 0.6}),
        ("inversion", {"label_inversion_rate": 0.4}),
    ],
)
def test_five_bad_rounds_raise_it_and_one_does_not(name: str, changed: dict[str, float]) -> None:
    assert names(history(**changed)) == [name]
    assert names(history(last=1, **changed)) == []
    (alarm,) = raised(history(**changed), DEFAULT)
    assert "limit" in alarm.sentence and "look at" in alarm.sentence


@pytest.mark.parametrize(
    ("name", "metric", "limit", "beyond"),
    [
        ("acceptance", "vcf_acceptance_rate", 0.3, 0.299),
        ("one_answer", "assessor/always_one_answer_rate", 0.95, 0.951),
        ("length", "injector/response_tokens", 80.0, 80.1),
        ("length", "assessor/response_tokens", 3.0, 2.99),
        ("kl", "actor/reward_kl_penalty", 0.5, 0.501),
        ("inversion", "label_inversion_rate", 0.35, 0.351),
    ],
)
def test_a_limit_is_the_last_value_that_raises_nothing(name: str, metric: str, limit: float, beyond: float) -> None:
    assert names(history(**{metric: limit})) == []
    assert names(history(**{metric: beyond})) == [name]
    assert names(history(last=4, **{metric: beyond})) == [], "the round before was healthy"


@pytest.mark.parametrize("metric", [name for name in HEALTHY if not name.startswith("mean_reward")])
def test_rounds_that_measured_nothing_do_not_make_one_odd_round_an_alarm(metric: str) -> None:
    for bad in (0.0, 90.0):
        rows = history(**{metric: math.nan})
        rows[-1][metric] = bad
        assert names(rows) == []
        for row in rows[-3:]:
            row[metric] = bad
        assert len(names(rows)) == ((bad == 0.0) == (metric == "vcf_acceptance_rate")) or "tokens" in metric


def test_a_kl_that_is_infinite_or_no_number_is_an_alarm() -> None:
    assert names(history(actor__reward_kl_penalty=math.inf)) == ["kl"]
    assert names(history(actor__reward_kl_penalty=math.nan)) == ["kl"]
    assert names(history(last=4, actor__reward_kl_penalty=math.nan)) == []
    assert names(history(actor__reward_kl_penalty=math.nan), replace(DEFAULT, max_kl=None)) == []
    unmeasured = [{name: value for name, value in row.items() if "kl" not in name} for row in history()]
    assert names(unmeasured) == []


@pytest.mark.parametrize("changed", [{"assessor__always_one_answer_rate": 1.0}, {"label_inversion_rate": 1.0}])
def test_shares_of_a_handful_of_games_say_nothing(changed: dict[str, float]) -> None:
    assert names(history(**changed, games_decisive=3.0)) == []
    assert len(names(history(**changed, games_decisive=4.0))) == 1


def test_a_second_referee_is_believed_before_the_first() -> None:
    rows = history(last=0)
    for row in rows:
        row |= {"label_inversion_rate": 0.0, "label_inversion_rate/second_referee": 0.4}
    assert names(rows) == ["inversion"]
    for row in rows:
        row |= {"label_inversion_rate": 0.9, "label_inversion_rate/second_referee": 0.1}
    assert names(rows) == []


@pytest.mark.parametrize(
    ("limit", "changed"),
    [
        ("min_acceptance", {"vcf_acceptance_rate": 0.1}),
        ("max_one_answer", {"assessor__always_one_answer_rate": 1.0}),
        ("max_length_factor", {"injector__response_tokens": 900.0}),
        ("max_kl", {"actor__reward_kl_penalty": 9.0}),
        ("max_inversion", {"label_inversion_rate": 0.9}),
    ],
)
def test_a_limit_of_null_switches_it_off_and_another_moves_it(limit: str, changed: dict[str, float]) -> None:
    assert len(names(history(**changed))) == 1
    assert names(history(**changed), replace(DEFAULT, **{limit: None})) == []
    loose = {"min_acceptance": 0.05, "max_one_answer": 1.0, "max_length_factor": 30.0, "max_kl": 10.0}
    assert names(history(**changed), replace(DEFAULT, **{limit: loose.get(limit, 0.95)})) == []


def test_a_healthy_run_an_unmeasured_one_and_a_young_one_raise_nothing() -> None:
    assert names(history()) == []
    assert names([{"round": number, "label_inversion_rate": math.nan} for number in range(1, 30)]) == []
    assert names([]) == []
    bad = dict(vcf_acceptance_rate=0.0, actor__reward_kl_penalty=9.0)
    assert names(history(rounds=4, last=4, **bad)) == []
    assert names(history(rounds=4, last=4, **bad), replace(DEFAULT, rounds=4)) == ["acceptance", "kl"]


def validated(held_out: list[float], reward: list[float]) -> list[dict[str, Any]]:
    """A run that is validated every fifth round, with the assessor's mean reward of each stretch."""
    rows = history(5 * len(held_out), last=0)
    for row in rows:
        stretch = (row["round"] - 1) // 5
        row["mean_reward/assessor"] = reward[stretch]
        if row["round"] % 5 == 0:
            row["val/greedy/balanced_accuracy"] = held_out[stretch]
    return rows


def test_a_reward_that_rises_without_a_held_out_gain_is_hollow() -> None:
    flat = [0.70, 0.72, 0.74, 0.75, 0.74, 0.75, 0.73, 0.74]
    rising = [0.1, 0.1, 0.1, 0.1, 0.3, 0.3, 0.4, 0.5]
    assert names(validated(flat, rising)) == ["reward_without_gain"]
    assert names(validated([*flat[:7], 0.76], rising)) == [], "there is a gain"
    assert names(validated(flat, [0.1] * 8)) == [], "nothing is rewarded more"
    late = [0.70, 0.76, 0.74, 0.75, 0.74, 0.75]
    assert names(validated(late, [0.1, 0.1, 0.3, 0.3, 0.4, 0.5])) == ["reward_without_gain"]
    assert names(validated(late[:5], [0.1, 0.3, 0.3, 0.4, 0.5])) == [], "too few validations to say"
    assert names(validated(late[:5], [0.1, 0.1, 0.3, 0.4, 0.5]), replace(DEFAULT, validations=3)) == [
        "reward_without_gain"
    ]
    assert names(validated(flat, rising), replace(DEFAULT, min_reward_gain=0.9)) == []
    assert names(validated(flat, rising), replace(DEFAULT, min_reward_gain=None)) == []


@pytest.mark.parametrize("name", ["embedded", "explored"])
def test_a_run_of_the_shipped_configurations_has_validations_enough_for_it(name: str) -> None:
    config = load_config(name)
    settings = game_settings(config)
    rounds = planned_rounds(config, settings)
    held_out = [0.6, *([0.7] * (rounds // config.trainer.test_freq))]
    rows = validated(held_out, [-1.0] * 3 + [1.0] * len(held_out))
    assert names(rows) == ["reward_without_gain"]


def test_a_run_is_told_at_the_first_round_of_an_alarm_and_again_after_it_was_over() -> None:
    alarms = Alarms(AlarmSettings(rounds=1, stop=True))
    assert not alarms.end_run
    told = []
    for number, rate in enumerate([0.6, 0.1, 0.1, 0.6, 0.1], 1):
        marks = alarms.see(number, {**HEALTHY, "vcf_acceptance_rate": rate})
        assert set(marks) == {f"{PREFIX}{name}" for name in RULES}
        assert marks["alarm/acceptance"] == (rate < 0.3) and alarms.end_run == (rate < 0.3)
        told.append([alarm.name for alarm in alarms.new])
    assert told == [[], ["acceptance"], [], [], ["acceptance"]]


def test_a_resumed_run_goes_on_with_its_history() -> None:
    rows = history(vcf_acceptance_rate=0.1)
    rows[-1] |= as_metrics(raised(rows, DEFAULT))
    alarms = Alarms(AlarmSettings(stop=True), rows)
    assert not alarms.end_run, "it plays a round before it ends again"
    alarms.see(21, {**HEALTHY, "vcf_acceptance_rate": 0.1})
    assert alarms.end_run and alarms.new == [], "it was told before"
    assert not Alarms(DEFAULT, rows).end_run


def test_what_was_raised_is_found_again_and_unlooked_for_is_no_silence() -> None:
    rows = history(3)
    assert past(rows) is None
    for row, bad in zip(rows, (0, 1, 1), strict=True):
        row.update({f"{PREFIX}{name}": 0.0 for name in RULES}, **{"alarm/kl": float(bad)})
    assert past(rows) == {"kl": [2, 3]}
