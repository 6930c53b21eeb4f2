"""Advantages per role."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from medserl.training.advantage import RoleAdvantages

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
        assert values.std(unbiased=False).item() == pytest.approx(1.0, abs=1e-3)


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
