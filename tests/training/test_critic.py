"""A round with a critic: what its values do to the advantages of two roles, and that it rests where nothing trains.

verl's own methods run for real; workers and TransferQueue are stand-ins (tests/training/round_made.py).
"""

from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]  # imports torch and verl

from medserl.game import Label, Mode, Role  # noqa: E402
from tests.training.test_trainer import balanced, made, queue, real  # noqa: E402, F401

GAE = "algorithm.adv_estimator=gae"


def with_values(made: Any, queue: Any, value: Any, *overrides: str) -> tuple[Any, Any, dict[str, Any]]:  # noqa: F811
    """A round of eight games whose assessors win half of the time, up to its advantages.

    Args:
        made: The fixture.
        queue: The fixture.
        value: Of each token of a row, from the row's role (None for padding) and its length.
        overrides: Of the configuration.
    """
    trainer = made.made_trainer([GAE, "medserl.advantage.injector_weight=1", *overrides])
    trainer.use_critic = True
    games = [made.duel(f"d{i}", Mode.BENIGN if i % 2 else Mode.ERROR, reward=1.0 if i < 4 else -1.0) for i in range(8)]
    batch, metrics = balanced(trainer, made, queue, games)
    for key in batch.keys:
        queue.rows[key]["values"] = value(trainer.round.roles.get(key), len(queue.rows[key]["rm_scores"]))
    trainer._compute_advantage(batch, metrics)
    return trainer, batch, metrics


def advantages(queue: Any, keys: list[str]) -> list[list[float]]:  # noqa: F811
    return [queue.rows[key]["advantages"].tolist() for key in keys]


