"""What a run writes while it works."""

import json
import math
from pathlib import Path

from medserl.training.run_log import METRICS_FILE, read_metrics, round_line


def test_a_round_line_can_be_grepped_and_shows_undefined_values_as_a_dash() -> None:
    line = round_line(3, 12, 1, {"vcf_acceptance_rate": 0.714, "mean_reward": -0.25, "actor/entropy": math.nan})
    assert line.startswith("round 3/12 epoch 1 ")
    assert "vcf_acceptance_rate=0.71" in line
    assert "mean_reward=-0.25" in line
    assert "entropy=-" in line


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    path.write_text(json.dumps({"round": 1}) + "\n" + '{"round": 2, "x"')
    assert read_metrics(path) == [{"round": 1}]
