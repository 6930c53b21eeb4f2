"""``medserl train`` on the embedded default: Ray, vLLM TP=2, Megatron TP=2, verl's trainer; nothing
replaced."""

import json
import math
import re
import stat
from pathlib import Path

import pytest

from medserl.gamelog.kinds import Source
from medserl.gamelog.read import read_games
from medserl.planning.shapes import find_shape
from medserl.run.curves import ALWAYS, tag
from medserl.run.tracker_kinds import mlflow_name
from medserl.ward import model_dir
from tests.e2e.runs import Run, train

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]  # set-up on a loaded machine takes minutes

# What every round reports.
REPORTED = [
    "vcf_acceptance_rate",
    "vcf_acceptance_rate/benign",
    "vcf_acceptance_rate/error",
    "vcf_acceptance_rate/attempt_1",
    "vcf_acceptance_rate/attempt_2",
    "vcf_acceptance_rate/attempt_3",
    "vcf_rejections/too_many_edits",
    "vcf_rejections/jaccard_low",
    "vcf_rejections/jaccard_high",
    "vcf_rejections/several_sentences",
    "vcf_rejections/leak",
    "vcf_rejections/identical",
    "vcf_rejections/empty",
    "vcf_rejections/unparseable",
    "mean_reward",
    "mean_reward/injector",
    "mean_reward/assessor",
    "assessor/accuracy",
    "assessor/balanced_accuracy",
    "assessor/recall_correct",
    "assessor/recall_incorrect",
    "assessor/mcc",
    "assessor/always_one_answer_rate",
    "injector/win_rate",
    "referee/void_rate",
    "label_inversion_rate",
    "injector/response_tokens",
    "assessor/response_tokens",
    "injector/thinking_tokens",
    "assessor/thinking_tokens",
    "injector/parse_failure_rate",
    "assessor/parse_failure_rate",
    "val/greedy/balanced_accuracy",
    "val/greedy/mcc",
    "val/greedy/recall_correct",
    "val/greedy/recall_incorrect",
    "actor/reward_kl_penalty",
    "actor/entropy",
    "actor/grad_norm",
    "actor/pg_clipfrac",
    "medserl/optimizer_steps",
    "medserl/left_out/injector",
    "medserl/left_out/assessor",
    "perf/tokens_per_second",
    "timing_s/gen",
    "timing_s/old_log_prob",
    "timing_s/ref",
    "timing_s/adv",
    "timing_s/update_actor",
    "timing_s/update_weights",
    "timing_s/step",
    "edit/position",
]


def test_it_plays_all_rounds_and_leaves_nothing_behind(uninterrupted: Run) -> None:
    assert uninterrupted.exit_code == 0, uninterrupted.output
    assert [row["round"] for row in uninterrupted.metrics] == [1, 2, 3]
    assert uninterrupted.left_behind == []


def test_the_game_is_really_played(uninterrupted: Run) -> None:
    for row in uninterrupted.metrics:
        assert row["vcf_acceptance_rate"] > 0.1
        assert row["games_decisive"] > 0
        assert row["assessor/parse_failure_rate"] < 0.05
        assert row["actor/grad_norm"] > 0
        assert row["medserl/optimizer_steps"] == math.ceil(row["medserl/trained_trajectories"] / 40)
        assert math.isfinite(row["mean_reward"])


def test_held_out_patients_are_judged_and_the_best_checkpoint_is_marked(uninterrupted: Run) -> None:
    (before,) = uninterrupted.validations
    after = uninterrupted.metrics[-1]
    assert before["round"] == 0
    for row in (before, after):
        for way in ("greedy", "sampled"):
            right, wrong = row[f"val/{way}/recall_correct"], row[f"val/{way}/recall_incorrect"]
            assert row[f"val/{way}/balanced_accuracy"] == pytest.approx((right + wrong) / 2)
            # Of as many right texts as wrong ones, each answered: Matthews' correlation follows from the recalls.
            correlation = (right + wrong - 1) / math.sqrt((1 + right - wrong) * (1 + wrong - right))
            assert row[f"val/{way}/parse_failure_rate"] == 0
            assert row[f"val/{way}/mcc"] == pytest.approx(correlation)
    best = json.loads((uninterrupted.path / "checkpoints/best.json").read_text())
    assert best == {"step": 3, "metric": "val/sampled/balanced_accuracy", "value": after[best["metric"]]}
    assert (uninterrupted.path / "checkpoints/global_step_3").is_dir()


