"""Settings that verl hands on to megatron-core, vLLM and torch's optimizer as they are: names that these have, of
values that they take.

verl lists none of them. A wrong one would be told by every worker, minutes after the start ("unexpected keyword
argument", verl 0.9.1, workers/engine/megatron/transformer_impl.py), and one that contradicts the model or the layout
not at all.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from medserl.config.mistakes import unknown
from medserl.config.upstream import DDP, OPTIMIZER, TRANSFORMER, VLLM, names_at, of_megatron, problem
from medserl.config.values import POSITIVE, SHARE, SIZE_OR_NULL, Rule
from medserl.errors import ConfigError, Problems, all_told

_PARTS = ("actor_rollout_ref.actor", "actor_rollout_ref.ref", "critic")
SECTIONS = (
    *(f"{part}.megatron.{name}" for part in _PARTS[:2] for name in (TRANSFORMER, DDP)),
    *(f"{part}.optim.{OPTIMIZER}" for part in (_PARTS[0], _PARTS[2])),
    f"engine.{TRANSFORMER}",
    f"engine.{DDP}",
    f"optim.{OPTIMIZER}",
)
_OF_THE_MODEL = "it follows from the model's config.json; leave it out"
_OF_THE_LAYOUT = "verl has a key of its own for it, without override_transformer_config; set that"
_ENDS = "set num_layers_in_first_pipeline_stage or num_layers_in_last_pipeline_stage instead"
# By name: what it may be, and why nothing else. Where it is not a value's type, it is what was not tested here.
_REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            *("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels"),
            *("activation_func", "gated_linear_unit", "normalization", "layernorm_epsilon", "qk_layernorm"),
            *("add_qkv_bias", "add_bias_linear", "num_moe_experts", "multi_latent_attention"),
        ),
        _OF_THE_MODEL,
    ),
    **dict.fromkeys(
        (
            *("tensor_model_parallel_size", "pipeline_model_parallel_size", "context_parallel_size"),
            *("virtual_pipeline_model_parallel_size", "expert_model_parallel_size", "expert_tensor_parallel_size"),
            *("params_dtype", "pipeline_dtype", "bf16", "fp16"),
        ),
        _OF_THE_LAYOUT,
    ),
}
_UNTESTED: dict[str, str] = {
    **dict.fromkeys(
        (
            "pipeline_model_parallel_layout",
            "account_for_embedding_in_pipeline_split",
            "account_for_loss_in_pipeline_split",
        ),
        f"it was not tested here; {_ENDS}",
    ),
    "gradient_accumulation_fusion": "it needs the package apex, which the pins lack; leave it out",
}
"""Refused but where they are off."""
_NOT_HERE = dict.fromkeys(
    ("use_distributed_optimizer", "use_megatron_fsdp", "use_custom_fsdp", "fp16", "bf16", "params_dtype"),
    "it follows from Megatron's own section; leave it out",
)
"""Of the optimizer and of Megatron's DDP, what medserl/config/refused.py keeps to one value where verl has a key."""
_BACKENDS = ("auto", "fused", "flash", "unfused", "local")
_RULES = {
    "attention_backend": Rule("text", choices=_BACKENDS),
    "num_layers_in_first_pipeline_stage": SIZE_OR_NULL,
    "num_layers_in_last_pipeline_stage": SIZE_OR_NULL,
    "recompute_num_layers": SIZE_OR_NULL,
    **dict.fromkeys(("optimizer_offload_fraction", "adam_beta1", "adam_beta2"), SHARE),
    "adam_eps": POSITIVE,
}
_OPTIM = dict.fromkeys(("lr", "min_lr", "weight_decay", "clip_grad", "optimizer"), "set {} instead")
"""Of the optimizer, what verl has keys of its own for."""
_OF_ADAMW = dict.fromkeys(("lr", "weight_decay", "betas"), "set {} instead")
"""The same of FSDP's."""
_FSDPS = (f"{_PARTS[0]}.optim.{OPTIMIZER}",)
_ROLLOUT = "actor_rollout_ref.rollout"
_ENGINES = f"{_ROLLOUT}.engine_kwargs"
# verl 0.9.1, workers/rollout/vllm_rollout/vllm_async_server.py, launch_server
_OF_VLLM = {
    "enable_expert_parallel": "has no effect, verl sets it itself; leave it out",
    "model": "the model is actor_rollout_ref.model.path; set that one",
    "worker_extension_cls": "new weights reach vLLM through verl's own; leave it out",
    "seed": "set medserl.seed instead",
    "tensor_parallel_size": f"verl would not know of it; set {_ROLLOUT}.tensor_model_parallel_size",
    "pipeline_parallel_size": f"verl would not know of it; set {_ROLLOUT}.pipeline_model_parallel_size",
    **{
        name: f"verl would not know of it; set {_ROLLOUT}.{name}"
        for name in ("data_parallel_size", "max_model_len", "enable_sleep_mode")
    },
}
_KINDS = {"bool": "switch", "int": "whole", "float": "number", "str": "text"}


@dataclass(frozen=True)
class _Field:
    """A dataclass's field; no rule where its type is not one of a plain value."""

    name: str
    rule: Rule | None


