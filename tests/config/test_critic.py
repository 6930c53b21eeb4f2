"""What a critic (`algorithm.adv_estimator=gae`) resolves to, and what does not go with it or without it."""

import functools
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from medserl.config.engines import CRITIC_FOLLOWS
from medserl.config.explain import changed
from medserl.config.load import load_config
from medserl.errors import ConfigError
from medserl.preflight.fit import fit_host_alone
from medserl.preflight.layout import check_layout
from medserl.run.identity import differences
from medserl.run.layout import leave_random_states
from tests.shapes import QWEN3_4B

GAE = "algorithm.adv_estimator=gae"
ACTOR = "actor_rollout_ref.actor"


@functools.cache
def resolved(*overrides: str) -> DictConfig:
    return load_config("embedded", [GAE, *overrides])


def test_a_critic_is_split_and_computes_like_the_policy() -> None:
    config = resolved("critic.optim.lr=2e-5")
    for own, followed in CRITIC_FOLLOWS.items():
        assert OmegaConf.select(config, own) == OmegaConf.select(config, followed)
    assert config.critic.megatron.tensor_model_parallel_size == 2
    assert config.critic.optim.lr == 2e-5 != config.actor_rollout_ref.actor.optim.lr
    assert config.critic.ppo_mini_batch_size == config.actor_rollout_ref.actor.ppo_mini_batch_size
    assert config.critic.enable is None and config.critic.strategy == "megatron"
    check_layout(config)


def test_its_micro_batches_are_as_large_as_the_policys() -> None:
    """verl 0.9.1 would fill them to 32,768 tokens, whatever the policy's may have."""
    assert resolved().critic.ppo_infer_max_token_len_per_gpu == 40 * (192 + 64)
    dynamic = resolved(f"{ACTOR}.use_dynamic_bsz=true", f"{ACTOR}.ppo_max_token_len_per_gpu=5000")
    assert dynamic.critic.ppo_infer_max_token_len_per_gpu == 5000