def test_three_rounds_teach_the_assessor(uninterrupted: Run) -> None:
    """The evidence of docs/ward.md in a short form; greedy balanced accuracy rose by 0.10 when this was written."""
    (before,) = uninterrupted.validations
    after = uninterrupted.metrics[-1]
    assert 0.58 < before["val/greedy/balanced_accuracy"] < 0.70
    assert after["val/greedy/balanced_accuracy"] > before["val/greedy/balanced_accuracy"] + 0.04
    assert after["val/sampled/balanced_accuracy"] > before["val/sampled/balanced_accuracy"]
    assert min(after["val/greedy/recall_correct"], after["val/greedy/recall_incorrect"]) > 0.2
    assert after["vcf_acceptance_rate"] > 0.3
    assert after["label_inversion_rate"] < 0.5


def test_vllm_generates_with_the_weights_that_megatron_trained(uninterrupted: Run) -> None:
    """After two updates vLLM's log-probabilities still are the trainer's: the transfer works (bf16
    weights)."""
    last = uninterrupted.metrics[-1]
    assert last["training/rollout_actor_probs_pearson_corr"] > 0.999
    assert last["training/rollout_probs_diff_mean"] < 0.01
    assert last["actor/reward_kl_penalty"] != 0  # the policy has moved from the reference; an estimate of either sign


def test_every_round_has_fresh_notes(uninterrupted: Run) -> None:
    played = [{g["note_id"] for g in uninterrupted.games(n) if g["mode"] is not None} for n in (1, 2, 3)]
    assert all(len(notes) == 32 for notes in played)
    assert len(set().union(*played)) == 3 * 32


def test_roles_have_their_own_rewards(uninterrupted: Run) -> None:
    """verl alone would copy the assessor's reward onto the injector's trajectory."""
    decisive = [g for n in (1, 2) for g in uninterrupted.games(n) if g["mode"] and g["truth"]]
    assert decisive
    for game in decisive:
        injector, assessor = game["attempts"][-1], game["assessor"]
        assert game["injector_task_reward"] == -assessor["task_reward"] != 0
        assert assessor["reward"] - assessor["task_reward"] in (pytest.approx(0), pytest.approx(0.1))
        assert injector["reward"] <= game["injector_task_reward"] + 0.1 + 1e-6


def test_the_game_log_knows_what_trained_and_how_sure_the_assessor_was(uninterrupted: Run) -> None:
    turns = [t for n in (1, 2, 3) for g in uninterrupted.games(n) for t in (*g["attempts"], g["assessor"]) if t]
    trained = [turn for turn in turns if turn["trained"]]
    assert len(trained) == sum(row["medserl/trained_trajectories"] for row in uninterrupted.metrics)
    assert all(turn["advantage"] is not None and turn["seconds"] > 0 for turn in trained)
    answers = [g["assessor"] for g in uninterrupted.games(1) if g["assessor"] and g["assessor"]["strict"]]
    assert answers and all(0 < answer["p_incorrect"] < 1 for answer in answers)
    held_out = [r for r in read_games(uninterrupted.path) if r["source"] not in (Source.PLAY, Source.GOLD)]
    assert {row["source"] for row in held_out} == {Source.GREEDY, Source.SAMPLED}
    greedy = [row["assessor"] for row in held_out if row["source"] == Source.GREEDY and row["assessor"]["strict"]]
    assert greedy and all((answer["p_incorrect"] >= 0.5) == (answer["answer"] == "INCORRECT") for answer in greedy)


def test_every_metric_is_reported(uninterrupted: Run) -> None:
    for row in uninterrupted.metrics:
        missing = {
            name for name in REPORTED if name not in row and not name.startswith(("val/", "vcf_acceptance_rate/"))
        }
        assert not missing
    assert set(REPORTED) <= set().union(*uninterrupted.metrics)