def test_a_value_that_is_the_same_everywhere_changes_nothing(made: Any, queue: Any) -> None:  # noqa: F811
    """Whitening within a role takes it out; returns, which the critic learns, are without it."""
    import torch

    trainer, batch, _ = with_values(made, queue, lambda role, length: torch.full((length,), 0.25))
    keys = real(trainer, batch)
    found, returns = advantages(queue, keys), [queue.rows[key]["returns"].tolist() for key in keys]
    without = made.made_trainer(["medserl.advantage.injector_weight=1"])
    without.round = trainer.round
    without._compute_advantage(batch, {})
    for ours, theirs in zip(found, advantages(queue, keys), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    for ours, key in zip(returns, keys, strict=True):
        assert ours == pytest.approx(queue.rows[key]["returns"].tolist())


@pytest.mark.parametrize("normalisation", ["per_role", "global"])
def test_what_the_values_leave_of_the_returns_is_normalised(made: Any, queue: Any, normalisation: str) -> None:  # noqa: F811
    import torch

    noise = torch.Generator().manual_seed(3)
    trainer, batch, metrics = with_values(
        made,
        queue,
        lambda role, length: 0.5 * torch.randn(length, generator=noise),
        f"medserl.advantage.normalisation={normalisation}",
    )
    keys = real(trainer, batch)
    left = [queue.rows[key]["rm_scores"].sum() - queue.rows[key]["values"] for key in keys]
    groups: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(trainer.round.roles[key] if normalisation == "per_role" else "", []).append(i)
    for rows in groups.values():
        together = torch.cat([left[i] for i in rows])
        wanted = (together - together.mean()) / together.std()
        assert torch.cat([queue.rows[keys[i]]["advantages"] for i in rows]).tolist() == pytest.approx(
            wanted.tolist(), abs=1e-4
        )
    assert metrics["medserl/left_out/assessor"] == 0.0


def test_lambda_leans_on_the_values(made: Any, queue: Any) -> None:  # noqa: F811
    """With 0, a token's advantage is the next value less its own: only the last one sees the reward."""
    import torch

    trainer, batch, _ = with_values(made, queue, lambda role, length: torch.zeros(length), "algorithm.lam=0.0")
    for key in real(trainer, batch):
        assert queue.rows[key]["returns"][:-1].tolist() == [0.0] * (len(queue.rows[key]["returns"]) - 1)
        assert abs(queue.rows[key]["returns"][-1]) == 1.0


def test_the_kl_is_in_the_rewards_that_the_critic_learns(made: Any, queue: Any) -> None:  # noqa: F811
    import torch

    trainer, batch, metrics = with_values(made, queue, lambda role, length: torch.zeros(length))
    for key in real(trainer, batch):
        queue.rows[key]["ref_log_prob"] = queue.rows[key]["old_log_probs"] - 0.05
    trainer._compute_advantage(batch, metrics)
    assert metrics["actor/reward_kl_penalty"] == pytest.approx(0.05)
    for key in real(trainer, batch):
        row = queue.rows[key]
        wanted = row["rm_scores"].sum() - 0.01 * 0.05 * len(row["rm_scores"])
        assert float(row["returns"][0]) == pytest.approx(float(wanted), abs=1e-5)


def test_a_critic_that_knows_every_outcome_leaves_its_role_alone(made: Any, queue: Any) -> None:  # noqa: F811
    import torch

    trainer, batch, _ = with_values(made, queue, lambda role, length: torch.zeros(length))
    for key in real(trainer, batch):
        known = queue.rows[key]["rm_scores"].sum() if trainer.round.roles[key] == Role.ASSESSOR.value else 0.0
        queue.rows[key]["values"] = torch.full_like(queue.rows[key]["values"], float(known))
    metrics: dict[str, Any] = {}
    trainer._compute_advantage(batch, metrics)
    assert metrics["medserl/left_out/assessor"] == 1.0 and metrics["medserl/left_out/injector"] == 0.0


def test_padding_has_no_part_in_it(made: Any, queue: Any) -> None:  # noqa: F811
    import torch

    found = []
    for worth in (0.0, 100.0):
        queue.rows.clear()
        trainer, batch, _ = with_values(
            made, queue, lambda role, length, worth=worth: torch.full((length,), 0.1 if role else worth)
        )
        assert len(real(trainer, batch)) == 16 < len(batch)
        found.append(advantages(queue, sorted(real(trainer, batch))))
    assert found[0] == found[1]


class Critic:
    """Stands where verl's worker group of the critic stands."""

    def __init__(self) -> None:
        self.updates = 0

    def train_mini_batch(self, batch: Any) -> Any:
        self.updates += 1
        return self

    def get(self) -> dict[str, Any]:
        return {"metrics": {"critic/vf_loss": [0.5], "mfu": [0.1], "lr": [1e-5]}}


def test_it_is_updated_unless_nothing_trains(made: Any, queue: Any) -> None:  # noqa: F811
    import torch

    trainer, batch, metrics = with_values(made, queue, lambda role, length: torch.zeros(length))
    trainer.critic_wg = Critic()
    trainer._update_critic(batch, metrics)
    assert trainer.critic_wg.updates == 1 and metrics["critic/vf_loss"] == 0.5 and metrics["critic/lr"] == 1e-5
    trainer.round.nothing_trains = True
    assert trainer._update_critic(batch, {}) is batch and trainer.critic_wg.updates == 1


def test_a_round_in_which_nothing_trains_gets_through(made: Any, queue: Any) -> None:  # noqa: F811
    import torch

    trainer = made.made_trainer([GAE, "medserl.train_roles=assessor"])
    trainer.use_critic = True
    batch, metrics = balanced(trainer, made, queue, [made.made_game("a", Mode.ERROR, None, attempts=3)])
    for key in batch.keys:
        queue.rows[key]["values"] = torch.zeros(len(queue.rows[key]["rm_scores"]))
    trainer._compute_advantage(batch, metrics)
    assert trainer.round.nothing_trains and "medserl/left_out/assessor" not in metrics


def test_gold_labelled_notes_have_values_too(made: Any, queue: Any) -> None:  # noqa: F811
    import torch

    trainer = made.made_trainer([GAE])
    trainer.use_critic = True
    games = [made.duel(f"d{i}") for i in range(2)] + [made.gold(f"g{i}", Label.CORRECT) for i in range(4)]
    batch, metrics = balanced(trainer, made, queue, games)
    for key in batch.keys:
        queue.rows[key]["values"] = torch.zeros(len(queue.rows[key]["rm_scores"]))
    trainer._compute_advantage(batch, metrics)
    assert set(trainer.round.advantages) == set(real(trainer, batch))
