"""What TensorBoard shows of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.summary.writer import event_file_writer

from medserl.config.load import load_config
from medserl.run.curves import COMPARED, QUESTIONS, SHOWN, VERL, Curves, hyperparameters, tag
from medserl.run.run_dir import RunDir
from medserl.run.run_log import RunLog

# Names as a run of the embedded default reports them.
GAME = (
    "vcf_acceptance_rate", "vcf_acceptance_rate/attempt_1", "vcf_acceptance_rate/benign", "vcf_rejections/leak",
    "mean_reward", "mean_reward/injector", "mean_reward/assessor", "injector/win_rate", "injector/parse_failure_rate",
    "injector/response_tokens", "assessor/accuracy", "assessor/balanced_accuracy", "assessor/always_one_answer_rate",
    "label_inversion_rate", "val/greedy/balanced_accuracy", "val/greedy/recall_correct", "val/greedy/auc",
    "perf/tokens_per_second", "alarm/acceptance", "mine/long_edits", "long_edits",
)  # fmt: skip
VERLS = (
    "actor/entropy",
    "actor/grad_norm",
    "actor/reward_kl_penalty",
    "timing_s/gen",
    "perf/mfu/actor",
    "critic/score/max",
)
COPIES = (
    "epoch",
    "actor/pg_loss",
    "training/num_turns/max",
    "training/off_policy/trajectory_spans/max",
    "global_seqlen/max",
)


def events(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory / "tensorboard"))
    found.Reload()
    return found


def points(directory: Path, name: str) -> list[tuple[int, float]]:
    return [(point.step, round(point.value, 3)) for point in events(directory).Scalars(name)]


def test_the_games_metrics_keep_their_names_and_verls_stand_apart() -> None:
    assert [tag(name) for name in GAME] == list(GAME)
    assert [tag(name) for name in VERLS] == [VERL + name for name in VERLS]
    assert [tag(name) for name in COPIES] == [None] * len(COPIES)


def test_every_chart_has_a_curve() -> None:
    tags = [shown for name in (*GAME, *VERLS) if (shown := tag(name))]
    for charts in QUESTIONS.values():
        for chart, patterns in charts.items():
            assert any(re.fullmatch(pattern, shown) for pattern in patterns for shown in tags), chart


def test_a_metric_is_drawn_from_its_first_change_with_what_was_before(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    for number, waiting in enumerate((0.0, 0.0, 0.5, 0.5), 1):
        curves.add(
            number, {"edit/position": waiting, "games": 32.0, "vcf_acceptance_rate": 1.0, "actor/entropy": number}
        )
    curves.close()
    assert points(tmp_path, "edit/position") == [(1, 0.0), (2, 0.0), (3, 0.5), (4, 0.5)]
    assert points(tmp_path, "vcf_acceptance_rate") == [(n, 1.0) for n in (1, 2, 3, 4)]
    assert set(events(tmp_path).Tags()["scalars"]) == {"edit/position", "vcf_acceptance_rate", "verl/actor/entropy"}


def test_what_is_the_same_as_another_metric_is_drawn_from_where_it_differs(tmp_path: Path) -> None:
    curves = Curves(tmp_path)
    for number, apart in enumerate((0.0, 0.0, 0.25), 1):
        same = number / 8
        curves.add(number, {"val/greedy/balanced_accuracy": same, "val/greedy/accuracy": same})
        curves.add(number, {"assessor/accuracy_parsed": same + apart, "assessor/accuracy": same})
        curves.add(number, {"label_inversion_rate": same, "injector/contradiction_rate": same})
        curves.add(number, {"val/greedy/strict_rate": 1.0})
    curves.close()
    shown = {"val/greedy/balanced_accuracy", "assessor/accuracy", "assessor/accuracy_parsed", "label_inversion_rate"}
    assert set(events(tmp_path).Tags()["scalars"]) == shown
    assert points(tmp_path, "assessor/accuracy_parsed") == [(1, 0.125), (2, 0.25), (3, 0.625)]


def test_games_stand_in_the_event_file_as_text_and_it_is_private(tmp_path: Path) -> None:
    owner = RunDir(tmp_path / "run")
    owner.open(load_config("embedded"), "embedded", [])
    curves = Curves(owner.path)
    curves.text("games", 3, "**lost by the assessor**")
    curves.close()
    owner.close()
    assert events(owner.path).Tags()["tensors"] == ["custom_scalars__config__", "games/text_summary"]
    (file,) = (owner.path / "tensorboard").iterdir()
    assert (file.stat().st_mode | file.parent.stat().st_mode) & 0o077 == 0


@settings(max_examples=12, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=6),
    saved=st.integers(0, 6),
    lost=st.lists(st.sampled_from([0.0, 1.0]), max_size=3),
)
def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], saved: int, lost: list[float]
) -> None:
    # TensorBoard reads files by name: second, host, process, and the file's number in the process, as a text. A start
    # is a process of its own; here all are one, and the tenth file of a second would come before the ninth.
    event_file_writer._global_uid = event_file_writer.AtomicCounter(100)
    drawn = []
    saved = min(saved, len(values))
    for starts in ([(0, values)], [(0, [*values[:saved], *lost]), (saved, values)]):
        directory = tmp_path_factory.mktemp("run")
        for resumed_at, played in starts:
            log = RunLog(directory, resumed_at, len(values))
            for number, value in list(enumerate(played, 1))[resumed_at:]:
                log.round(number, 0, {"edit/position": value, "mean_reward": value})
            log.close()
        found = {name: points(directory, name) for name in events(directory).Tags()["scalars"]}
        drawn.append({name: curve for name, curve in found.items() if curve})  # a curve that was forgotten is empty
    assert drawn[0] == drawn[1]


def test_charts_and_settings_are_there(tmp_path: Path) -> None:
    config = load_config("embedded", [])
    described = hyperparameters(config)
    assert set(described) == {"model", *SHOWN}, "a setting that is shown has gone from the configuration"
    assert not [value for value in described.values() if isinstance(value, str) and "/" in value]
    curves = Curves(tmp_path, hyperparameters=described)
    curves.add(1, {"vcf_acceptance_rate": 0.5})
    curves.close()
    data = next((tmp_path / "tensorboard").iterdir()).read_bytes()
    for text in (
        *QUESTIONS,
        "_hparams_/experiment",
        "_hparams_/session_end_info",
        *COMPARED,
        "medserl.vcf.min_jaccard",
    ):
        assert text.encode() in data, text
    assert "custom_scalars__config__" in events(tmp_path).Tags()["tensors"]
