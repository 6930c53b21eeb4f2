"""The evidence of docs/ward.md in a short form: an injector that explores, its games, an assessor that learns from
them by the product's rule, and no gold label anywhere. And what the bench's figures rest on."""

import argparse
import importlib.util
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from medserl.game import Label, LabelledNote

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1500)]  # set-up on a loaded machine takes minutes

BENCH = Path(__file__).parents[2] / "benchmarks/ward_learning.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ward_learning", BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_texts_that_share_their_beginning_are_judged_as_if_each_stood_alone(bench: ModuleType) -> None:
    import torch

    from medserl.ward.player import verdict_probabilities

    games = list(bench.gold(6))
    groups = [[games[i].original, games[i].modified, games[i + 1].modified] for i in range(0, 6, 2)]
    assessor = bench.Assessor(bench.model_dir())
    with torch.no_grad():
        together, _ = assessor(groups)
        alone = torch.cat([assessor([[text]])[0] for group in groups for text in group])
    assert torch.allclose(together, alone, atol=1e-4)
    texts = [LabelledNote("n", text, Label.CORRECT) for group in groups for text in group]
    judged = torch.tensor(verdict_probabilities(assessor.player, bench.PROMPTS, texts))
    assert torch.allclose(torch.softmax(together, 1)[:, 1], judged, atol=1e-4)
    assert together.std() > 0.1


@pytest.mark.parametrize("rule", ["reward", "divided", "likelihood"])
def test_every_rule_climbs_towards_the_right_verdict(bench: ModuleType, rule: str) -> None:
    """In the mean over answers: the gradient of the expected reward, or of the log-likelihood."""
    import torch

    torch.manual_seed(1)
    p = torch.tensor([0.2, 0.5, 0.9]).repeat(20_000)  # of the right verdict
    wrong = torch.tensor([1.0, 0.0, 1.0]).repeat(20_000)
    right = torch.log(p).requires_grad_()
    other = torch.log(1 - p).requires_grad_()
    log_p = torch.where(wrong[:, None] > 0, torch.stack([other, right], 1), torch.stack([right, other], 1))
    bench.verdict_loss(log_p, wrong, rule, 64).sum().backward()
    assert right.grad is not None and other.grad is not None
    odds = (-right.grad * (1 - p) + other.grad * p).reshape(-1, 3).mean(0)
    expected = 2 * p[:3] * (1 - p[:3]) if rule == "reward" else 1 - p[:3]
    assert torch.allclose(odds, expected, atol=0.02)


def test_questions_are_notes_with_their_own_edits(bench: ModuleType) -> None:
    said = [("a", "a!", "INCORRECT"), ("a", "a.", "CORRECT"), ("b", "b!", "INCORRECT"), ("c", "c.", "CORRECT")]
    games = [bench.Played(*game) for game in said]
    questions = bench.Questions(games, random.Random(1))
    taken = sorted(questions.take() for _ in range(2))
    assert taken == [(["a", "a!", "a."], [0.0, 1.0, 0.0]), (["b", "b!"], [0.0, 1.0])]


def test_play_without_a_gold_label_teaches_the_assessor_to_tell_more_notes_apart(
    bench: ModuleType, tmp_path: Path
) -> None:
    """The AUC is what a moved threshold between the two answers leaves where it is. When this was written, after 11 124
    questions: AUC 0.870 to 0.883, greedy 0.658 to 0.838, sampled 0.563 to 0.803."""
    before: dict[str, Any] = bench.judged(bench.Assessor(bench.model_dir()), tmp_path / "start", ["test"])["test"]
    bench.explorer(tmp_path / "explorer", 1200, 100, seed=1)
    games = list(bench.play(tmp_path / "explorer", 1200, [1.0], seed=1))
    options = argparse.Namespace(seed=1, lr=1e-3, updates=200, games=22, rule="likelihood", answers=8, entropy=0.0)
    assessor, asked = bench.learn(games, options)
    after = bench.judged(assessor, tmp_path / "after", ["test"])["test"]
    assert asked > 10_000
    assert after["auc"] > before["auc"] + 0.006
    assert after["greedy"] > before["greedy"] + 0.14
    assert after["sampled"] > before["sampled"] + 0.18
