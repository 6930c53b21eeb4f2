"""Settings that verl hands on to megatron-core: what it would refuse after minutes, or take without a word."""

import pytest
from omegaconf import OmegaConf

from medserl.config.handed_on import DDP, OPTIMIZER, SECTIONS, TRANSFORMER, _fields, check_handed_on
from medserl.config.load import load_config, load_sft_config
from medserl.errors import ConfigError

ACTOR = "actor_rollout_ref.actor"
TRAIN = f"{ACTOR}.megatron.{TRANSFORMER}"
SFT = f"engine.{TRANSFORMER}"


def test_megatrons_own_settings_are_found() -> None:
    """By the same files from which it makes them; these names are used in configs/ and in the documentation."""
    known = _fields(TRANSFORMER)
    assert {"num_layers_in_last_pipeline_stage", "apply_rope_fusion", "recompute_granularity"} < set(known)
    kinds = {name: known[name].rule for name in ("recompute_method", "apply_rope_fusion", "recompute_num_layers")}
    assert [rule and (rule.kind, rule.null, rule.choices) for rule in kinds.values()] == [
        ("text", True, ("uniform", "block")),
        ("switch", False, ()),
        ("whole", True, ()),
    ]
    assert "overlap_grad_reduce" in _fields(DDP) and "adam_beta2" in _fields(OPTIMIZER)


WRONG = (
    ("nosuch=4", "megatron-core has no such setting; leave it out"),
    ("apply_rope_fusoin=true", "megatron-core has no such setting; did you mean apply_rope_fusion?"),
    ("num_layers=4", "cannot be set here; it follows from the model's config.json"),
    ("context_parallel_size=2", "cannot be set here; verl has a key of its own"),
    ("attention_dropout=some", "'some' is not a number"),
    ("recompute_method=all", "'all' is not one of uniform, block"),
    ("recompute_num_layers=0", "0 is less than 1"),
    ("pipeline_model_parallel_layout='Et*17|t*19L'", "was not tested here; set num_layers_in_first_pipeline_stage or"),
    ("account_for_loss_in_pipeline_split=true", "True is not supported; it was not tested here"),
    ("gradient_accumulation_fusion=true", "needs the package apex"),
    *((f"num_layers_in_last_pipeline_stage={value}", "num_layers_in_last_pipeline_stage: ")
      for value in ("0", "-1", "abc", "17.5", "true", "[]")),
)  # fmt: skip


@pytest.mark.parametrize(("word", "sentence"), WRONG)
def test_what_megatron_would_not_take_is_one_sentence(word: str, sentence: str) -> None:
    key, _, value = word.partition("=")
    for section in (TRAIN, SFT):
        config = OmegaConf.create({})
        OmegaConf.update(config, f"{section}.{key}", OmegaConf.create(f"value: {value}").value)
        with pytest.raises(ConfigError) as error:
            check_handed_on(config)
        told = str(error.value)
        assert told.startswith(f"{section}.{key}: ") and sentence in told and "\n" not in told


def test_a_configuration_of_either_kind_is_looked_at() -> None:
    for load, name, section in ((load_config, "embedded", TRAIN), (load_sft_config, "sft_embedded", SFT)):
        with pytest.raises(ConfigError, match=rf"^{section}\.apply_rope_fusoin: megatron-core has no such setting"):
            load(name, [f"+{section}.apply_rope_fusoin=true"])


def test_recomputation_is_whole_or_refused() -> None:
    config = OmegaConf.create({})
    OmegaConf.update(config, TRAIN, {"recompute_granularity": "full", "recompute_method": None})
    with pytest.raises(ConfigError, match="recompute_granularity: full needs recompute_method=uniform and"):
        check_handed_on(config)
    OmegaConf.update(config, TRAIN, {"recompute_method": "block", "recompute_num_layers": 2})
    check_handed_on(config)
    OmegaConf.update(config, f"{TRAIN}.recompute_granularity", "selective")
    with pytest.raises(ConfigError, match="recompute_num_layers: 2 has no meaning with selective"):
        check_handed_on(config)


def test_its_optimizer_and_its_ddp_are_looked_at_too() -> None:
    for key, value, sentence in (
        (f"{ACTOR}.megatron.{DDP}.overlap_grad_reduec", True, "did you mean overlap_grad_reduce?"),
        (f"{ACTOR}.optim.{OPTIMIZER}.adam_beta", 0.9, "did you mean adam_beta"),
        (f"critic.optim.{OPTIMIZER}.adam_beta2", "high", "'high' is not a number"),
        (f"{ACTOR}.optim.{OPTIMIZER}.adam_beta1", 1.5, "1.5 is more than 1"),
        (f"{ACTOR}.optim.{OPTIMIZER}.optimizer_offload_fraction", 2.0, "2.0 is more than 1"),
        (f"{ACTOR}.optim.{OPTIMIZER}.optimizer_offload_fraction", -1.0, "-1.0 is less than 0"),
        (f"{ACTOR}.optim.{OPTIMIZER}.use_distributed_optimizer", False, "follows from Megatron's own section"),
        (f"{ACTOR}.megatron.{DDP}.use_distributed_optimizer", False, "follows from Megatron's own section"),
        (f"optim.{OPTIMIZER}.fp16", True, "follows from Megatron's own section"),
    ):
        config = OmegaConf.create({})
        OmegaConf.update(config, key, value)
        with pytest.raises(ConfigError) as error:
            check_handed_on(config)
        assert str(error.value).startswith(key) and sentence in str(error.value)


def test_every_section_is_one_that_verl_hands_on() -> None:
    from medserl.config.mistakes import OPEN_NODES

    handed = {name for name in OPEN_NODES if name.rpartition(".")[2] in (TRANSFORMER, DDP, OPTIMIZER)}
    assert handed <= set(SECTIONS)
