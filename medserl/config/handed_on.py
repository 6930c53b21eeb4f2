"""Settings that verl hands on to megatron-core as they are: names that it has, of values that it takes. No torch.

verl lists none of them. A wrong one would be told by every worker, minutes after the start ("unexpected keyword
argument", verl 0.9.1, workers/engine/megatron/transformer_impl.py), and one that contradicts the model or the layout
not at all. The names and their types are read from megatron-core's source: to import it takes torch and seconds.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from medserl.config.values import POSITIVE, SHARE, SIZE_OR_NULL, Rule
from medserl.errors import ConfigError

TRANSFORMER, DDP, OPTIMIZER = "override_transformer_config", "override_ddp_config", "override_optimizer_config"
_DATACLASSES = {
    TRANSFORMER: (
        ("transformer/transformer_config.py", "TransformerConfig"),
        ("model_parallel_config.py", "ModelParallelConfig"),
    ),
    DDP: (("distributed/distributed_data_parallel_config.py", "DistributedDataParallelConfig"),),
    OPTIMIZER: (("optimizer/optimizer_config.py", "OptimizerConfig"),),
}
"""Below megatron/core, and what is made of the section there."""
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
_RULES = {
    "num_layers_in_first_pipeline_stage": SIZE_OR_NULL,
    "num_layers_in_last_pipeline_stage": SIZE_OR_NULL,
    "recompute_num_layers": SIZE_OR_NULL,
    **dict.fromkeys(("optimizer_offload_fraction", "adam_beta1", "adam_beta2"), SHARE),
    "adam_eps": POSITIVE,
}
_KINDS = {"bool": "switch", "int": "whole", "float": "number", "str": "text"}


@dataclass(frozen=True)
class _Field:
    """A dataclass's field; no rule where its type is not one of a plain value."""

    name: str
    rule: Rule | None


def check_handed_on(config: DictConfig) -> None:
    """Raise for a setting that megatron-core has not, that it would not take, or that belongs elsewhere.

    Args:
        config: A composed configuration of either kind.

    Raises:
        ConfigError: the first of them.
    """
    for section in SECTIONS:
        given = OmegaConf.select(config, section)
        if not isinstance(given, DictConfig):
            continue
        own = OmegaConf.to_container(given, resolve=True)
        assert isinstance(own, dict)
        name = section.rpartition(".")[2]
        for key, value in own.items():
            _check(section, str(key), value, _fields(name))
        if name == TRANSFORMER:
            _check_recomputation(section, own)


def _check(section: str, key: str, value: Any, known: Mapping[str, _Field]) -> None:
    if known and key not in known:
        near = get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]}?" if near else "leave it out"
        raise ConfigError(f"{section}.{key}: megatron-core has no such setting; {hint}")
    if section.endswith(TRANSFORMER) and key in _REFUSED:
        raise ConfigError(f"{section}.{key}: cannot be set here; {_REFUSED[key]}")
    if section.endswith(TRANSFORMER) and key in _UNTESTED and value not in (None, False):
        raise ConfigError(f"{section}.{key}: {value!r} is not supported; {_UNTESTED[key]}")
    rule = _RULES.get(key) or (known[key].rule if known else None)
    if rule is not None and (problem := rule.problem(value)):
        raise ConfigError(f"{section}.{key}: {problem}")


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
def _fields(section: str) -> dict[str, _Field]:
    """Of the dataclasses of a section; nothing where megatron-core is not installed."""
    spec = importlib.util.find_spec("megatron")  # a namespace: nothing is imported
    for folder in spec.submodule_search_locations or () if spec else ():
        root = Path(folder) / "core"
        if root.is_dir():
            found = (field for file, name in _DATACLASSES[section] for field in _of_class(root / file, name))
            return {field.name: field for field in found}
    return {}


def _of_class(path: Path, name: str) -> Iterator[_Field]:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for line in next(node for node in body if isinstance(node, ast.ClassDef) and node.name == name).body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            yield _Field(line.target.id, _rule(line.annotation))


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
