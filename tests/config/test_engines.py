"""What `model_engine=dp` and `adv_estimator=gae` resolve to, and what beside them is refused."""

import functools
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from medserl.config.load import load_config
from medserl.errors import ConfigError
from medserl.preflight.checks import check_layout
from medserl.run.layout import layout_of, parallel_of

DP, GAE = "model_engine=dp", "algorithm.adv_estimator=gae"
ACTOR = "actor_rollout_ref.actor"


@functools.cache
def resolved(*overrides: str) -> DictConfig:
    return load_config("embedded", overrides)


def test_megatron_is_the_default() -> None:
    assert parallel_of(resolved()).engine == "Megatron" and parallel_of(resolved()).tp == 2
    assert resolved().actor_rollout_ref.actor.strategy == "megatron"


def test_fsdp_has_no_key_of_megatrons_left() -> None:
    config = resolved(DP)
    text = OmegaConf.to_yaml(config, resolve=True)
    assert "megatron" not in text.replace("ppo_megatron", "")
    parts = (config.actor_rollout_ref.actor, config.actor_rollout_ref.ref, config.critic)
    assert [part.strategy for part in parts] == ["fsdp2"] * 3
    assert config.actor_rollout_ref.model.override_config.attn_implementation == "sdpa"
    assert "hf_model" in config.actor_rollout_ref.actor.checkpoint.save_contents
    assert layout_of(config) == {"engine": "FSDP", "tp": 1, "pp": 1, "workers": 2, "reshardable": False}
    check_layout(config)


def test_fsdp_keeps_what_the_configuration_says_of_the_training() -> None:
    ours, fsdp = resolved(), resolved(DP)
    for key in (f"{ACTOR}.optim.lr", f"{ACTOR}.ppo_mini_batch_size", "data", "algorithm", "medserl"):
        assert OmegaConf.select(fsdp, key) == OmegaConf.select(ours, key), key


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ([DP, f"{ACTOR}.megatron.tensor_model_parallel_size=1"], "Megatron's, which model_engine=dp does not use"),
        ([DP, f"{ACTOR}.strategy=fsdp"], "'fsdp' is not supported, only 'fsdp2'"),
        ([DP, f"{ACTOR}.ulysses_sequence_parallel_size=2"], "2 is not supported, only 1"),
        ([DP, "actor_rollout_ref.model.use_remove_padding=true"], "packed sequences need flash-attn"),
        ([DP, f"{ACTOR}.fsdp_config.offload_polcy=true"], "offload_polcy"),
        ([f"{ACTOR}.fsdp_config.param_offload=true"], "fsdp_config"),
        (["model_engine=veomni"], "only 'megatron' or 'dp'"),
        (["model_engine=torchtitan"], "only 'megatron' or 'dp'"),
        (["model_engine=nonsense"], "model_engine"),
        ([GAE, "critic.enable=false"], "critic.enable: False, but algorithm.adv_estimator is gae"),
        (["critic.enable=true"], "critic.enable: True, but algorithm.adv_estimator is reinforce_plus_plus"),
        ([GAE, "critic.ppo_micro_batch_size_per_gpu=4"], "set critic.ppo_infer_max_token_len_per_gpu"),
        ([GAE, "critic.megatron.tensor_model_parallel_size=1"], "a critic runs in the policy's processes"),
        ([GAE, "critic.optim.lr=-1"], "critic.optim.lr"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("embedded", overrides)
    assert told in str(error.value)


def test_a_critic_stands_where_the_policy_stands() -> None:
    config = resolved(GAE, "critic.optim.lr=1e-4")
    critic, actor = config.critic, config.actor_rollout_ref.actor
    for key in ("tensor_model_parallel_size", "pipeline_model_parallel_size", "override_transformer_config"):
        assert critic.megatron[key] == actor.megatron[key]
    assert critic.model.path == config.actor_rollout_ref.model.path
    assert critic.optim.lr == 1e-4
    assert critic.data_loader_seed == config.medserl.seed


def test_a_file_may_choose_the_engine(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "defaults: [embedded, override model_engine: dp, _self_]\n".replace(
            "override model_engine: dp", "{override model_engine: dp}"
        )
    )
    assert parallel_of(load_config(str(mine))).engine == "FSDP"


@pytest.mark.parametrize("choice", [DP, GAE])
def test_what_cannot_be_planned_says_so(choice: str) -> None:
    from medserl.planning.job import job_of

    with pytest.raises(ConfigError, match="are worked out"):
        job_of(resolved(choice))
    job_of(resolved())
