"""The bench of whole games (benchmarks/whole_games.py) in tiny: it plays, it updates towards what paid, and its options
do what they say."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = ["--notes", "64", "--play", "8", "--replay", "8", "--rounds", "2"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("whole_games", BENCHMARKS / "whole_games.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(module.judged.__globals__, "TEST_PATIENTS", 4)
    return module


def played(
    bench: ModuleType, folder: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[list[Any], dict[str, Any]]:
    """The rounds' lines, and what is printed at the end."""
    out = folder / "games.jsonl"
    bench.main([*TINY, "--out", str(out), *options])
    printed = capsys.readouterr().out
    return [json.loads(line) for line in out.read_text().splitlines()], json.loads(printed[: printed.rindex("}") + 1])


def test_two_rounds_are_played_trained_on_and_judged(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from medserl.game import Role

    gains: list[float] = []
    step = bench.SelfPlay._step

    def watched(run: Any, rows: list[Any], old: list[Any], advantages: list[Any], roles: list[Any]) -> None:
        step(run, rows, old, advantages, roles)
        with torch.no_grad():
            new = bench.token_log_probs(run.policy, rows)
        gains.append(sum(float((a * (n - o)).sum()) for a, n, o in zip(advantages, new, old, strict=True)))
        assert set(roles) == set(Role)

    monkeypatch.setattr(bench.SelfPlay, "_step", watched)
    options = ["--credit", "likelihood", "--every", "1", "--annealed", "--rare", "0.5", "--entropy", "0.001"]
    rows, final = played(bench, tmp_path, capsys, *options)
    assert [row["round"] for row in rows] == [1, 2]
    assert all(0 < row["acceptance"] <= 1 and row["optimizer_steps"] >= 1 for row in rows)
    assert rows[0]["kl"] == 0 and rows[1]["kl"] != 0, "the policy moved away from the reference"
    assert rows[1]["questions"] > rows[0]["questions"], "edits of the first round are asked about again"
    assert all(gain > 0 for gain in gains), "an update makes likelier what paid"
    assert all(0 <= row["test"]["auc"] <= 1 for row in rows)
    assert final["rounds"] == 2 and final["questions"] == sum(row["questions"] for row in rows)
    for split in ("test", "test_heldout"):
        assert all(0 <= final[split][name] <= 1 for name in ("greedy", "sampled", "auc"))


def test_a_frozen_injector_is_the_start_model_whatever_the_assessor_learns(
    bench: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: set[str] = set()
    step = bench.SelfPlay._step

    def watched(run: Any, rows: list[Any], old: list[Any], advantages: list[Any], roles: list[Any]) -> None:
        trained.update(role.value for role in roles)
        step(run, rows, old, advantages, roles)

    monkeypatch.setattr(bench.SelfPlay, "_step", watched)
    options = ["--frozen", "--lr", "0.05", "--kl", "0.2", "--referee", "instruction", "--seed", "2"]
    rows, final = played(bench, tmp_path, capsys, *options, "--rounds", "9", "--stop", "2", "--mini", "4")
    assert trained == {"assessor"} and len(rows) == 2
    assert all(row["optimizer_steps"] == max(1, round(row["questions"] / 4)) for row in rows)
    assert rows[1]["acceptance"] > 0.4, "a rate that ruins the policy leaves the injector as it was"
    assert final["inversion"] >= 0
