"""Every shipped configuration resolves and is checked; mistakes are told in one sentence."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from medserl.config import family
from medserl.config.load import available_configs, configs_dir, game_settings, is_sft_config, load_config
from medserl.config.settings import GameSettings, RewardSettings, labelled_per_round, make_setup
from medserl.errors import ConfigError, UserError
from medserl.game import RewardConfig
from medserl.preflight.layout import check_layout

NOTES = "medserl.notes.path=notes.jsonl"


@pytest.mark.parametrize("name", [name for name in available_configs() if not is_sft_config(name)])
def test_a_shipped_configuration_resolves_and_its_layout_divides(name: str) -> None:
    config = load_config(name, [NOTES])
    settings = game_settings(config)
    check_layout(config)
    make_setup(settings)
    assert config.data.train_batch_size == (
        settings.rollout_batch_size + labelled_per_round(settings) + settings.replay_batch_size
    )
    assert config.algorithm.adv_estimator == "reinforce_plus_plus"
    assert config.algorithm.use_kl_in_reward and not config.actor_rollout_ref.actor.use_kl_loss
    assert config.actor_rollout_ref.actor.strategy == "megatron"


def test_the_configurations_are_the_promised_ones() -> None:
    assert set(available_configs()) >= {"embedded", "qwen3_4b_1node", "qwen3_4b_multinode"}
    multi = load_config("qwen3_4b_multinode", [NOTES])
    megatron = multi.actor_rollout_ref.actor.megatron
    assert (megatron.tensor_model_parallel_size, megatron.pipeline_model_parallel_size) == (2, 2)
    assert multi.trainer.nnodes == 2
    assert load_config("embedded").actor_rollout_ref.actor.megatron.tensor_model_parallel_size == 2


@pytest.mark.parametrize(
    "overrides",
    [
        ["medserl.max_rounds=3", "trainer.nnodes=2", "+medserl.rewards.options.fee=1", "data.seed=null"],
        ["medserl.notes.path='a b.jsonl'", "actor_rollout_ref.rollout.n=4", "++medserl.thinking=true"],
        ["model_engine=megatron", "medserl.run_dir=x"],
    ],
)
def test_values_set_on_files_read_before_are_what_hydra_makes_of_both_at_once(overrides: list[str]) -> None:
    expected = family._composed(configs_dir(), "embedded", overrides)
    assert family.compose(configs_dir(), "embedded", overrides, family.TRAIN) == expected
    family.compose(configs_dir(), "embedded", ["medserl.max_rounds=9"], family.TRAIN)
    assert family.compose(configs_dir(), "embedded", overrides, family.TRAIN) == expected, "nothing is left of others"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("hydra.run.dir=x", "neither verl nor MedSeRL has a key hydra.run.dir"),
        ("medserl.rolout_batch_size=3", "did you mean medserl.rollout_batch_size"),
        ("actor_rollout_ref.actor.optm.lr=1", "did you mean actor_rollout_ref.actor.optim.lr"),
        ("+actor_rollout_ref.actor.foo=1", "actor_rollout_ref.actor.foo"),
        ("medserl.seed=abc", "takes a whole number"),
        ("medserl.vcf.min_jaccard=2", "min_jaccard 2.0"),
        ("medserl.train_roles=nobody", "'nobody' is not one of both, assessor, alternate"),
        ("medserl.advantage.normalisation=batch", "is not one of global, per_role, role_baseline"),
        ("medserl.labelled_share=1.5", "labelled_share: 1.5 is more than 1"),
        ("medserl.advantage.verdict_credit=all", "is not one of reward, likelihood"),
        ("medserl.replay_batch_size=7", "7 is odd"),
        ("data.train_batch_size=8", "set that one instead"),
        ("medserl.max_rounds=0", "less than 1"),
    ],
)
def test_a_mistaken_override_is_told_in_one_sentence(override: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("embedded", [override])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_without_play_there_is_nothing_to_ask_about_again() -> None:
    with pytest.raises(ConfigError, match="replay_batch_size: 8, but medserl.rollout_batch_size is 0"):
        load_config(
            "embedded",
            ["medserl.replay_batch_size=8", "medserl.rollout_batch_size=0", "medserl.labelled_batch_size=8"],
        )


def test_an_unknown_key_in_a_users_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "defaults: [embedded, _self_]\nactor_rollout_ref:\n  actor:\n    clip_rato: 0.3\n"
    )
    with pytest.raises(ConfigError, match=r"clip_rato.*did you mean actor_rollout_ref.actor.clip_ratio"):
        load_config(str(tmp_path / "mine.yaml"))


def test_a_users_file_may_build_on_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults: [embedded, _self_]\nmedserl:\n  rollout_batch_size: 16\n")
    assert load_config(str(tmp_path / "mine.yaml")).medserl.rollout_batch_size == 16


def test_an_unknown_configuration_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"known: .*embedded"):
        load_config("nonsense")


def test_the_oracle_judges_synthetic_notes_and_only_those() -> None:
    assert load_config("embedded").medserl.referee.name == "oracle"
    assert load_config("embedded", [NOTES]).medserl.referee.name == "instruction"
    assert make_setup(game_settings(load_config("embedded"))).referee.name == "oracle"


def test_a_plugin_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(ConfigError, match=r"medserl\.plugins: no_such_module"):
        make_setup(game_settings(load_config("embedded", ["medserl.plugins=[no_such_module]"])))


def test_an_unknown_referee_is_refused_before_anything_starts() -> None:
    with pytest.raises(ConfigError, match="referee"):
        make_setup(game_settings(load_config("embedded", ["medserl.referee.name=coin"])))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["trainer.n_gpus_per_node=3"], "3 workers cannot be divided"),
        (["actor_rollout_ref.actor.megatron.tensor_model_parallel_size=4"], "cannot be divided"),
        (["actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=7"], "cannot be divided"),
        (["actor_rollout_ref.actor.ppo_mini_batch_size=64"], "is more than the"),
        (["actor_rollout_ref.rollout.max_model_len=100"], "is less than data.max_prompt_length"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_layout(load_config("embedded", overrides))


def test_error_types_need_a_prompt_each() -> None:
    types = "medserl.error_types=[diagnosis,causalorganism]"
    make_setup(game_settings(load_config("embedded", ["medserl.prompt_set=clinical", types])))
    with pytest.raises(UserError, match=r"'ward' has no injector_error_diagnosis\.txt.*\n.*error_causalorganism"):
        make_setup(game_settings(load_config("embedded", [types])))
    with pytest.raises(ConfigError, match="'dose' is not known"):
        make_setup(game_settings(load_config("embedded", ["medserl.error_types=[dose]"])))


def test_reward_settings_mirror_the_games_own() -> None:
    def fields(kind: type) -> dict[str, object]:
        return {f.name: f.default for f in dataclasses.fields(kind)}

    assert {k: v for k, v in fields(RewardSettings).items() if k not in ("name", "options")} == fields(RewardConfig)
    assert RewardSettings().name == RewardConfig.name


def test_one_key_sets_the_number_of_agent_loop_workers() -> None:
    assert load_config("qwen3_4b_1node", [NOTES]).actor_rollout_ref.rollout.agent.num_workers == 8
    assert load_config("embedded").actor_rollout_ref.rollout.agent.num_workers == 1


def test_every_setting_survives_the_round_trip_through_yaml() -> None:
    config = load_config("embedded", ["medserl.second_referee.name=rules", "medserl.rewards.retried=-0.1"])
    again = OmegaConf.create(OmegaConf.to_yaml(config))
    assert game_settings(again) == game_settings(config)
    assert isinstance(game_settings(again), GameSettings)
    assert game_settings(again).second_referee.name == "rules"


def test_composing_a_configuration_imports_neither_torch_nor_verl() -> None:
    code = (
        "import sys; from medserl.config.load import load_config; load_config('embedded');"
        "print([m for m in ('torch', 'verl', 'vllm', 'ray', 'transformers') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
