"""Advantages per role."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medserl.config.settings import RewardSettings
from medserl.training.advantage import DEFAULT_FLOOR, RoleAdvantages, deviation_floor

ROLES = ["injector", "assessor", "injector", "assessor", "padding"]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    scores = torch.tensor([-1.0, 1.0, -0.5, -1.0, 0.0])
    return scores[:, None] * mask, mask


def test_each_role_is_whitened_over_its_own_tokens() -> None:
    returns, mask = batch()
    advantages = RoleAdvantages("per_role")(returns, mask, ROLES)
    for role in ("injector", "assessor"):
        rows = torch.tensor([r == role for r in ROLES])
        values = advantages[rows][mask[rows].bool()]
        assert values.mean().item() == pytest.approx(0.0, abs=1e-5)
        assert values.std().item() == pytest.approx(1.0, abs=1e-3)


@given(shift=st.floats(-5, 5))
def test_one_roles_level_does_not_move_the_other(shift: float) -> None:
    returns, mask = batch()
    moved = returns.clone()
    moved[[0, 2]] += shift * mask[[0, 2]]
    plain = RoleAdvantages("per_role")(returns, mask, ROLES)
    shifted = RoleAdvantages("per_role")(moved, mask, ROLES)
    assert torch.allclose(plain, shifted, atol=1e-3)


def test_padding_gets_nothing_and_harms_nothing() -> None:
    returns, mask = batch()
    advantages = RoleAdvantages("per_role")(returns, mask, ROLES)
    assert torch.isfinite(advantages).all()
    assert (advantages[mask == 0] == 0).all()


def test_a_role_with_equal_returns_gets_zero_not_infinity() -> None:
    mask = torch.ones(2, 3)
    advantages = RoleAdvantages("per_role")(torch.full((2, 3), -0.5), mask, ["injector", "injector"])
    assert advantages.abs().max().item() < 1e-3


@given(
    spread=st.floats(0.0001, 0.02), rows=st.integers(2, 40), length=st.integers(1, 24), seed=st.integers(0, 99),
    rule=st.sampled_from(["global", "per_role", "role_baseline"]),
)  # fmt: skip
def test_a_role_that_differs_by_its_kl_only_gets_small_advantages(
    spread: float, rows: int, length: int, seed: int, rule: str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rewards = spread * torch.randn(rows, length, generator=generator)
    rewards[:, -1] += 1.1
    returns = rewards.flip(1).cumsum(1).flip(1)
    rule_ = RoleAdvantages(rule)
    advantages = rule_(returns, torch.ones(rows, length), ["assessor"] * rows)
    deviation = returns.std().item()
    assert advantages.square().mean().sqrt().item() == pytest.approx(deviation / 0.2 if deviation < 0.2 else 1, rel=0.3)
    assert (rule_.left_out == {"assessor"}) == (deviation < 0.2) or abs(deviation - 0.2) < 0.05


def test_equal_outcomes_above_the_moving_average_are_no_reason_to_move() -> None:
    """The same advantage for every answer has a gradient of zero in the mean, and noise of full size."""
    rule = RoleAdvantages("role_baseline", decay=0.5)
    rule.load_state_dict({"assessor": -0.4, "injector": 0.1})
    returns = torch.tensor([[1.1], [1.1], [1.1], [-1.0], [1.0]])
    roles = ["assessor"] * 3 + ["injector"] * 2
    advantages = rule(returns, torch.ones(5, 1), roles)
    assert advantages[:3].abs().max() < 1e-6 and advantages[3:].abs().min() > 0.5
    assert rule.left_out == {"assessor"}
    assert rule.baselines["assessor"] == pytest.approx(0.5 * -0.4 + 0.5 * 1.1)
    alone = rule(torch.tensor([[1.1]]), torch.ones(1, 1), ["assessor"])
    assert alone.item() == pytest.approx(1.0) and rule.left_out == frozenset()


def test_one_other_outcome_in_a_hundred_still_counts_in_full() -> None:
    scores = torch.full((100, 1), 1.1)
    scores[0] = -0.9
    rule = RoleAdvantages("per_role")
    assert rule(scores, torch.ones(100, 1), ["assessor"] * 100).std().item() == pytest.approx(1.0, abs=0.01)
    assert rule.left_out == frozenset()


def test_the_floor_follows_the_rewards() -> None:
    assert deviation_floor(RewardSettings()) == pytest.approx(DEFAULT_FLOOR)
    assert (
        deviation_floor(RewardSettings(assessor_right=10, assessor_wrong=0, labelled_right=8, labelled_wrong=0)) == 0.8
    )


@given(seed=st.integers(0, 999), rows=st.integers(2, 12))
def test_global_is_per_role_with_one_role(seed: int, rows: int) -> None:
    returns = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(rows, 3)
    alone = RoleAdvantages("per_role")(returns, mask, ["injector"] * rows)
    assert torch.equal(alone, RoleAdvantages("global")(returns, mask, (["injector", "assessor"] * rows)[:rows]))


def test_a_single_token_gets_nothing() -> None:
    for rule in ("global", "per_role", "role_baseline"):
        assert RoleAdvantages(rule)(torch.ones(1, 1), torch.ones(1, 1), ["injector"]).tolist() == [[0.0]]


def test_the_role_baseline_is_a_moving_average_that_survives_a_checkpoint() -> None:
    rule = RoleAdvantages("role_baseline", decay=0.5)
    mask = torch.ones(2, 1)
    rule(torch.tensor([[1.0], [0.0]]), mask, ["a", "a"])
    assert rule.baselines["a"] == pytest.approx(0.5)
    rule(torch.tensor([[2.0], [2.0]]), mask, ["a", "a"])
    assert rule.baselines["a"] == pytest.approx(0.5 * 0.5 + 0.5 * 2.0)
    restored = RoleAdvantages("role_baseline", decay=0.5)
    restored.load_state_dict(rule.state_dict())
    returns = torch.tensor([[1.0], [3.0]])
    assert torch.equal(restored(returns, mask, ["a", "a"]), rule(returns, mask, ["a", "a"]))


def test_the_role_baseline_scales_to_unit_size() -> None:
    returns, mask = batch()
    advantages = RoleAdvantages("role_baseline")(returns, mask, ROLES)
    size = math.sqrt((advantages.square().sum() / mask.sum()).item())
    assert size == pytest.approx(1.0, abs=1e-3)
