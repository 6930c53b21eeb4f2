"""What a run writes while it works."""

import json
import logging
import math
from pathlib import Path

import pytest

from medserl.run.run_log import ASIDE_FILE, METRICS_FILE, RunLog, read_metrics, round_line


def test_a_round_line_can_be_grepped_and_shows_undefined_values_as_a_dash() -> None:
    line = round_line(3, 12, 1, {"vcf_acceptance_rate": 0.714, "mean_reward": -0.25, "actor/entropy": math.nan})
    assert line.startswith("round 3/12 epoch 1 ")
    assert "vcf_acceptance_rate=0.71" in line
    assert "mean_reward=-0.25" in line
    assert "entropy=-" in line


def test_an_inversion_that_nobody_measured_is_not_shown_as_a_number() -> None:
    assert " label_inversion=0.25 " in round_line(1, 2, 1, {"label_inversion_rate": 0.25, "referee/unchecked_rate": 0})
    assert " label_inversion=not_measured " in round_line(1, 2, 1, {"referee/unchecked_rate": 0.9})
    assert " label_inversion=- " in round_line(1, 2, 1, {}), "no game was ruled on"


def test_a_remark_stands_in_the_log_and_in_tensorboard(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = RunLog(tmp_path, 0, 9)
    with caplog.at_level(logging.WARNING, logger="medserl.round"):
        log.remark("alarms", 3, "alarm kl: look at it")
    log.close()
    assert caplog.messages == ["round 3: alarm kl: look at it"]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert "alarms/text_summary" in events.Tags()["tensors"]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text(json.dumps({"round": 1}) + "\n" + '{"round": 2, "x"')
    assert read_metrics(path) == [{"round": 1}]


def play(directory: Path, resumed_at: int, rounds: list[int]) -> None:
    """A start that records these rounds and is then lost: no file is closed in order."""
    log = RunLog(directory, resumed_at, 9)
    if resumed_at == 0:
        log.validation(0, {"val/greedy/mcc": 0.1})
    for number in rounds:
        log.round(number, 0, {"mean_reward": number / 10})
    log.sync()
    log.close()


@pytest.mark.parametrize(
    "starts",
    [
        [(0, [1, 2, 3]), (3, [4, 5])],  # stopped with a checkpoint
        [(0, [1, 2, 3]), (1, [2, 3]), (1, [2]), (2, [3, 4, 5])],  # killed, again and again
        [(0, [1, 2]), (0, [1, 2, 3, 4, 5])],  # killed before the first checkpoint
    ],
)
def test_no_round_is_missing_or_twice_after_interruptions(tmp_path: Path, starts: list[tuple[int, list[int]]]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed_at, rounds in starts:
        play(tmp_path, resumed_at, rounds)
    assert [row["round"] for row in read_metrics(tmp_path / METRICS_FILE)] == [0, 1, 2, 3, 4, 5]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    points = [(point.step, round(point.value, 3)) for point in events.Scalars("mean_reward")]
    assert points == [(n, n / 10) for n in range(1, 6)]
    assert [point.step for point in events.Scalars("val/greedy/mcc")] == [0]


ROW = '{"round": %d, "mean_reward": 0.5}'


@pytest.mark.parametrize(
    ("bad", "readable"),
    [
        (b'{"round": 2, "ep', []),
        (b"\0" * 30, []),
        (b"[1, 2]", []),
        (b'{"round": "two"}', []),
        (b'{"epoch": 2}', []),
        (b"\xff\xfe", []),
        (b'{"round": 2, "ep{"round": 2, "mean_reward": 0.5}', [2]),  # cut off, and gone on with behind it
        (b'\0\0\0{"round": 2, "mean_reward": 0.5}', [2]),  # a power cut
    ],
)
def test_a_bad_line_costs_no_other_and_is_kept_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: bytes, readable: list[int]
) -> None:
    path = tmp_path / METRICS_FILE
    path.write_bytes(b"\n".join([(ROW % 1).encode(), bad, *((ROW % n).encode() for n in (3, 4, 5))]) + b"\n")
    logging.getLogger("medserl").propagate = True
    RunLog(tmp_path, 4, 9).close()
    assert [row["round"] for row in read_metrics(path)] == [1, *readable, 3, 4]
    aside = (tmp_path / ASIDE_FILE).read_bytes()
    assert (ROW % 5).encode() in aside, "round 5 is played again"
    if bad.strip(b"\0") and not bad.startswith(b"\0"):
        assert bad[:5] in aside and f"{path}: line 2 cannot be read" in caplog.text


def test_nothing_is_kept_aside_where_nothing_leaves(tmp_path: Path) -> None:
    play(tmp_path, 0, [1, 2])
    play(tmp_path, 2, [3])
    assert not (tmp_path / ASIDE_FILE).exists()
