"""Overrides that are none, names that nobody knows, and what verl can do and MedSeRL does not."""

import copy
import functools
import os
import shlex
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from medserl.config.family import TRAIN, compose, config_path, configs_dir
from medserl.config.load import load_config, load_sft_config
from medserl.config.mistakes import check_override, quoted, verl_defaults
from medserl.config.refused import TRAIN_ONLY, TRAIN_WITHOUT_EFFECT, check_effects, check_supported
from medserl.errors import ConfigError


@functools.cache
def composed() -> DictConfig:
    """The embedded default before it is checked; made once, as it takes half a second."""
    path = config_path("embedded")
    return compose(path.parent, path.stem, (), TRAIN)


@functools.cache
def base() -> DictConfig:
    return OmegaConf.load(configs_dir() / "base.yaml")


def refused(*overrides: str, config: str = "embedded") -> str:
    with pytest.raises(ConfigError) as error:
        (load_sft_config if config.startswith("sft") else load_config)(config, list(overrides))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "written"),
    [
        ("actor_rollout_ref.model.path=/models/epoch=3", "actor_rollout_ref.model.path='\"/models/epoch=3\"'"),
        ("actor_rollout_ref.model.path=~/models/q", "actor_rollout_ref.model.path='\"~/models/q\"'"),
        ("medserl.prompt_set=wärd", "medserl.prompt_set='\"wärd\"'"),
        ("medserl.run_dir=${oc.env:HOME", "medserl.run_dir='\"${oc.env:HOME\"'"),
        ("medserl.plugins=[a,b", "medserl.plugins='\"[a,b\"'"),
        ("medserl.run_dir=a,b", "medserl.run_dir='\"a,b\"'"),
        ("medserl.run_dir=it's", ""),
    ],
)
def test_a_value_that_hydra_cannot_read_is_named_with_its_quotes(override: str, written: str) -> None:
    message = refused(override)
    assert message.startswith(f"override {override!r}: ")
    assert written in message and "quote" in message


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), min_size=1, max_size=12))
def test_the_quotes_that_it_names_are_right(value: str) -> None:
    """Whatever the value: what the sentence says to write passes a shell and Hydra."""
    if value.strip("\"'") != value or "\\" in value or "${" in value:
        return
    (word,) = shlex.split(quoted("medserl.run_dir", value))
    check_override(word)


@pytest.mark.parametrize("word", ["+=1", "=1", "++=x", "~=1", "..=1", "medserl..seed=1", "medserl.=1"])
def test_an_override_without_a_key(word: str) -> None:
    assert f"override {word!r}: names no key" in refused(word)


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("+medserl.foo=1", "medserl.foo"),
        ("++medserl.max_round=3", "did you mean medserl.max_rounds"),
        ("+medserl.vcf.max_edits=3", "medserl.vcf.max_edits"),
        ("medserl.max_round=3", "did you mean medserl.max_rounds"),
        ("++trainer.total_epoch=3", "did you mean trainer.total_epochs"),
        ("+ray_kwargs.ray_init.foo=1", "ray.init has no option foo"),
        ("+ray_kwargs.ray_init.num_cpu=1", "did you mean num_cpus"),
    ],
)
def test_a_misspelt_key_is_an_error_with_any_sign(override: str, near: str) -> None:
    assert near in refused(override)


def test_a_misspelt_key_of_a_section_that_is_null_by_default() -> None:
    assert "medserl.late_mixture.injector_turn" in refused(
        "+medserl.late_mixture.injector_turn=1", config="sft_embedded"
    )
    load_sft_config("sft_embedded", ["medserl.late_mixture.thinking=0.1"])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("medserl.seed=abc", "medserl.seed takes a whole number"),
        ("medserl.max_rounds=2.5", "takes a whole number or null"),
        ("medserl.seed=true", "takes a whole number"),
        ("medserl.seed=null", "takes a whole number"),
        ("medserl.frozen_injector=maybe", "takes true or false"),
        ("medserl.advantage.injector_weight=[1]", "takes a number"),
        ("medserl.run_dir={a:1}", "medserl.run_dir takes a text"),
        ("medserl.error_types=x", "takes a list in brackets, such as [a,b] or null"),
        ("medserl.error_types=[1,{a:2}]", "takes a list in brackets"),
        ("medserl.notes.options=5", "takes keys with values"),
        ("medserl.seed.x=3", "medserl.seed has no keys below it: it takes a whole number"),
        ("+medserl.error_types.x=0", "medserl.error_types has no keys below it"),
        ("medserl.advantage=null", "is a section with keys of its own"),
        ("medserl=4", "is a section with keys of its own"),
    ],
)
def test_what_a_key_of_ours_takes_is_said_in_words(override: str, told: str) -> None:
    assert refused(override) == f"override {override!r}: " + refused(override).partition(": ")[2]
    assert told in refused(override)


