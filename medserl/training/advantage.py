"""From REINFORCE++ returns to advantages when two roles share a batch. Torch only.

REINFORCE++ (arXiv 2501.03262, eq. 9) whitens over the whole batch. Two roles have two means: with one mean
for both, the role that loses more is pushed down whatever it does. See docs/game.md.

Whitening makes an update of full size out of whatever differs. Where all outcomes of a role are the same that is the
KL term, a thousandth of the reward: so no deviation below a share of the reward's range counts as one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medserl.config.settings import GameSettings, RewardSettings

EPSILON = 1e-8  # verl's masked_whiten (verl/utils/torch_functional.py)
FLOOR_SHARE = 0.1
"""Least deviation, as a share of the task reward's range: what one other outcome in a hundred makes."""
DEFAULT_FLOOR = 0.2


def deviation_floor(rewards: RewardSettings) -> float:
    """The least deviation of returns that is taken for a difference in outcomes."""
    played = rewards.assessor_right - rewards.assessor_wrong
    labelled = rewards.labelled_right - rewards.labelled_wrong
    return FLOOR_SHARE * min(played, labelled)


def role_advantages(settings: GameSettings) -> RoleAdvantages:
    """The rule that a configuration asks for."""
    rule = settings.advantage
    return RoleAdvantages(rule.normalisation, rule.baseline_decay, deviation_floor(settings.rewards))


class RoleAdvantages:
    """Normalises returns: ``global`` over the batch, ``per_role`` within each role (both as verl's ``masked_whiten``),
    ``role_baseline`` with a moving average per role and one scale for all.

    Args:
        normalisation: ``global``, ``per_role`` or ``role_baseline``.
        decay: Decay of the moving average of ``role_baseline``.
        floor: Least deviation that is divided by, in units of reward. Returns that deviate less keep their proportion
            to it, so that a role with nothing to learn is left all but alone.
    """

    def __init__(self, normalisation: str, decay: float = 0.95, floor: float = DEFAULT_FLOOR) -> None:
        self.normalisation = normalisation
        self.decay = decay
        self.floor = floor
        self.baselines: dict[str, float] = {}
        self.left_out: frozenset[str] = frozenset()
        """Roles of the last call whose returns deviated less than the floor from their mean."""

    def state_dict(self) -> dict[str, float]:
        """The moving averages, by role."""
        return dict(self.baselines)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what ``state_dict`` gave."""
        self.baselines = {role: float(value) for role, value in state.items()}

    def __call__(self, returns: torch.Tensor, mask: torch.Tensor, roles: Sequence[str]) -> torch.Tensor:
        """Normalise.

        Args:
            returns: float (rows, response length), returns-to-go per token.
            mask: (rows, response length), 1 on response tokens, 0 on padding.
            roles: Role of each row; rows of padding may have any.

        Returns:
            float (rows, response length), zero outside the mask.
        """
        mask = mask.to(returns.dtype)
        centred = torch.zeros_like(returns)
        together, averages = self.normalisation == "global", self.normalisation == "role_baseline"
        left_out: set[str] = set()
        for role, rows in _groups(roles, mask, together).items():
            mean = float((returns[rows] * mask[rows]).sum() / mask[rows].sum())
            about_mean = (returns[rows] - mean) * mask[rows]
            variance = _variance(about_mean, mask[rows])
            # One answer alone still differs from the average of rounds before.
            if quiet := bool(variance < self.floor**2) and not (averages and len(rows) == 1):
                left_out |= set(roles) if together else {role}
            if averages:
                baseline = self._moved_baseline(role, mean)
                # The same amount for every answer would only make noise.
                centred[rows] = about_mean if quiet else (returns[rows] - baseline) * mask[rows]
            else:
                centred[rows] = about_mean * self._scale(variance)
        self.left_out = frozenset(left_out)
        if averages:
            centred *= self._scale(centred.square().sum() / mask.sum().clamp(min=1.0))
        return centred

    def _scale(self, variance: torch.Tensor) -> torch.Tensor:
        return torch.rsqrt(variance.clamp(min=self.floor**2) + EPSILON)

    def _moved_baseline(self, role: str, mean: float) -> float:
        """The moving average as it was; ``mean`` goes into it."""
        baseline = self.baselines.get(role, mean)
        self.baselines[role] = self.decay * baseline + (1 - self.decay) * mean
        return baseline


def _groups(roles: Sequence[str], mask: torch.Tensor, together: bool) -> dict[str, torch.Tensor]:
    """Row numbers of what is normalised together; rows without a token belong nowhere."""
    answered = mask.sum(dim=-1) > 0
    groups: dict[str, list[int]] = {}
    for index, role in enumerate(roles):
        if answered[index]:
            groups.setdefault("" if together else role, []).append(index)
    return {role: torch.tensor(rows) for role, rows in sorted(groups.items())}


def _variance(centred: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Over the mask, with Bessel's correction, as verl whitens."""
    return centred.square().sum() / (mask.sum() - 1).clamp(min=1.0)