def test_tensorboard_draws_what_moves(uninterrupted: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted.path / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"vcf_acceptance_rate", "mean_reward", "val/greedy/mcc", "verl/actor/grad_norm", "verl/timing_s/gen"} <= tags
    assert [point.step for point in events.Scalars("vcf_acceptance_rate")] == [1, 2, 3]
    still = {name for name in tags if len({point.value for point in events.Scalars(name)}) == 1}
    assert not [name for name in still if not ALWAYS.match(name)]
    assert "custom_scalars__config__" in events.Tags()["tensors"]


def test_tensorboard_shows_games_of_each_round(uninterrupted: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(uninterrupted.path / "tensorboard"))
    events.Reload()
    written = {point.step: point.tensor_proto.string_val[0].decode() for point in events.Tensors("games/text_summary")}
    assert sorted(written) == [1, 2, 3]
    for number, text in written.items():
        assert f"round {number} · " in text and "by the assessor**" in text
        # Every game's edit shows: words that went, words that came.
        assert all(re.search(r"~~.+~~|\*\*.+\*\*", quoted) for quoted in re.findall("^> (.*)$", text, re.MULTILINE))
    played = {" ".join(row["shown"].split()[:8]) for row in uninterrupted.games(1) if row["shown"]}
    assert any(start in written[1].replace("\\", "") for start in played)


def test_a_tracker_gets_every_number_of_every_round(
    uninterrupted: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    assert "numbers to files on this machine (mlflow)" in uninterrupted.output
    client = MlflowClient(f"file:{home / 'mlflow'}")
    known = json.loads((uninterrupted.path / "trackers.json").read_text())["mlflow"]
    assert known["round"] == 3
    run = client.get_run(known["run"])
    assert run.info.status == "FINISHED" and run.info.run_name == "uninterrupted"
    wanted: dict[str, dict[int, float]] = {}
    for row in (*uninterrupted.validations, *uninterrupted.metrics):
        for name, value in row.items():
            shown = tag(name) if name != "round" else None
            if shown is not None and isinstance(value, int | float):
                wanted.setdefault(mlflow_name(shown), {})[row["round"]] = value
    got = {
        name: {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
        for name in run.data.metrics
    }
    assert len(got) > 100 and got == wanted
    assert all(math.isfinite(float(value)) for value in run.data.params.values())


def test_the_log_can_be_grepped(uninterrupted: Run) -> None:
    log = (uninterrupted.path / "train.log").read_text()
    assert len(re.findall(r"round \d/3 .*vcf_acceptance_rate=\d", log)) == 3
    assert len(log.splitlines()) < 40  # for people: what the libraries print is elsewhere


def test_it_writes_down_what_it_was_and_keeps_it_private(uninterrupted: Run) -> None:
    for name in ("config.yaml", "provenance.json", "metrics.jsonl", "train.log", "report.html", "report.json"):
        assert (uninterrupted.path / name).is_file()
    assert stat.S_IMODE(uninterrupted.path.stat().st_mode) == 0o700
    for path in (uninterrupted.path / "games").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_finished_run_has_nothing_to_do(uninterrupted: Run) -> None:
    before = uninterrupted.metrics
    again = train(uninterrupted.path, "--max-rounds", "3")
    assert again.exit_code == 0, again.output
    assert "complete: 3 rounds" in again.output
    assert again.metrics == before


def test_a_checkpoint_has_the_size_that_the_planner_says(uninterrupted: Run) -> None:
    """2 bytes a parameter of weights and 12 of the optimizer; headers and names are a twentieth of so small a model."""
    shape = find_shape(str(model_dir()), "--model")
    actor = uninterrupted.path / "checkpoints" / "global_step_3" / "actor"
    for pattern, wanted in (("**/*.safetensors", 2 * shape.parameters), ("**/*.distcp", 12 * shape.parameters)):
        size = sum(path.stat().st_size for path in actor.glob(pattern))
        assert wanted <= size <= 1.05 * wanted, pattern