@pytest.mark.parametrize(
    "override",
    ["medserl.seed='7'", "medserl.frozen_injector=no", "medserl.max_rounds=null", "medserl.run_dir=7",
     "medserl.error_types=[]", "medserl.advantage={injector_weight: 0.3}",
     "medserl.run_dir=${medserl.prompt_set}", "medserl.deadline_margin=60"],
)  # fmt: skip
def test_what_omegaconf_takes_for_a_key_of_ours_is_taken(override: str) -> None:
    load_config("embedded", [override], starts=False)


@pytest.mark.parametrize("override", ["~medserl", "~medserl.seed", "~trainer", "~trainer.total_epochs", "~data=1"])
def test_nothing_that_is_read_can_be_taken_away(override: str) -> None:
    assert "cannot be removed" in refused("medserl.validation.count=4", override)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("medserl.seed='${medserl.seed}'", "medserl.seed"),
        ("medserl.run_dir='${foo:bar}'", "medserl.run_dir"),
        (
            "actor_rollout_ref.actor.optim.lr='${actor_rollout_ref.actor.optim.lr}'",
            "actor_rollout_ref.actor.optim.lr: ",
        ),
        ("medserl.notes.path='${no.such.key}'", "medserl.notes.path"),
    ],
)
def test_an_interpolation_that_leads_nowhere_names_its_key(override: str, told: str) -> None:
    assert told in refused(override.replace("'", ""))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model_engine=veomni", "model_engine: 'veomni' is not supported, only 'megatron' or 'dp'"),
        ("actor_rollout_ref.actor.strategy=fsdp", "only 'megatron'"),
        ("actor_rollout_ref.rollout.name=sglang", "only 'vllm'"),
        ("actor_rollout_ref.rollout.mode=sync", "only 'async'"),
        ("critic.enable=true", "only null"),
        *(
            (f"algorithm.adv_estimator={name}", "only 'reinforce_plus_plus'")
            for name in ("grpo", "reinforce_plus_plus_baseline", "remax", "rloo", "opo", "grpo_passk", "gpg", "bogus")
        ),
        ("trainer.use_v1=false", "trainer.use_v1"),
        ("trainer.v1.trainer_mode=separate_async", "only 'sync'"),
        ("actor_rollout_ref.actor.megatron.context_parallel_size=2", "was not tested here"),
        ("actor_rollout_ref.actor.megatron.vanilla_mbridge=false", "was not tested here"),
        ("trainer.logger=[wandb]", "trainer.logger: ['wandb'] has no effect"),
        ("trainer.rollout_data_dir=x", "medserl.game_log.enabled=true"),
        ("trainer.validation_data_dir=x", "medserl.game_log.enabled=true"),
        ("trainer.log_val_generations=5", "medserl.game_log.enabled=true"),
        ("custom_reward_function.path=x.py", "medserl.rewards"),
        ("reward.custom_reward_function.path=x.py", "medserl.rewards"),
        ("trainer.default_local_dir=/x", "--run-dir"),
        ("trainer.resume_from_path=/x", "--run-dir"),
        ("actor_rollout_ref.rollout.seed=3", "set medserl.seed"),
    ],
)
def test_what_was_never_tested_or_has_no_effect_is_refused(override: str, told: str) -> None:
    key, _, value = override.partition("=")
    config = copy.deepcopy(composed())
    OmegaConf.update(config, key, yaml.safe_load(value), force_add=True)
    with pytest.raises(ConfigError) as error:
        check_supported(config, TRAIN_ONLY[False])
        check_effects(config, base(), verl_defaults(TRAIN), TRAIN_WITHOUT_EFFECT)
    message = str(error.value)
    assert told in message
    assert message.startswith(override.split("=")[0])


@pytest.mark.parametrize(
    "override",
    ["model_engine=torchtitan", "algorithm.adv_estimator=grpo", "trainer.logger=[wandb]", "trainer.rollout_data_dir=x"],
)
def test_it_is_refused_when_a_configuration_is_loaded(override: str) -> None:
    assert refused(override).startswith(override.split("=")[0])