def test_its_optimizer_computes_where_the_policys_does() -> None:
    notes = "medserl.notes.path=notes.jsonl"
    optim = load_config("qwen3_4b_1gpu", [GAE, notes]).critic.optim
    assert optim.use_precision_aware_optimizer and optim.override_optimizer_config.optimizer_cpu_offload
    beta = "+critic.optim.override_optimizer_config.adam_beta2=0.95"
    own = load_config("qwen3_4b_1gpu", [GAE, notes, beta]).critic.optim.override_optimizer_config
    assert own.adam_beta2 == 0.95 and own.optimizer_cpu_offload


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["critic.optim.lr=2e-5"], "critic.optim.lr: has no effect without a critic; set algorithm.adv_estimator=gae"),
        (["critic.ppo_epochs=4"], "critic.ppo_epochs: has no effect without a critic"),
        (["critic.enable=true"], "critic.enable: True is not supported, only null; algorithm.adv_estimator says"),
        (["algorithm.lam=0.95"], "algorithm.lam: 0.95 has no effect without a critic"),
        ([GAE, "critic.enable=false"], "critic.enable: False is not supported, only null"),
        (
            [GAE, "critic.megatron.tensor_model_parallel_size=1"],
            f"set {ACTOR}.megatron.tensor_model_parallel_size instead",
        ),
        ([GAE, "critic.model.path=x"], "set actor_rollout_ref.model.path instead"),
        ([GAE, "critic.shuffle=true"], "critic.shuffle: cannot be set; it follows from the policy's"),
        ([GAE, "critic.ppo_max_token_len_per_gpu=9"], "critic.ppo_max_token_len_per_gpu: cannot be set"),
        ([GAE, "critic.checkpoint.save_contents=[model]"], "critic.checkpoint.save_contents: cannot be set"),
        ([GAE, "critic.strategy=fsdp2"], "critic.strategy: cannot be set"),
        ([GAE, "critic.optim.betas=[0.9,0.95]"], "critic.optim.betas: [0.9, 0.95] has no effect; "),
        ([GAE, "critic.optim.lr=2"], "critic.optim.lr: 2 is more than 1"),
        ([GAE, "critic.cliprange_value=0"], "critic.cliprange_value: 0 is not above 0"),
        ([GAE, "critic.loss_agg_mode=mean"], "critic.loss_agg_mode: 'mean' is not one of"),
        ([GAE, "critic.optimm.lr=1e-5"], "critic.optimm.lr"),
        ([GAE, f"{ACTOR}.megatron.param_offload=maybe"], f"{ACTOR}.megatron.param_offload: 'maybe'"),
        ([GAE, "trainer.max_critic_ckpt_to_keep=1"], "set trainer.max_actor_ckpt_to_keep"),
        ([GAE, "medserl.advantage.verdict_credit=likelihood"], "medserl.advantage.verdict_credit: likelihood takes"),
        ([GAE, "medserl.advantage.normalisation=role_baseline"], "but the critic is the baseline"),
        ([GAE, "medserl.advantage.baseline_decay=0.9"], "baseline_decay: 0.9 has no effect beside a critic"),
        ([GAE, "model_engine=dp"], "loads a critic for FSDP with flash-attn, which the pins lack; use Megatron"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("embedded", overrides)
    assert told in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("normalisation", ["per_role", "global"])
def test_what_goes_with_it(normalisation: str) -> None:
    given = [f"medserl.advantage.normalisation={normalisation}", "algorithm.lam=0.95", "critic.cliprange_value=0.2"]
    check_layout(resolved(*given, "critic.ppo_epochs=2", "critic.ppo_mini_batch_size=40", "trainer.critic_warmup=3"))


@pytest.mark.parametrize("section", ["megatron: {param_offload: true}", "model: {path: /elsewhere}"])
def test_a_file_cannot_make_it_another_one(tmp_path: Path, section: str) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"defaults: [embedded, _self_]\nalgorithm: {{adv_estimator: gae}}\ncritic: {{{section}}}\n")
    with pytest.raises(ConfigError, match=r"^critic\.(megatron|model): .*; leave it out of the file, set"):
        load_config(str(mine))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["critic.ppo_mini_batch_size=60"], "critic.ppo_mini_batch_size: 60 is more than the 48 notes"),
        (
            ["critic.ppo_mini_batch_size=30", "trainer.critic_warmup=3"],
            "60 trajectories per replica and mini-batch of the critic cannot be divided by",
        ),
    ],
)
def test_mini_batches_that_do_not_divide(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_layout(resolved(*overrides))
    assert told in str(error.value)


def test_micro_batches_that_this_machine_makes_smaller_are_the_critics_too() -> None:
    given = [f"{ACTOR}.use_dynamic_bsz=true", "actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=true"]
    config = load_config("embedded", [GAE, *given, f"{ACTOR}.ppo_max_token_len_per_gpu=400000"])
    from medserl.planning.cpus import bytes_on_cpus
    from medserl.planning.job import job_of
    from medserl.planning.shapes import shape_of

    shape = shape_of(QWEN3_4B, "x")
    needed = sum(bytes_on_cpus(job_of(config), shape).values())
    fit_host_alone(config, shape, needed, "this machine has")
    assert config.critic.ppo_infer_max_token_len_per_gpu == config.actor_rollout_ref.actor.ppo_max_token_len_per_gpu
    assert config.critic.ppo_infer_max_token_len_per_gpu < 400000


def test_a_run_goes_on_with_the_critic_that_it_began_with() -> None:
    """Without one its section says nothing, and versions before wrote other values there."""
    began, plain = resolved(), load_config("embedded")
    assert differences(began, resolved("critic.optim.lr=2e-5")) == ["critic.optim.lr: 1e-05 there, 2e-05 now"]
    other = plain.copy()
    OmegaConf.update(other, "critic.ppo_epochs", 7)
    assert differences(other, plain) == []
    assert any(text.startswith("algorithm.adv_estimator: ") for text in differences(began, plain))
    assert any(text.startswith("algorithm.adv_estimator: ") for text in differences(plain, began))


def test_its_random_states_are_left_out_in_another_layout(tmp_path: Path) -> None:
    from medserl.run import checkpoint

    (checkpoint.staging_dir(tmp_path) / "global_step_3").mkdir()
    written = {"tp": 1, "pp": 1, "workers": 1, "reshardable": True}
    config = resolved().copy()
    assert leave_random_states(config, checkpoint.publish(tmp_path, 3, {"layout": written}, None))
    for trained in (config.critic, config.actor_rollout_ref.actor):
        assert trained.checkpoint.load_contents == ["model", "optimizer"]


def test_what_is_the_policys_is_not_listed_again() -> None:
    keys = [entry.key for entry in changed(resolved(), "embedded")]
    assert f"{ACTOR}.megatron.tensor_model_parallel_size" in keys
    assert not [key for key in keys if key.startswith(tuple(CRITIC_FOLLOWS))]
