"""What `SelfPlayTrainer` does with a round: which rows train, in which mini-batch, with which advantages.

verl's own methods run for real; workers and TransferQueue are stand-ins (tests/training/round_made.py).
"""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]  # imports torch and verl

from medserl.game import Label, Mode, Note  # noqa: E402

RIGHT, WRONG = Label.CORRECT, Label.INCORRECT


@pytest.fixture(scope="module")
def made() -> Any:
    from medserl.cpu.environment import cpu_environment

    os.environ.update(cpu_environment())
    from tests.training import round_made

    return round_made


@pytest.fixture
def queue(made: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return made.Queue(monkeypatch)


def balanced(trainer: Any, made: Any, queue: Any, games: list[Any]) -> tuple[Any, dict[str, Any]]:
    metrics: dict[str, Any] = {}
    return trainer._balance_batch(made.play(trainer, queue, games), metrics), metrics


def real(trainer: Any, batch: Any) -> list[str]:
    return [key for key in batch.keys if key in trainer.round.roles]


def name_of(trainer: Any, key: str) -> str:
    game = trainer.round.games[key.split("_")[0]]
    return f"{game.note_id}:{trainer.round.roles[key]}"


# ---------------------------------------------------------------- which rows train


def test_decided_games_train_both_roles_and_gold_notes_the_assessor(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    games = [made.duel("a"), made.duel("b", Mode.BENIGN), made.gold("g", RIGHT)]
    batch, metrics = balanced(trainer, made, queue, games)
    assert sorted(name_of(trainer, key) for key in real(trainer, batch)) == [
        "a:assessor", "a:injector", "b:assessor", "b:injector", "g:assessor"
    ]  # fmt: skip
    assert metrics["medserl/trained_trajectories"] == 5
    assert not trainer.round.nothing_trains
    assert set(queue.rows) == set(batch.keys)


def test_accepted_edits_are_followed_with_their_rulings(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    balanced(trainer, made, queue, [made.duel("a"), made.made_game("b", Mode.BENIGN, None), made.gold("g", RIGHT)])
    for uid in sorted(trainer.round.tasks)[:2]:
        trainer.round.tasks[uid] = replace(trainer.round.tasks[uid], note=Note(uid, "original"))
    from medserl.training.exploration import accepted_edits

    (edit,) = accepted_edits(trainer.round.tasks, trainer.round.games)
    assert (edit.modified, edit.truth) == ("x", WRONG)


def test_attempts_before_the_accepted_one_do_not_train_and_leave_the_queue(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    games = [made.made_game("a", Mode.ERROR, WRONG, attempts=3), made.duel("b", Mode.BENIGN)]
    batch, _ = balanced(trainer, made, queue, games)
    assert {key for key in real(trainer, batch) if key.startswith("r000001n00000")} == {
        "r000001n00000_2_0", "r000001n00000_3_0"
    }  # fmt: skip
    assert {"r000001n00000_0_0", "r000001n00000_1_0"} <= set(trainer.round.unused) < set(queue.rows)


def test_a_game_whose_attempts_were_all_rejected_trains_them(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    batch, _ = balanced(trainer, made, queue, [made.made_game("a", Mode.ERROR, None, attempts=3)])
    assert [trainer.round.roles[key] for key in real(trainer, batch)] == ["injector"] * 3


def test_modes_train_equally(made: Any, queue: Any) -> None:
    games = [made.duel(f"e{i}") for i in range(5)] + [made.duel(f"b{i}", Mode.BENIGN) for i in range(2)]
    chosen = []
    for seed in (1, 1, 2, 3, 4):
        trainer = made.made_trainer([f"medserl.seed={seed}", "medserl.balance_labels=false"])
        batch, _ = balanced(trainer, made, queue, games)
        names = frozenset(name_of(trainer, key) for key in real(trainer, batch))
        assert Counter(name[0] for name in names) == {"e": 4, "b": 4}
        chosen.append(names)
        queue.rows.clear()
    assert chosen[0] == chosen[1] and len(set(chosen)) > 1
    trainer = made.made_trainer(["medserl.balance_modes=false", "medserl.balance_labels=false"])
    batch, _ = balanced(trainer, made, queue, games)
    assert len(real(trainer, batch)) == 14


def test_labels_train_the_assessor_equally_and_the_injector_as_they_are(made: Any, queue: Any) -> None:
    """Three of four benign games ended INCORRECT, as they do where the injector contradicts its mode."""
    games = [made.duel(f"e{i}") for i in range(4)]
    games += [made.duel(f"b{i}", Mode.BENIGN, WRONG if i else RIGHT) for i in range(4)]
    games += [made.gold("g", RIGHT), made.gold("h", WRONG)]
    trainer = made.made_trainer()
    batch, _ = balanced(trainer, made, queue, games)
    assessed = [trainer.round.games[key.split("_")[0]] for key in real(trainer, batch)
                if trainer.round.roles[key] == "assessor"]  # fmt: skip
    assert Counter(game.truth for game in assessed if game.mode) == {RIGHT: 1, WRONG: 1}
    assert Counter(trainer.round.roles[key] for key in real(trainer, batch)) == {"injector": 8, "assessor": 4}


@pytest.mark.parametrize(
    ("roles", "number", "trained"),
    [("both", 1, {"injector", "assessor"}), ("assessor", 1, {"assessor"}), ("assessor", 2, {"assessor"}),
     ("alternate", 1, {"assessor"}), ("alternate", 2, {"injector"}), ("alternate", 3, {"assessor"})],
)  # fmt: skip
def test_roles_that_train(made: Any, queue: Any, roles: str, number: int, trained: set[str]) -> None:
    trainer = made.made_trainer([f"medserl.train_roles={roles}"], number)
    games = [made.duel("a"), made.duel("b", Mode.BENIGN), made.gold("g", RIGHT)]
    balanced(trainer, made, queue, games)
    assert set(trainer.round.roles.values()) == trained


def test_the_order_of_rows_does_not_depend_on_which_game_ended_first(made: Any, queue: Any) -> None:
    games = [made.duel(f"e{i}") for i in range(3)] + [made.duel(f"b{i}", Mode.BENIGN) for i in range(3)]
    orders = []
    for turn in (1, -1):
        trainer = made.made_trainer()
        sampled = made.play(trainer, queue, games)
        sampled.reorder(list(range(len(sampled)))[::turn])
        orders.append(real(trainer, trainer._balance_batch(sampled, {})))
        queue.rows.clear()
    assert orders[0] == orders[1]


# ---------------------------------------------------------------- the games of a round


def test_games_come_back_whole_but_for_their_tokens(made: Any, queue: Any) -> None:
    from dataclasses import replace

    trainer = made.made_trainer()
    games = [made.made_game("a", Mode.ERROR, WRONG, attempts=2), made.gold("g", RIGHT)]
    trainer._collect_games(made.play(trainer, queue, games))
    assert list(trainer.round.games) == ["r000001n00000", "r000001n00001"]

    def bare(part: Any) -> Any:
        return replace(part, reply=replace(part.reply, payload=None))

    for game, back in zip(games, trainer.round.games.values(), strict=True):
        assert back == replace(
            game,
            attempts=tuple(bare(a) for a in game.attempts),
            assessor=bare(game.assessor),
            trajectories=tuple(bare(t) for t in game.trajectories),
        )


@pytest.mark.parametrize(("missing", "stops"), [(1, False), (2, True)])
def test_a_few_games_may_fail_and_more_end_the_run(made: Any, queue: Any, missing: int, stops: bool) -> None:
    from medserl.training.trainer import RolloutFailed

    trainer = made.made_trainer(["medserl.max_failed_share=0.1"])
    batch = made.play(trainer, queue, [made.duel(f"e{i}") for i in range(10 - missing)])
    trainer.round.tasks |= {f"lost{i}": None for i in range(missing)}
    if stops:
        with pytest.raises(RolloutFailed, match="2 of 10 games failed"):
            trainer._collect_games(batch)
    else:
        trainer._collect_games(batch)
        assert len(trainer.round.games) == 9


def test_a_referee_that_was_never_there_ends_the_run(made: Any, queue: Any) -> None:
    from medserl.report.round_metrics import RefereeFailed

    trainer = made.made_trainer()
    games = [made.made_game(f"e{i}", Mode.ERROR, WRONG, failed=True) for i in range(3)]
    with pytest.raises(RefereeFailed, match="in 3 of 3 games"):
        trainer._collect_games(made.play(trainer, queue, games))


# ---------------------------------------------------------------- tasks of a round


def test_every_task_has_a_key_that_verl_can_split(made: Any) -> None:
    trainer = made.made_trainer(number=7)
    from medserl.data.rounds import RoundSource

    tasks = trainer._tasks(RoundSource(trainer.settings).next_round())
    assert len(tasks) == trainer.config.data.train_batch_size == 48
    assert all("_" not in uid and uid.startswith("r000007n") for uid in tasks)
    assert list(tasks) == sorted(tasks)
    assert Counter(task.mode for task in tasks.values()) == {Mode.BENIGN: 16, Mode.ERROR: 16, None: 16}
    trainer.round.tasks = tasks
    rows = trainer._next_train_batch()
    assert [getattr(uid, "data", uid) for uid in rows["uid"]] == list(tasks)
    trainer.round.tasks = dict(list(tasks.items())[1:])
    with pytest.raises(ValueError, match="47 notes and labelled notes, the configuration says 48"):
        trainer._next_train_batch()


def test_a_round_asks_again_about_what_play_has_made_so_far(made: Any) -> None:
    from medserl.data.rounds import RoundSource
    from medserl.game.explored import Edit

    trainer = made.made_trainer(["medserl.replay_batch_size=6"], number=7)
    assert trainer.config.data.train_batch_size == 48 + 6  # what `medserl plan` counts with
    source = RoundSource(trainer.settings)
    assert len(trainer._tasks(source.next_round())) == trainer.config.data.train_batch_size == 48
    trainer.replay.see(Edit(f"note {i}", f"edit {i}", WRONG, str(i)) for i in range(9))
    trainer.round.tasks = trainer._tasks(source.next_round())
    again = [task for task in trainer.round.tasks.values() if task.replayed]
    assert Counter(task.labelled.label for task in again) == {WRONG: 3, RIGHT: 3}
    assert len({task.name for task in again}) == 6
    assert len(trainer._next_train_batch()) == trainer.config.data.train_batch_size == 54


def test_a_checkpoint_keeps_what_is_asked_again(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import open_dict
    from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

    from medserl.game.explored import Edit

    def save(self: Any) -> None:
        (Path(self.config.trainer.default_local_dir) / "global_step_3" / "actor").mkdir(parents=True)

    monkeypatch.setattr(PPOTrainerSync, "_save_checkpoint", save)
    monkeypatch.setattr(PPOTrainerSync, "_load_checkpoint", lambda self: None)
    options = ["medserl.replay_batch_size=2", f"medserl.run_dir={tmp_path}"]
    trainer = made.made_trainer(options, number=3)
    trainer.replay.see([Edit("right", "wrong", WRONG, "1")])
    trainer._save_checkpoint()
    saved = tmp_path / "checkpoints" / "global_step_3"
    assert (saved / "replay.json").stat().st_mode & 0o077 == 0
    later = made.made_trainer(options)
    with open_dict(later.config):  # as medserl.run.layout.choose_checkpoint does
        later.config.trainer.resume_mode, later.config.trainer.resume_from_path = "resume_path", str(saved)
    later._load_checkpoint()
    assert {question.text for question in later.replay.questions(2, "x")} == {"right", "wrong"}


# ---------------------------------------------------------------- advantages


def trained(trainer: Any, made: Any, queue: Any, games: list[Any]) -> tuple[Any, dict[str, Any]]:
    batch, metrics = balanced(trainer, made, queue, games)
    return trainer._compute_advantage(batch, metrics), metrics


def mixed(made: Any) -> list[Any]:
    """The injector loses three games of four; unbalanced rewards per role."""
    rewards = (1.0, 1.0, 1.0, -1.0)
    games = [made.duel(f"e{i}", reward=reward) for i, reward in enumerate(rewards)]
    return games + [made.duel(f"b{i}", Mode.BENIGN, reward=reward) for i, reward in enumerate(rewards)]


def test_global_is_what_verl_makes_of_the_whole_batch(made: Any, queue: Any) -> None:
    import torch
    from verl.trainer.ppo.core_algos import compute_reinforce_plus_plus_outcome_advantage as reinforce

    trainer = made.made_trainer(["medserl.advantage.normalisation=global", "medserl.advantage.injector_weight=1"])
    batch, _ = trained(trainer, made, queue, mixed(made))
    data = queue.kv_batch_get(batch.keys, "train", ["rm_scores", "response_mask", "advantages"]).to_padded_tensor()
    expected, _ = reinforce(data["rm_scores"], data["response_mask"], trainer.config.algorithm)
    assert torch.allclose(data["advantages"], expected, atol=1e-6)


def test_advantages_travel_once(made: Any, queue: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """verl reads what it needs once and writes returns and advantages once; its own function is in place again."""
    from verl.trainer.ppo.v1 import trainer_base

    upstream = trainer_base.compute_advantage_for_multi_trajectories
    trainer = made.made_trainer()
    batch, metrics = balanced(trainer, made, queue, mixed(made))
    trips = []
    for name in ("kv_batch_get", "kv_batch_put"):
        way = getattr(trainer_base.tq, name)

        def counted(*args: Any, name: str = name, way: Any = way, **kwargs: Any) -> Any:
            trips.append(name)
            return way(*args, **kwargs)

        monkeypatch.setattr(trainer_base.tq, name, counted)
    trainer._compute_advantage(batch, metrics)
    assert trips == ["kv_batch_get", "kv_batch_put"]
    assert trainer_base.compute_advantage_for_multi_trajectories is upstream


def test_per_role_is_verls_whitening_of_each_role_alone(made: Any, queue: Any) -> None:
    import torch
    from verl.trainer.ppo.core_algos import compute_reinforce_plus_plus_outcome_advantage as reinforce

    trainer = made.made_trainer(["medserl.advantage.injector_weight=1"])
    batch, _ = trained(trainer, made, queue, mixed(made))
    for role in ("injector", "assessor"):
        keys = [key for key in real(trainer, batch) if trainer.round.roles[key] == role]
        data = queue.kv_batch_get(keys, "train", ["rm_scores", "response_mask", "advantages"]).to_padded_tensor()
        expected, _ = reinforce(data["rm_scores"], data["response_mask"], trainer.config.algorithm)
        assert torch.allclose(data["advantages"], expected, atol=1e-5)


@pytest.mark.parametrize("normalisation", ["global", "per_role", "role_baseline"])
def test_the_weight_scales_the_injector_alone(made: Any, queue: Any, normalisation: str) -> None:
    import torch

    found = {}
    for weight in (1.0, 0.25):
        rule = f"medserl.advantage.normalisation={normalisation}"
        trainer = made.made_trainer([rule, f"medserl.advantage.injector_weight={weight}"])
        trainer.advantages.load_state_dict({"injector": 0.3, "assessor": -0.2})
        batch, _ = trained(trainer, made, queue, mixed(made))
        for role in ("injector", "assessor"):
            keys = sorted(key for key in real(trainer, batch) if trainer.round.roles[key] == role)
            found[weight, role] = made.advantages_of(queue, keys)
        queue.rows.clear()
    assert torch.equal(found[1.0, "assessor"], found[0.25, "assessor"])
    assert torch.allclose(0.25 * found[1.0, "injector"], found[0.25, "injector"])
    assert found[1.0, "injector"].abs().min() > 0


def test_verdicts_are_credited_by_how_sure_they_were(made: Any, queue: Any) -> None:
    """The verdict's token has its credit alone; the rest of the assessor's returns, here nothing, is spread as ever."""
    trainer = made.made_trainer(["medserl.advantage.verdict_credit=likelihood"])
    sampled = made.play(trainer, queue, [made.duel("e", reward=-0.9), made.duel("b", Mode.BENIGN, reward=1.1)])
    for key in sampled.keys:
        info = queue.rows[key]["extra_fields"]
        info = getattr(info, "data", info)["medserl"]
        if info["role"] == "assessor":
            info.update(p_incorrect=0.2, verdict_at=1)
    metrics: dict[str, Any] = {}
    batch = trainer._compute_advantage(trainer._balance_batch(sampled, metrics), metrics)
    found = {name_of(trainer, key): queue.rows[key]["advantages"].tolist() for key in real(trainer, batch)}
    assert found["b:assessor"] == pytest.approx([0.0, 1.0, 0.0])
    assert found["e:assessor"] == pytest.approx([0.0, -0.8 / 0.2, 0.0])
    assert metrics["medserl/left_out/assessor"] == 0.0 and any(found["e:injector"])


def test_the_game_log_gets_each_rows_advantage_and_what_trained(made: Any, queue: Any) -> None:
    trainer = made.made_trainer(["medserl.balance_labels=false", "medserl.balance_modes=false"])
    games = [*mixed(made), made.made_game("x", Mode.ERROR, WRONG, attempts=2)]
    batch, _ = trained(trainer, made, queue, games)
    turns = [turn for row in trainer.game_rows() for turn in (*row["attempts"], row["assessor"])]
    assert [row["note_id"] for row in trainer.game_rows()] == [game.note_id for game in games]
    assert sum(turn["trained"] for turn in turns) == len(real(trainer, batch)) == 18
    expected = [queue.rows[key]["advantages"].mean().item() for key in sorted(real(trainer, batch))]
    assert [turn["advantage"] for turn in turns if turn["trained"]] == pytest.approx(expected)
    assert all(turn["seconds"] == 0.1 for turn in turns)
    assert trainer.answer_rows() == []


def test_padding_gets_no_advantage(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    batch, _ = trained(trainer, made, queue, mixed(made))
    padding = [key for key in batch.keys if key not in trainer.round.roles]
    assert len(padding) == 40 - 16
    assert all((queue.rows[key]["advantages"] == 0).all() for key in padding)


@pytest.mark.parametrize("normalisation", ["global", "per_role", "role_baseline"])
@pytest.mark.parametrize("coefficient", [0.001, 0.01])
def test_a_role_whose_outcomes_are_the_same_is_left_alone(
    made: Any, queue: Any, caplog: pytest.LogCaptureFixture, normalisation: str, coefficient: float
) -> None:
    """All gold answers are right: what differs is the KL, of which whitening made an update of full size."""
    import torch

    rule = f"medserl.advantage.normalisation={normalisation}"
    trainer = made.made_trainer([rule, f"algorithm.kl_ctrl.kl_coef={coefficient}"])
    batch, metrics = balanced(trainer, made, queue, [made.gold(f"g{i}", RIGHT if i % 2 else WRONG) for i in range(20)])
    noise = torch.Generator().manual_seed(0)
    for key in real(trainer, batch):
        queue.rows[key]["ref_log_prob"] += 0.3 * torch.randn(3, generator=noise)
    with caplog.at_level("INFO", "medserl.trainer"):
        trainer._compute_advantage(batch, metrics)
    assert 0 < made.advantages_of(queue, real(trainer, batch)).square().mean().sqrt() < 0.05
    assert metrics["medserl/left_out/assessor"] == 1.0
    assert "the outcomes of the assessor hardly differ" in caplog.text


def test_a_role_whose_outcomes_differ_is_not_left_out(made: Any, queue: Any) -> None:
    trainer = made.made_trainer()
    games = mixed(made) + [made.gold(f"g{i}", RIGHT) for i in range(20)]
    _, metrics = trained(trainer, made, queue, games)
    assert metrics["medserl/left_out/assessor"] == metrics["medserl/left_out/injector"] == 0.0


def test_one_role_may_be_left_out_while_the_other_learns(made: Any, queue: Any) -> None:
    trainer = made.made_trainer(["medserl.advantage.injector_weight=1"])
    games = [made.duel(f"e{i}") for i in range(4)] + [made.duel(f"b{i}", Mode.BENIGN) for i in range(4)]
    games += [made.gold(f"g{i}", RIGHT, -1.0 if i % 2 else 1.0) for i in range(8)]
    batch, metrics = trained(trainer, made, queue, games)
    assert metrics["medserl/left_out/injector"] == 1.0 and metrics["medserl/left_out/assessor"] == 0.0
    by_role: dict[str, list[str]] = {}
    for key in real(trainer, batch):
        by_role.setdefault(trainer.round.roles[key], []).append(key)
    assert made.advantages_of(queue, by_role["injector"]).abs().max() < 1e-3
    assert made.advantages_of(queue, by_role["assessor"]).square().mean() > 0.9


# ---------------------------------------------------------------- KL


def kl_round(trainer: Any, made: Any, queue: Any, games: list[Any]) -> dict[str, Any]:
    batch, metrics = balanced(trainer, made, queue, games)
    for key in real(trainer, batch):
        queue.rows[key]["ref_log_prob"] = queue.rows[key]["old_log_probs"] - 0.05
    trainer._compute_advantage(batch, metrics)
    return metrics


def test_the_kl_that_is_shown_is_that_of_real_rows(made: Any, queue: Any) -> None:
    metrics = kl_round(made.made_trainer(), made, queue, mixed(made))  # 16 rows and 24 of padding
    assert metrics["actor/reward_kl_penalty"] == pytest.approx(0.05)
    assert metrics["actor/reward_kl_penalty_coeff"] == 0.01


def test_an_adaptive_coefficient_follows_the_kl_of_real_rows(made: Any, queue: Any) -> None:
    """At the target, so that it stays; verl's mean, 0.02, would have made it smaller."""
    adaptive = ["algorithm.kl_ctrl.type=adaptive", "algorithm.kl_ctrl.horizon=100", "algorithm.kl_ctrl.target_kl=0.05"]
    trainer = made.made_trainer(adaptive)
    kl_round(trainer, made, queue, mixed(made))
    assert trainer._kl_coef == pytest.approx(0.01, rel=1e-5)
    trainer = made.made_trainer([*adaptive[:2], "algorithm.kl_ctrl.target_kl=0.04"])
    queue.rows.clear()
    kl_round(trainer, made, queue, mixed(made))
    assert trainer._kl_coef == pytest.approx(0.01 * (1 + 0.2 * 16 / 100))  # 16 rows, not 40
    before = trainer._kl_coef
    queue.rows.clear()
    kl_round(trainer, made, queue, [made.made_game("a", Mode.ERROR, WRONG, attempts=1, failed=False)])
    assert trainer.round.nothing_trains and trainer._kl_coef == before


def test_the_reward_holds_the_kl_with_the_coefficient_of_before(made: Any, queue: Any) -> None:
    trainer = made.made_trainer(["algorithm.kl_ctrl.type=adaptive", "algorithm.kl_ctrl.horizon=1"])
    batch, metrics = balanced(trainer, made, queue, mixed(made))
    key = real(trainer, batch)[0]
    queue.rows[key]["ref_log_prob"] = queue.rows[key]["old_log_probs"] - 0.5
    trainer._compute_advantage(batch, metrics)
    penalty = queue.rows[key]["rm_scores"] - queue.rows[key]["token_level_rewards"]
    assert penalty.tolist() == pytest.approx([0.01 * 0.5] * len(penalty))
    assert trainer._kl_coef != 0.01


# ---------------------------------------------------------------- the update


def kinds(trainer: Any, keys: list[str]) -> Counter[str]:
    from medserl.training.rows import stratum

    return Counter(stratum(key, trainer.round.roles, trainer.round.games)[0] for key in keys)


def updated(trainer: Any, made: Any, queue: Any, games: list[Any]) -> tuple[list[list[str]], dict[str, Any]]:
    batch, metrics = trained(trainer, made, queue, games)
    trainer._update_actor(batch, metrics)
    return trainer.actor_rollout_wg.mini_batches, metrics


def a_round(made: Any, accepted: int, gold: int = 16) -> list[Any]:
    games = [made.duel(f"p{i}", Mode.ERROR if i % 2 else Mode.BENIGN) for i in range(accepted)]
    return games + [made.gold(f"g{i}", RIGHT if i % 2 else WRONG) for i in range(gold)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize(("accepted", "steps"), [(14, 2), (20, 2), (2, 1), (32, 2), (48, 3)])
def test_every_mini_batch_is_the_round_in_small(made: Any, queue: Any, ranks: int, accepted: int, steps: int) -> None:
    trainer = made.made_trainer(ranks=ranks)
    mini_batches, metrics = updated(trainer, made, queue, a_round(made, accepted))
    assert metrics["medserl/optimizer_steps"] == steps == len(mini_batches)
    assert all(len(keys) == 40 for keys in mini_batches)
    assert len({key for keys in mini_batches for key in keys}) == 40 * steps
    total = sum((kinds(trainer, keys) for keys in mini_batches), Counter())
    assert (total["injector"], total["assessor"], total["gold"]) == (accepted, accepted, 16)
    for keys in mini_batches:
        for kind, count in total.items():
            assert abs(kinds(trainer, keys)[kind] - count / steps) < 1
        gold = [trainer.round.games[key.split("_")[0]].truth for key in keys
                if key in trainer.round.roles and trainer.round.games[key.split("_")[0]].mode is None]  # fmt: skip
        assert abs(gold.count(RIGHT) - gold.count(WRONG)) <= 1


def test_the_deal_follows_from_seed_and_round(made: Any, queue: Any) -> None:
    hands = []
    for seed, number in ((1, 1), (1, 1), (2, 1), (1, 2)):
        trainer = made.made_trainer([f"medserl.seed={seed}"], number)
        mini_batches, _ = updated(trainer, made, queue, a_round(made, 20))
        # verl names padding by chance; rows are named by round.
        hands.append([{key[7:] for key in keys if key in trainer.round.roles} for keys in mini_batches])
        queue.rows.clear()
    assert hands[0] == hands[1]
    assert hands[0] != hands[2] and hands[0] != hands[3]


def test_ranks_share_the_work_of_a_mini_batch(made: Any, queue: Any) -> None:
    trainer = made.made_trainer(ranks=2)
    games = a_round(made, 20)
    batch = made.play(trainer, queue, games)
    for i, tag in enumerate(batch.tags):
        tag["seq_len"] = 20 + 180 * (i % 5 == 0)
    metrics: dict[str, Any] = {}
    padded = trainer._balance_batch(batch, metrics)
    runs = [sum(tag["seq_len"] for tag in part.tags) for part in padded.chunk(2)]
    assert abs(runs[0] - runs[1]) < 0.1 * sum(runs)
    assert (metrics["global_seqlen/balanced_min"], metrics["global_seqlen/balanced_max"]) == (min(runs), max(runs))


def test_optimizer_steps_count_epochs_too(made: Any, queue: Any) -> None:
    trainer = made.made_trainer(["actor_rollout_ref.actor.ppo_epochs=3"])
    mini_batches, metrics = updated(trainer, made, queue, a_round(made, 20))
    assert metrics["medserl/optimizer_steps"] == len(mini_batches) == 6
    assert metrics["actor/grad_norm"] == 1.0
    assert trainer.actor_rollout_wg.update_actor.__name__ == "update_actor"


def test_a_round_in_which_nothing_trains_moves_nothing(made: Any, queue: Any) -> None:
    """No update: Adam's momentum moves weights on zero gradients too. No moving average either."""
    trainer = made.made_trainer(["medserl.train_roles=assessor", "medserl.advantage.normalisation=role_baseline"])
    trainer.advantages.load_state_dict({"injector": 0.5, "assessor": 0.25})
    batch, metrics = trained(trainer, made, queue, [made.made_game("a", Mode.ERROR, None, attempts=3)])
    assert trainer.round.nothing_trains and metrics["medserl/trained_trajectories"] == 0
    trainer._update_actor(batch, metrics)
    assert trainer.actor_rollout_wg.mini_batches == [] and "medserl/optimizer_steps" not in metrics
    assert trainer.advantages.state_dict() == {"injector": 0.5, "assessor": 0.25}


def test_verl_calls_the_verbs_of_a_round_in_this_order(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `training_step` writes down."""
    from types import SimpleNamespace

    trainer = made.made_trainer()
    called: list[str] = []

    def noted(name: str, result: Any = None) -> Any:
        return lambda *args, **kwargs: called.append(name) or result

    batch = SimpleNamespace(keys=[], tags=[], partition_id="train", extra_info={})
    for name in ("_balance_batch", "_compute_old_log_prob", "_compute_ref_log_prob", "_compute_advantage",
                 "_update_actor"):  # fmt: skip
        monkeypatch.setattr(trainer, name, noted(name, batch), raising=False)
    for name in ("_next_train_batch", "_submit_batch_to_rollout", "on_sample_end", "on_step_end", "_compute_metrics"):
        monkeypatch.setattr(trainer, name, noted(name), raising=False)
    trainer.replay_buffer = SimpleNamespace(sample=noted("sample", (batch, {})))
    trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
    trainer.parameter_sync_step, trainer.use_reference_policy, trainer.steps_per_epoch = 1, True, 30
    monkeypatch.setattr(made.module.tq, "kv_clear", noted("kv_clear"))
    monkeypatch.setattr(trainer, "_tasks", noted("_tasks", {}))
    monkeypatch.setattr("verl.utils.skip.SkipManager._configs", {}, raising=False)
    assert trainer.training_step(None)["medserl/optimizer_steps"] == 0  # _update_actor, which counts, is a stand-in
    assert called == [
        "_tasks", "_next_train_batch", "_submit_batch_to_rollout", "sample", "on_sample_end", "_balance_batch",
        "_compute_old_log_prob", "_compute_ref_log_prob", "_compute_advantage", "_update_actor", "on_step_end",
        "_compute_metrics", "kv_clear",
    ]  # fmt: skip


def test_what_does_not_train_leaves_the_queue_with_the_round(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    trainer = made.made_trainer()
    cleared: list[list[str]] = []

    def played(*_: Any) -> Any:
        trainer.round.unused = ["rejected"]
        return SimpleNamespace(keys=["trained"], partition_id="train")

    for name in ("_tasks", "on_step_end", "_compute_metrics"):
        monkeypatch.setattr(trainer, name, lambda *_, **__: {}, raising=False)
    monkeypatch.setattr(trainer, "step", played, raising=False)
    trainer.steps_per_epoch = 30
    monkeypatch.setattr(made.module.tq, "kv_clear", lambda keys, partition_id: cleared.append(keys))
    trainer.training_step(None)
    assert cleared == [["trained", "rejected"]]
