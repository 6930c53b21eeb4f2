"""Types and bounds: no value of the wrong kind passes for verl's keys or our own, and each is named with its key."""

import copy
import functools
import math

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from medserl.config.family import SFT, TRAIN, compose, config_path
from medserl.config.load import load_config, load_sft_config
from medserl.config.mistakes import verl_defaults
from medserl.config.values import MAX_SEED, SFT_RULES, TRAIN_RULES, Rule, check_values
from medserl.errors import ConfigError

R, A = "actor_rollout_ref.rollout", "actor_rollout_ref.actor"


@functools.cache
def composed(name: str) -> DictConfig:
    """A shipped configuration before it is checked; made once, as it takes half a second."""
    path = config_path(name)
    return compose(path.parent, path.stem, (), SFT if name.startswith("sft") else TRAIN)


def refused(override: str, name: str = "embedded") -> str:
    """The sentence that a value of Hydra's is answered with."""
    parsed = OverridesParser.create().parse_override(override)
    config = copy.deepcopy(composed(name))
    family, rules = (SFT, SFT_RULES) if name.startswith("sft") else (TRAIN, TRAIN_RULES)
    with pytest.raises(ConfigError) as error:
        OmegaConf.update(config, parsed.key_or_group, parsed.value(), merge=False)
        check_values(config, rules, verl_defaults(family))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trainer.total_epochs=", "an empty value is not a whole number"),
        ("medserl.run_dir=", "an empty value is not a path"),
        ("medserl.run_dir=' '", "an empty value is not a path"),
        (f"{A}.optim.lr=1e30", "is more than 1"),
        ("trainer.total_epochs=two", "'two' is not a whole number"),
        ("trainer.total_epochs=0", "0 is less than 1"),
        ("trainer.total_epochs=-1", "-1 is less than 1"),
        ("trainer.total_epochs=1.5", "1.5 is not a whole number"),
        ("trainer.total_epochs=[1,2]", "[1, 2] is not a whole number"),
        ("trainer.total_epochs=true", "True is not a whole number"),
        ("trainer.total_epochs=null", "needs a value"),
        ("trainer.nnodes=0", "0 is less than 1"),
        ("trainer.n_gpus_per_node=[2]", "is not a whole number"),
        ("trainer.n_gpus_per_node=-2", "-2 is less than 1"),
        ("trainer.device=bogus", "'bogus' is not one of cpu, cuda"),
        ("trainer.resume_mode=bogus", "'bogus' is not one of auto, disable"),
        ("trainer.resume_mode=resume_path", "is not one of auto, disable"),
        ("trainer.max_actor_ckpt_to_keep=0", "0 is less than 1"),
        ("trainer.save_freq=0", "0 is less than 1 (or -1)"),
        (f"{A}.megatron.tensor_model_parallel_size=null", "needs a value"),
        (f"{A}.optim.lr=abc", "'abc' is not a number"),
        (f"{A}.optim.lr=1e-6x", "is not a number"),
        (f"{A}.optim.lr=[1e-6]", "is not a number"),
        (f"{A}.optim.lr=null", "needs a value"),
        (f"{A}.optim.lr=-1e-6", "is less than 0"),
        (f"{A}.optim.lr=inf", "inf is not a finite number"),
        (f"{A}.optim.weight_decay=x", "is not a number"),
        (f"{A}.clip_ratio=0", "is not above 0"),
        (f"{A}.clip_ratio=-0.2", "is not above 0"),
        (f"{A}.ppo_mini_batch_size=0", "is less than 1"),
        (f"{A}.ppo_epochs=0", "is less than 1"),
        (f"{R}.n=0", "is less than 1"),
        (f"{R}.n=many", "is not a whole number"),
        (f"{R}.temperature=0", "is not above 0"),
        (f"{R}.temperature=hot", "is not a number"),
        (f"{R}.top_k=0.5", "is not a whole number"),
        (f"{R}.gpu_memory_utilization=2", "is more than 1"),
        (f"{R}.gpu_memory_utilization=lots", "is not a number"),
        (f"{R}.max_num_seqs=0", "is less than 1"),
        (f"{R}.max_model_len=abc", "is not a whole number"),
        (f"{R}.engine_kwargs.vllm.kv_cache_memory_bytes=-1", "is less than 1"),
        ("data.max_prompt_length=null", "needs a value"),
        ("data.max_response_length=0", "is less than 1"),
        ("algorithm.gamma=2", "is more than 1"),
        ("algorithm.kl_ctrl.kl_coef=-0.1", "is less than 0"),
        ("algorithm.kl_ctrl.kl_coef=nan", "nan is not a finite number"),
        ("algorithm.kl_ctrl.type=bogus", "is not one of fixed, adaptive"),
        (f"{A}.optim.main_grads_dtype=fp16", "is not one of fp32, float32, bf16, bfloat16"),
        (f"{A}.optim.weight_decay_incr_style=bogus", "is not one of constant, linear, cosine"),
        ("algorithm.kl_penalty=bogus", "is not one of kl"),
        ("actor_rollout_ref.model.path=null", "needs a value"),
        ("actor_rollout_ref.model.path=[a]", "is not text"),
        ("ray_kwargs.ray_init.num_cpus=0", "is less than 1"),
        ("ray_kwargs.ray_init.num_cpus=abc", "is not a whole number"),
        ("medserl.seed=-1", "is less than 0"),
        ("medserl.seed=99999999999999999999", "is more than 2147483647"),
        ("medserl.notes.seed=-1", "is less than 0"),
        ("medserl.poll_seconds=-1", "is not above 0"),
        ("medserl.poll_seconds=nan", "nan is not a finite number"),
        ("medserl.advantage.injector_weight=nan", "nan is not a finite number"),
        ("medserl.rewards.assessor_right=inf", "inf is not a finite number"),
        ("medserl.vcf.max_word_edits=0", "is less than 1"),
        ("medserl.validation.count=0", "is less than 1"),
        # Keys without a rule of their own: verl's default says what they hold.
        ("trainer.balance_batch=7", "7 is not true or false"),
        (f"{A}.shuffle=maybe", "'maybe' is not true or false"),
        (f"{A}.tau_pos=x", "'x' is not a number"),
        ("critic.optim.lr=abc", "'abc' is not a number"),
        (f"{A}.checkpoint.save_contents=model", "'model' is not a list"),
        ("trainer=abc", "is a section with keys of its own, not"),
        ("actor_rollout_ref=null", "is a section with keys of its own, not"),
        (f"{A}.optim=3", "is a section with keys of its own, not"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_its_key(override: str, told: str) -> None:
    message = refused(override)
    assert told in message
    assert message.startswith(f"{override.split('=')[0].lstrip('+')}: ")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("medserl.steps=-5", "medserl.steps: -5 is less than 1"),
        ("optim.lr=nan", "optim.lr: nan"),
        ("medserl.mixture.assessor_pairs=-3", "medserl.mixture.assessor_pairs: -3"),
        ("medserl.notes.count=0", "medserl.notes.count: 0"),
        ("medserl.max_demonstrations=0", "medserl.max_demonstrations: 0"),
        ("medserl.verdict_weight=nan", "medserl.verdict_weight: nan"),
        ("medserl.mixture.thinking=1.5", "medserl.mixture.thinking: 1.5 is more than 1"),
        ("engine.tensor_model_parallel_size=two", "engine.tensor_model_parallel_size: 'two'"),
        ("trainer.n_gpus_per_node=0", "trainer.n_gpus_per_node: 0"),
        ("data.max_length=abc", "data.max_length: 'abc'"),
        ("optim.lr_warmup_steps=abc", "optim.lr_warmup_steps: 'abc'"),
        ("optim.min_lr=-2", "optim.min_lr: -2"),
    ],
)
def test_the_same_for_the_warm_start(override: str, told: str) -> None:
    assert told in refused(override, "sft_embedded")


