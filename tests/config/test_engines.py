"""What `model_engine=dp` resolves to, and what beside it is refused."""

import functools
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from medserl.config.load import load_config
from medserl.errors import ConfigError
from medserl.preflight.layout import check_layout
from medserl.run.layout import layout_of, parallel_of

DP, GAE = "model_engine=dp", "algorithm.adv_estimator=gae"
ACTOR = "actor_rollout_ref.actor"
OVERRIDE = f"{ACTOR}.optim.override_optimizer_config"


@functools.cache
def resolved(*overrides: str) -> DictConfig:
    return load_config("embedded", overrides)


def test_megatron_is_the_default() -> None:
    assert parallel_of(resolved()).engine == "Megatron" and parallel_of(resolved()).tp == 2
    assert resolved().actor_rollout_ref.actor.strategy == "megatron"


def test_fsdp_has_no_key_of_megatrons_left() -> None:
    config = resolved(DP)
    assert "megatron" not in OmegaConf.to_yaml(config.actor_rollout_ref, resolve=True)
    parts = (config.actor_rollout_ref.actor, config.actor_rollout_ref.ref)
    assert [part.strategy for part in parts] == ["fsdp2"] * 2
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
        ([DP, f"{ACTOR}.optim.lr_scheduler_type=foo"], "'foo' is not one of constant, cosine"),
        ([DP, f"{ACTOR}.optim.optimizer=adam"], "'adam' is not supported, only 'AdamW'"),
        ([DP, f"{ACTOR}.fsdp_config.strategy=fsdp2"], "verl takes that of the section above, which is fsdp2"),
        ([DP, f"{ACTOR}.fsdp_config.forward_prefetch=true"], "has no effect; it is for FSDP1"),
        ([DP, f"+{OVERRIDE}.foo=1"], f"{OVERRIDE}.foo: torch's AdamW has no such setting; leave it out"),
        ([DP, f"+{OVERRIDE}.amsgard=true"], "torch's AdamW has no such setting; did you mean amsgrad?"),
        ([DP, f"{OVERRIDE}.foo=1"], f"'{OVERRIDE}.foo=1': torch's AdamW has no such setting"),
        ([DP, f"+{OVERRIDE}.eps=small"], f"{OVERRIDE}.eps: 'small' is not a number"),
        ([DP, f"+{OVERRIDE}.weight_decay=0.1"], f"set {ACTOR}.optim.weight_decay instead"),
        ([DP, f"{OVERRIDE}=3"], f"{OVERRIDE}: is a section with keys of its own, not 3"),
        ([DP, GAE], "for FSDP with flash-attn, which the pins lack; use Megatron, or leave it out"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_sentence(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("embedded", overrides)
    assert told in str(error.value)


def test_what_verls_fsdp_can_be_told_passes() -> None:
    config = load_config("embedded", [DP, f"{ACTOR}.optim.lr_scheduler_type=cosine", f"+{OVERRIDE}.eps=1e-6"])
    assert config.actor_rollout_ref.actor.optim.override_optimizer_config.eps == 1e-6


def test_a_file_may_choose_the_engine(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        "defaults: [embedded, override model_engine: dp, _self_]\n".replace(
            "override model_engine: dp", "{override model_engine: dp}"
        )
    )
    assert parallel_of(load_config(str(mine))).engine == "FSDP"


def test_what_cannot_be_planned_says_so() -> None:
    from medserl.planning.job import job_of

    with pytest.raises(ConfigError, match="are worked out"):
        job_of(resolved(DP))
    job_of(resolved())


def test_fsdp_is_refused_where_megatron_keeps_adam_on_the_host() -> None:
    with pytest.raises(ConfigError, match=r"^model_engine=dp: qwen3_4b_1gpu is for Megatron \("):
        load_config("qwen3_4b_1gpu", [DP, "medserl.notes.path=notes.jsonl"])
    config = load_config("qwen3_4b_1node", [DP, "medserl.notes.path=notes.jsonl"])
    assert config.actor_rollout_ref.actor.strategy == "fsdp2"


def test_rounds_without_an_update_need_micro_batches_by_tokens() -> None:
    """verl would fail in the first round's log-probabilities: "data size must be divisible by force_group_size"."""
    with pytest.raises(ConfigError, match=r"^trainer\.critic_warmup: 3 leaves rounds without an update"):
        check_layout(load_config("embedded", ["trainer.critic_warmup=3"]))
    check_layout(load_config("embedded", ["trainer.critic_warmup=1"]))  # the first round is 1
    check_layout(load_config("embedded_gpu", ["trainer.critic_warmup=3"]))