@pytest.mark.parametrize("override", ["trainer.total_epochs=3", "trainer.seed=3", "trainer.logger=[wandb]"])
def test_the_same_for_the_warm_start(override: str) -> None:
    assert "has no effect" in refused(override, config="sft_embedded")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["medserl.validation.best_metric=val/sampled/balanced_acuracy"], "choose one of val/greedy/accuracy"),
        (["medserl.validation.sampled=false"], "val/sampled/balanced_accuracy is not measured"),
        (["medserl.validation.best_metric=val/greedy/parse_failure_rate"], "not better when it is greater"),
        (["medserl.validation.patience=2", "trainer.test_freq=-1"], "nothing is validated between rounds"),
        (["medserl.validation.patience=2", "medserl.notes.path=x"], "nothing is validated between rounds"),
    ],
)
def test_a_metric_that_nobody_measures_is_refused(overrides: list[str], told: str) -> None:
    assert told in refused(*overrides)


@pytest.mark.engine  # imports verl
def test_the_metrics_that_can_be_chosen_are_those_of_a_validation() -> None:
    from medserl.config.settings import ValidationSettings, passes, validation_metrics
    from medserl.training.validate import Validator

    class Answers(Validator):
        def __init__(self) -> None:
            self._settings, self._temperature, self.labelled = ValidationSettings(), 1.0, ()

        async def _ask_all(self, temperature: float) -> list[None]:
            return []

    measured = set(Answers()())
    chosen = {name for kind in passes(ValidationSettings()) for name in validation_metrics(kind)}
    assert chosen and chosen <= measured


def test_the_home_folder_is_followed_in_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = ("medserl.run_dir", "medserl.notes.path", "medserl.validation.path", "actor_rollout_ref.model.path")
    config = load_config("embedded", [f"{key}='~/runs/x'" for key in keys])
    assert config.medserl.run_dir == config.medserl.notes.path == config.medserl.validation.path
    assert config.medserl.run_dir == config.actor_rollout_ref.model.path == str(tmp_path / "runs" / "x")
    assert config.trainer.default_local_dir == os.path.join(tmp_path, "runs", "x", "checkpoints")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "begin with `defaults: [embedded, _self_]`"),
        (b"- a\n- b\n", "begin with"),
        (b"medserl:\n  seed: 3\n", "begin with"),
        (b"a: [1,\nb: {", "is not YAML in line"),
        (b"defaults:\n\t- base\n", "is not YAML in line"),
        (b"\x00\xff\xfe", "is not UTF-8"),
        (b"defaults: [base, _self_]\n# caf\xe9\n", "is not UTF-8"),
        (b"defaults: [embedded, _self_]\nmedserl: {seed: 1}\nmedserl: {seed: 2}\n", "medserl"),
        (b"defaults: [embedded, _self_]\nmedserl: {max_round: 3}\n", "did you mean medserl.max_rounds"),
        (b"defaults: [embedded, _self_]\nmedserl: {max_rounds: many}\n", "medserl.max_rounds"),
    ],
)
def test_a_file_that_is_no_configuration_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    assert told in refused(config=str(tmp_path / "mine.yaml"))


def test_a_yml_is_not_taken_for_the_yaml_beside_it(tmp_path: Path) -> None:
    for name in ("mine.yml", "mine.yaml"):
        (tmp_path / name).write_text("defaults: [embedded, _self_]\n")
    assert "end in .yaml only" in refused(config=str(tmp_path / "mine.yml"))


@pytest.mark.engine  # imports Ray
def test_the_options_of_ray_are_rays_own() -> None:
    import inspect

    import ray

    from medserl.config.mistakes import RAY_OPTIONS

    assert set(RAY_OPTIONS) == {name for name in inspect.signature(ray.init).parameters if name != "kwargs"}


def test_what_a_launcher_adds_to_rays_options_passes() -> None:
    load_config("embedded", ["++ray_kwargs.ray_init.address=10.1.1.1:6379", "+ray_kwargs.ray_init._temp_dir=/x"])


@pytest.mark.parametrize("url", ["garbage", "http://127.0.0.1:9/a b", "ftp://x"])
@pytest.mark.parametrize("key", ["medserl.injector_url", "+medserl.referee.options.url"])
def test_an_address_that_is_none(key: str, url: str) -> None:
    role = "medserl.train_roles=assessor" if "injector" in key else "medserl.referee.name=judge"
    assert refused(f'{key}="{url}"', role).startswith(f"{key.lstrip('+')}: {url!r}")
