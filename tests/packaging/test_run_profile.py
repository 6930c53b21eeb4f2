"""The profile of a run counts rounds, not rows of its metrics."""

from pathlib import Path

from tests.packaging.conftest import load


def test_a_validation_is_no_round(root: Path, tmp_path: Path) -> None:
    run_profile = load("run_profile", root / "benchmarks/run_profile.py")
    metrics = tmp_path / "metrics.jsonl"
    assert run_profile.played(metrics) == []
    metrics.write_text('{"round": 0, "validation": true}\n')
    assert run_profile.played(metrics) == [], "the validation before round 1 ends no start-up"
    metrics.write_text(
        '{"round": 0, "validation": true}\n{"round": 1}\n{"round": 2}\n{"round": 2, "validation": true}\n'
    )
    assert [row["round"] for row in run_profile.played(metrics)] == [1, 2]