def check_handed_on(config: DictConfig, problems: Problems | None = None, *, megatron: bool = True) -> None:
    """Refuse a setting that megatron-core, vLLM or torch has not, that it would not take, or that belongs elsewhere.

    Args:
        config: A composed configuration of either kind, out of which wrong settings are taken.
        problems: Takes what is wrong; None: it is raised.
        megatron: Whether Megatron is the engine; FSDP's optimizer is torch's.

    Raises:
        ConfigError: names the key, and the nearest that there is.
    """
    with all_told(problems) as found:
        _check_engines(config, found)
        for section in (VLLM, *(SECTIONS if megatron else _FSDPS)):
            if not megatron and (error := _no_section(config, section)) is not None:
                found.add(error)
                OmegaConf.update(config, section, None)
            given = _own(config, section)
            own = {} if given is None else OmegaConf.to_container(given, resolve=True)
            assert isinstance(own, dict)
            for key, value in own.items():
                if (error := _wrong(section, str(key), value, megatron)) is not None:
                    found.add(error)
                    assert given is not None
                    with open_dict(given):
                        del given[key]
            if section.endswith(TRANSFORMER) and not found.doubts(*(f"{section}.{key}" for key in own)):
                with found.noted():
                    _check_recomputation(section, own)


def _check_engines(config: DictConfig, found: Problems) -> None:
    """Below ``engine_kwargs``, only what is for vLLM is read."""
    given = OmegaConf.select(config, _ENGINES)
    for name in list(given) if isinstance(given, DictConfig) else ():
        if name != "vllm" and given[name]:
            found.add(unknown(f"{_ENGINES}.{name}: has no effect, games are played with vLLM", str(name), ["vllm"]))


def _no_section(config: DictConfig, section: str) -> ConfigError | None:
    """What is wrong with a section whose default is null, so that its type says nothing."""
    value = OmegaConf.select(config, section)
    if value is None or isinstance(value, DictConfig):
        return None
    return ConfigError(f"{section}: is a section with keys of its own, not {value!r}; set one of them", (section,))


def _own(config: DictConfig, section: str) -> DictConfig | None:
    """A section, unless it follows another one, where it is looked at."""
    found = config
    for name in section.split("."):
        own = found._get_node(name, validate_access=False)
        if not isinstance(own, DictConfig) or own._is_interpolation() or own._is_none():
            return None
        found = own
    return found


def _wrong(section: str, key: str, value: Any, megatron: bool) -> ConfigError | None:
    """What is wrong with a setting; None where nothing is known to be."""
    where, (what, known) = f"{section}.{key}", names_at(section, megatron)
    name = key.replace("-", "_") if section == VLLM else key  # as its command line reads it
    if section == VLLM and name in _OF_VLLM:
        return ConfigError(f"{where}: {_OF_VLLM[name]}", (where,))
    if known and name not in known:
        error = unknown(f"{where}: {what.format(key)}", name, known, f"{section}.")
        return error if "did you mean" in str(error) else ConfigError(f"{error}; leave it out", error.keys)
    if section.endswith(TRANSFORMER) and key in _REFUSED:
        return ConfigError(f"{where}: cannot be set here; {_REFUSED[key]}", (where,))
    if megatron and section.endswith((OPTIMIZER, DDP)) and key in _NOT_HERE:
        return ConfigError(f"{where}: cannot be set here; {_NOT_HERE[key]}", (where,))
    if section.endswith(OPTIMIZER) and key in (ours := _OPTIM if megatron else _OF_ADAMW):
        return ConfigError(f"{where}: {ours[key].format(f'{section.rpartition(".")[0]}.{key}')}", (where,))
    if section.endswith(TRANSFORMER) and key in _UNTESTED and value not in (None, False):
        return ConfigError(f"{where}: {value!r} is not supported; {_UNTESTED[key]}", (where,))
    if section == VLLM or not megatron:
        told = problem(known[name], value) if known else None
    else:
        rule = _RULES.get(key) or (_fields(section.rpartition(".")[2])[key].rule if known else None)
        told = rule.problem(value) if rule is not None else None
    return ConfigError(f"{where}: {told}", (where,)) if told else None


def _check_recomputation(section: str, own: Mapping[Any, Any]) -> None:
    """megatron-core 0.16.1, transformer_config.py, __post_init__."""
    kind, method, layers = (own.get(f"recompute_{name}") for name in ("granularity", "method", "num_layers"))
    if kind == "full" and (method is None or layers is None):
        raise ConfigError(
            f"{section}.recompute_granularity: full needs recompute_method=uniform and recompute_num_layers=1 beside it"
        )
    if kind == "selective" and layers is not None:
        raise ConfigError(f"{section}.recompute_num_layers: {layers} has no meaning with selective; set it to null")


@functools.cache
def _fields(part: str) -> dict[str, _Field]:
    """Of the dataclasses of a section; nothing where megatron-core is not installed."""
    return {name: _Field(name, _rule(annotation)) for name, annotation in of_megatron(part).items()}


def _rule(annotation: ast.expr, null: bool = False) -> Rule | None:
    """What a plain type may hold: ``bool``, ``Optional[int]``, ``Literal['full', 'selective']``."""
    if isinstance(annotation, ast.Name) and annotation.id in _KINDS:
        return Rule(_KINDS[annotation.id], null=null)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        if annotation.value.id == "Optional":
            return _rule(annotation.slice, null=True)
        if annotation.value.id == "Literal":
            words = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
            choices = tuple(word.value for word in words if isinstance(word, ast.Constant))
            if all(isinstance(choice, str) for choice in choices):
                return Rule("text", null=null, choices=tuple(map(str, choices)))
    return None
