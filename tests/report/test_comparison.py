"""Several runs beside each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from medserl.cli.main import main
from medserl.report.comparison import grouped, paired_tests, spread
from medserl.run.run_dir import RunDir

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def run(
        name: str, seed: int, values: list[float], *overrides: str, texts: int = 100, referee: str = "oracle"
    ) -> Path:
        owner = RunDir(tmp_path / name)
        owner.open(
            OmegaConf.create({"medserl": {"seed": seed, "referee": {"name": referee}}}),
            "embedded",
            [f"medserl.seed={seed}", *overrides],
        )
        owner.close()
        rows = [
            {
                "round": 5 * i,
                "val/greedy/balanced_accuracy": v,
                "val/texts_correct": texts,
                "val/texts_incorrect": texts,
            }
            for i, v in enumerate(values)
        ]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    return run


def test_seeds_are_one_configuration_and_the_test_is_paired(make: Make) -> None:
    lr = "actor_rollout_ref.actor.optim.lr=1e-5"
    runs = [make(f"a{seed}", seed, [0.6, 0.70 + seed / 100]) for seed in (1, 2, 3)]
    runs += [make(f"b{seed}", seed, [0.6, 0.80 + seed / 100 + (seed == 2) / 200], lr) for seed in (1, 2, 3)]
    groups = grouped(runs)
    assert [len(group.runs) for group in groups] == [3, 3]
    assert groups[1].name == lr
    (sentence,) = paired_tests(groups)
    assert f"{lr} against a1: +0.102 at the end over 3 seeds (95 % interval +0.094" in sentence
    assert "p = 0.000" in sentence


def test_the_command_writes_a_private_page_beside_the_runs(
    make: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = [make("a", 1, [0.5, 0.6]), make("b", 2, [0.5, 0.7]), make("c<i>", 1, [0.5, 0.8], "medserl.max_attempts=1")]
    assert main(["report", *map(str, runs)]) == 0
    printed = capsys.readouterr().out
    assert "no seed in common" not in printed and "1 seed in common; two are needed" in printed
    page = tmp_path / "comparison.html"
    assert page.stat().st_mode & 0o077 == 0
    text = page.read_text()
    assert "0.650 ± 0.071" in text and "<i>" not in text and "<script" not in text


def test_labels_that_nobody_checked_are_told_of(make: Make, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    asked = "medserl.referee.name=instruction"
    runs = [make("a", 1, [0.5, 0.6]), *(make(f"b{i}", i, [0.5, 0.7], asked, referee="instruction") for i in (1, 2))]
    assert main(["report", *map(str, runs)]) == 0
    told = f"{asked}: Labels are what the injector was asked for and were not checked"
    for text in (capsys.readouterr().out, (tmp_path / "comparison.html").read_text()):
        assert text.count("were not checked") == text.count(told) == 1


def test_what_cannot_be_compared_is_refused(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = make("a", 1, [0.5, 0.6]), make("b", 1, [0.5, 0.6], texts=50)
    for runs, said in (
        ([a, a], "named twice"),
        ([a, b], "judged by val/greedy/balanced_accuracy on 100 texts"),
        ([a, tmp_path], "has no metrics.jsonl"),
    ):
        assert main(["report", *map(str, runs)]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "comparison.html").exists()
    assert main(["report", str(a), "--out", str(tmp_path / "x.html")]) == 2


def test_a_band_is_a_standard_deviation_at_the_rounds_that_all_have() -> None:
    assert spread([[(0, 0.4), (5, 0.5)], [(0, 0.6)]]) == [
        (0.0, pytest.approx(0.3586, abs=1e-4), pytest.approx(0.6414, abs=1e-4))
    ]
    assert spread([[(0, 0.4)]]) == []