def test_a_batch_of_nothing() -> None:
    nothing = ("medserl.late_mixture=null", "medserl.mixture.assessor_pairs=0", "medserl.mixture.injector_turns=0")
    for overrides in (nothing, nothing[1:]):
        with pytest.raises(ConfigError, match=r"medserl\.mixture: .* an empty batch"):
            load_sft_config("sft_embedded", overrides)


@pytest.mark.parametrize("override", ["trainer.total_epochs=two", "medserl.poll_seconds=nan", "trainer=abc"])
def test_a_wrong_value_is_told_when_a_configuration_is_loaded(override: str) -> None:
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        load_config("embedded", [override])


@pytest.mark.parametrize("rules", [TRAIN_RULES, SFT_RULES], ids=["train", "sft"])
def test_no_rule_takes_what_cannot_be_a_value(rules: dict[str, Rule]) -> None:
    for key, rule in rules.items():
        for value in (float("nan"), float("inf"), [1], {}, True if rule.kind != "switch" else 1, ""):
            assert rule.problem(value) or (rule.kind == "text" and value == ""), (key, value)
        assert rule.null == (rule.problem(None) is None), key


@given(st.floats(allow_nan=True) | st.integers() | st.text(max_size=5) | st.none() | st.booleans())
def test_a_rule_with_bounds_takes_numbers_within_them_only(value: object) -> None:
    for rule in (Rule(above=0.0), Rule(least=0.0, most=1.0), Rule("whole", least=0, most=MAX_SEED)):
        if rule.problem(value) is None:
            assert isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            assert rule.least is None or value >= rule.least
            assert rule.above is None or value > rule.above
            assert rule.most is None or value <= rule.most


@pytest.mark.parametrize(
    "overrides",
    [
        [f"{A}.optim.lr=0"],
        [f"{A}.entropy_coeff=0.01"],
        [f"{A}.entropy_coeff=-0.01"],
        [f"{R}.top_k=-1", f"{R}.top_p=0.9"],
        ["trainer.save_freq=-1", "trainer.test_freq=-1"],
        ["trainer.max_actor_ckpt_to_keep=null"],
        [f"{A}.optim.lr_warmup_steps=10"],
        ["medserl.seed=0"],
        [f"medserl.seed={MAX_SEED}"],
        ["medserl.deadline_margin=0", "medserl.rollout_workers=0"],
        ["trainer.project_name=mine"],
        ["medserl.notes.count=${medserl.rollout_batch_size}"],
    ],
)
def test_what_is_right_passes(overrides: list[str]) -> None:
    load_config("embedded", overrides)
