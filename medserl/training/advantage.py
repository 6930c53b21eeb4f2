"""From REINFORCE++ returns to advantages when two roles share a batch. Torch only.

REINFORCE++ (arXiv 2501.03262, eq. 9) whitens over the whole batch. Two roles have two means: with one mean
for both, the role that loses more is pushed down whatever it does. See docs/game.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

RoleRule = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]  # role, its returns, their mask
EPSILON = 1e-8  # verl's masked_whiten (verl/utils/torch_functional.py)


class RoleAdvantages:
    """Normalises returns per role.

    Args:
        normalisation: ``per_role`` or ``role_baseline``; ``global`` is verl's own and never gets here.
        decay: Decay of the moving average of ``role_baseline``.
    """

    def __init__(self, normalisation: str, decay: float = 0.95) -> None:
        self.normalisation = normalisation
        self.decay = decay
        self.baselines: dict[str, float] = {}

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
        if self.normalisation == "per_role":
            centred = self._by_role(returns, mask, roles, self._whiten)
        else:
            centred = self._by_role(returns, mask, roles, self._subtract_baseline) * mask
            scale = (centred.square().sum() / mask.sum().clamp(min=1.0)).sqrt()
            centred = centred / (scale + EPSILON)
        return centred * mask

    @staticmethod
    def _by_role(returns: torch.Tensor, mask: torch.Tensor, roles: Sequence[str], rule: RoleRule) -> torch.Tensor:
        advantages = torch.zeros_like(returns)
        for role in sorted(set(roles)):
            rows = torch.tensor([i for i, r in enumerate(roles) if r == role])
            if mask[rows].sum() > 0:
                advantages[rows] = rule(role, returns[rows], mask[rows])
        return advantages

    @staticmethod
    def _whiten(role: str, returns: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        count = mask.sum()
        mean = (returns * mask).sum() / count
        variance = ((returns - mean).square() * mask).sum() / count
        return (returns - mean) * torch.rsqrt(variance + EPSILON)

    def _subtract_baseline(self, role: str, returns: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        mean = float((returns * mask).sum() / mask.sum())
        baseline = self.baselines.get(role, mean)
        self.baselines[role] = self.decay * baseline + (1 - self.decay) * mean
        return returns - baseline
