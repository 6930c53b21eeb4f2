"""Names that verl hands on to vLLM and Megatron are looked up in their sources."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from medserl.config.family import verl_config_dir
from medserl.config.handed_on import _NOT_HERE, _OF_VLLM, _OPTIM, _REFUSED, SECTIONS, check_handed_on
from medserl.config.load import load_config
from medserl.config.upstream import DDP, MEGATRON, OPTIMIZER, TRANSFORMER, VLLM, names_at, of_megatron, of_vllm
from medserl.errors import UserError

V = VLLM
T = "actor_rollout_ref.actor.megatron.override_transformer_config"


def holding(node: str, values: dict[str, Any]) -> DictConfig:
    config = OmegaConf.create({})
    OmegaConf.update(config, node, values, force_add=True)
    return config


def refused(node: str, values: dict[str, Any]) -> str:
    with pytest.raises(UserError) as error:
        check_handed_on(holding(node, values))
    return str(error.value)


@pytest.mark.parametrize("node", [VLLM, *SECTIONS])
@settings(max_examples=8)
@given(data=st.data())
def test_every_name_passes_and_a_misspelt_one_does_not(node: str, data: st.DataObject) -> None:
    what, names = names_at(node)
    allowed = [name for name in names if name not in {**_OF_VLLM, **_OPTIM, **_REFUSED, **_NOT_HERE} and len(name) > 6]
    assert len(allowed) > 20
    name = data.draw(st.sampled_from(allowed))
    try:
        check_handed_on(holding(node, {name: None}))
    except UserError as error:
        assert "needs a value" in str(error)
    place = data.draw(st.integers(1, len(name) - 1))
    wrong = name[:place] + name[place + 1 :]
    if wrong not in names:
        assert refused(node, {wrong: 1}).startswith(f"{node}.{wrong}: {what.format(wrong)}; did you mean ")


@pytest.mark.parametrize(
    ("node", "values", "told"),
    [
        (V, {"block_size": "many"}, "'many' is not a whole number"),
        (V, {"enable_lora": "yes"}, "'yes' is not true or false"),
        (V, {"max_model_len": 5}, "set actor_rollout_ref.rollout.max_model_len"),
        (V, {"enable_expert_parallel": True}, "has no effect"),
        (V, {"host": "x"}, "vLLM's engine has no argument host"),
        (T, {"num_layers": 3}, "follows from the model's config.json"),
        (T, {"bf16": True}, "verl has a key of its own for it"),
        (T, {"recompute_granularity": "banana"}, "'banana' is not one of full, selective"),
        (T, {"attention_backend": "foo"}, "'foo' is not one of auto, fused"),
        (T, {"bias_dropout_fusion": 1}, "1 is not true or false"),
        ("optim.override_optimizer_config", {"lr": 2}, "set optim.lr instead"),
        ("actor_rollout_ref.rollout.engine_kwargs.vlm", {"x": 1}, "has no effect, games are played with vLLM; did you"),
    ],
)
def test_what_is_refused_before_a_start(node: str, values: dict[str, Any], told: str) -> None:
    assert told in refused(node, values)


@pytest.mark.parametrize(
    ("node", "values"),
    [
        (
            V,
            {
                "max-logprobs": 20,
                "kv_cache_memory_bytes": "1G",
                "kv_cache_dtype": "fp8",
                "compilation_config": {"a": 1},
            },
        ),
        (T, {"recompute_granularity": None, "moe_layer_freq": [1, 0], "attention_dropout": 0, "window_size": [1, 2]}),
    ],
)
def test_what_is_right_passes(node: str, values: dict[str, Any]) -> None:
    check_handed_on(holding(node, values))


def test_several_are_told_at_once_and_a_follower_is_not_looked_at_again() -> None:
    config = holding(T, {"foo": 1, "bar": 2})
    OmegaConf.update(config, T.replace(".actor.", ".ref."), f"${{{T}}}", force_add=True)
    with pytest.raises(UserError, match="2 things"):
        check_handed_on(config)
    check_handed_on(holding("actor_rollout_ref.actor.optim.override_optimizer_config", {"fused": True}), megatron=False)


def test_a_name_that_nobody_has_set_yet_needs_a_plus() -> None:
    with pytest.raises(UserError, match=r"block_size is not set yet; write \+ before it"):
        load_config("embedded", [f"{V}.block_size=16"])
    with pytest.raises(UserError, match="did you mean block_size"):
        load_config("embedded", [f"{V}.blok_size=16"])
    with pytest.raises(UserError, match=r"attention_backend is set already; leave the \+ out"):
        load_config("embedded", [f"+{T}.attention_backend=local"])


@pytest.mark.engine  # imports vLLM and Megatron
@pytest.mark.parametrize("part", ["vllm", TRANSFORMER, DDP, OPTIMIZER])
def test_the_names_are_those_of_the_library(part: str) -> None:
    import importlib

    file, name = ("engine/arg_utils.py", "AsyncEngineArgs") if part == "vllm" else MEGATRON[part][0]
    package = "vllm" if part == "vllm" else "megatron"
    module = importlib.import_module(f"{package}.{file.removesuffix('.py').replace('/', '.')}")
    fields = {field.name for field in dataclasses.fields(getattr(module, name)) if not field.name.startswith("_")}
    if part == "vllm":
        parser = importlib.import_module("vllm.utils.argparse_utils").FlexibleArgumentParser()
        fields &= {action.dest for action in module.AsyncEngineArgs.add_cli_args(parser)._actions}
    assert set(of_vllm() if part == "vllm" else of_megatron(part)) == fields


def test_verl_still_sets_what_is_said_to_have_no_effect() -> None:
    """verl 0.9.1."""
    verl = Path(verl_config_dir()).parent.parent / "workers"
    server = (verl / "rollout/vllm_rollout/vllm_async_server.py").read_text()
    assert server.index("**engine_kwargs,") < server.index('args.update({"enable_expert_parallel"')
    engine = (verl / "engine/megatron/transformer_impl.py").read_text()
    assert engine.index("set_extra_args(**override_transformer_config)") < engine.index("tf_config.bf16 =")
