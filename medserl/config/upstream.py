"""Names that other libraries take, read from their sources: importing vLLM or Megatron would take half a minute.

verl hands some of its sections on to another library as they are (vllm 0.24.0, megatron-core 0.16.1), which would tell
an unknown name minutes into a start.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medserl.config.own_types import LONGEST_SHOWN

_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
          "dict": "keys with values"}  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,),
                                       "list": (list,), "dict": (dict,)}  # fmt: skip
_WITH_UNIT = re.compile(r"\d+(\.\d+)?[kKmMgGtT]?i?")
"""A number as vLLM's command line reads it."""


@dataclass(frozen=True)
class Section:
    """A section of verl's that goes to another library."""

    what: str
    """What does not have an unknown name, in a sentence."""
    package: str
    classes: tuple[tuple[str, str], ...]
    """File below the package, and the dataclass whose fields are the names."""
    flags: str = ""
    """The method of the first class in which a field must have a flag of the command line, which verl calls."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Names that are refused, and what to do: ``{0}`` is the section in which this one stands."""
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of whose type the source does not say what words it takes."""


_SIZES = ("tensor_model_parallel_size", "pipeline_model_parallel_size", "virtual_pipeline_model_parallel_size",
          "context_parallel_size", "expert_model_parallel_size", "expert_tensor_parallel_size")  # fmt: skip
_SHAPE = ("num_layers", "hidden_size", "num_attention_heads", "num_query_groups", "ffn_hidden_size", "kv_channels",
          "layernorm_epsilon", "normalization", "add_bias_linear", "add_qkv_bias", "qk_layernorm", "gated_linear_unit",
          "num_moe_experts", "multi_latent_attention")  # fmt: skip
TRANSFORMER = Section(
    "megatron-core's TransformerConfig has no field",
    "megatron",
    (
        ("core/model_parallel_config.py", "ModelParallelConfig"),
        ("core/transformer/transformer_config.py", "TransformerConfig"),
    ),
    instead={
        **dict.fromkeys(_SIZES, "has no effect on how workers are grouped; set {0}.{1}"),
        **dict.fromkeys(_SHAPE, "follows from the model's config.json; leave it out"),
        # verl 0.9.1, workers/engine/megatron/transformer_impl.py, _build_tf_config: set behind the overrides
        **dict.fromkeys(("fp16", "bf16"), "has no effect, verl sets it from {0}.dtype; set that one"),
        **dict.fromkeys(("params_dtype", "pipeline_dtype"), "follows from {0}.dtype; set that one"),
    },
    words={"attention_backend": ("auto", "fused", "flash", "unfused", "local")},
)
DDP = Section(
    "megatron-core's DistributedDataParallelConfig has no field",
    "megatron",
    (("core/distributed/distributed_data_parallel_config.py", "DistributedDataParallelConfig"),),
)
OPTIMIZER = Section(
    "megatron-core's OptimizerConfig has no field",
    "megatron",
    (("core/optimizer/optimizer_config.py", "OptimizerConfig"),),
    instead=dict.fromkeys(("lr", "min_lr", "weight_decay", "clip_grad", "optimizer"), "set {0}.{1} instead"),
)
_ROLLOUT = "actor_rollout_ref.rollout"
VLLM = Section(
    "vLLM's engine has no argument",
    "vllm",
    (("engine/arg_utils.py", "EngineArgs"), ("engine/arg_utils.py", "AsyncEngineArgs")),
    flags="add_cli_args",
    # verl 0.9.1, workers/rollout/vllm_rollout/vllm_async_server.py, launch_server
    instead={
        "enable_expert_parallel": "has no effect, verl sets it itself; leave it out",
        "model": "the model is actor_rollout_ref.model.path; set that one",
        "tensor_parallel_size": f"verl would not know of it; set {_ROLLOUT}.tensor_model_parallel_size",
        "pipeline_parallel_size": f"verl would not know of it; set {_ROLLOUT}.pipeline_model_parallel_size",
        "data_parallel_size": f"verl would not know of it; set {_ROLLOUT}.data_parallel_size",
        "max_model_len": f"verl would not know of it; set {_ROLLOUT}.max_model_len",
        "enable_sleep_mode": f"verl would not know of it; set {_ROLLOUT}.enable_sleep_mode",
        "worker_extension_cls": "new weights reach vLLM through verl's own; leave it out",
        "seed": "set medserl.seed instead",
    },
)
SECTIONS = {
    f"{_ROLLOUT}.engine_kwargs.vllm": VLLM,
    "actor_rollout_ref.actor.megatron.override_transformer_config": TRANSFORMER,
    "actor_rollout_ref.ref.megatron.override_transformer_config": TRANSFORMER,
    "actor_rollout_ref.actor.megatron.override_ddp_config": DDP,
    "actor_rollout_ref.actor.optim.override_optimizer_config": OPTIMIZER,
    "critic.optim.override_optimizer_config": OPTIMIZER,
    "engine.override_transformer_config": TRANSFORMER,
    "engine.override_ddp_config": DDP,
    "optim.override_optimizer_config": OPTIMIZER,
}


def taken(section: Section) -> dict[str, ast.expr] | None:
    """The names that a section may have, with their types as they are written; None where the library is not here."""
    found: dict[str, ast.expr] = {}
    for file, name in section.classes:
        fields = _fields(section.package, file, name)
        if fields is None:
            return None
        found |= fields
    if section.flags:
        flags = _flags(section.package, *section.classes[0], section.flags)
        own = _fields(section.package, *section.classes[0]) or {}
        found = {name: kind for name, kind in found.items() if name not in own or name in flags}
    return {name: kind for name, kind in found.items() if not name.startswith("_")}


def problem(section: Section, name: str, kind: ast.expr, value: Any) -> str | None:
    """What is wrong with a value, as the end of a sentence; None where nothing is, or the type says too little."""
    if value is None:
        return None
    if name in section.words:
        return None if value in section.words[name] else f"{value!r} is not one of {', '.join(section.words[name])}"
    kinds = _kinds(kind)
    if kinds is None or any(_fits(one, value, section is VLLM) for one in kinds):
        return None
    told = repr(value)
    shown = told if len(told) <= LONGEST_SHOWN else f"what is given ({len(told)} characters)"
    if not kinds:
        return f"{shown} cannot stand for it: a configuration cannot hold one; leave it out"
    literal = [str(one) for one in kinds if one not in _WORDS]
    allowed = [_WORDS[one] for one in kinds if one in _WORDS]
    return f"{shown} is not {' or '.join([*allowed, *([f'one of {", ".join(literal)}'] if literal else [])])}"


def _fits(kind: Any, value: Any, command_line: bool) -> bool:
    if kind not in _TYPES:
        return bool(kind == value and type(kind) is type(value))
    if isinstance(value, bool) and kind != "bool":
        return False
    if command_line and kind in ("int", "float") and isinstance(value, str):
        return _WITH_UNIT.fullmatch(value) is not None
    return isinstance(value, _TYPES[kind]) or (command_line and kind == "str" and not isinstance(value, list | dict))


def _kinds(node: ast.expr) -> list[Any] | None:
    """Names of `_TYPES`, and words that are values themselves; none for what is no plain value (a function, say); None
    where a name is not known here."""
    if isinstance(node, ast.Constant):
        return [] if node.value is None else _kinds(ast.parse(str(node.value), mode="eval").body)
    if isinstance(node, ast.BinOp):
        return _all((node.left, node.right))
    if isinstance(node, ast.Subscript):
        outer, inner = ast.unparse(node.value).rpartition(".")[2], node.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if outer in ("Optional", "Union"):
            return _all(parts)
        if outer == "Literal":
            return [part.value for part in parts if isinstance(part, ast.Constant)]
        name = outer.lower()
        return [name] if name in ("list", "dict") else None
    name = ast.unparse(node)
    if name in _TYPES:
        return [name]
    return [] if name in ("Callable", "torch.dtype", "ContextManager") else None


def _all(parts: Any) -> list[Any] | None:
    found: list[Any] = []
    for kinds in map(_kinds, parts):
        if kinds is None:
            return None
        found += kinds
    return found


@functools.cache
def _classes(package: str, file: str) -> dict[str, ast.ClassDef] | None:
    spec = importlib.util.find_spec(package)  # of a top-level package: nothing of it is imported
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = next((path for folder in folders if (path := Path(folder) / file).is_file()), None)
    if path is None:
        return None
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}


def _fields(package: str, file: str, name: str) -> dict[str, ast.expr] | None:
    classes = _classes(package, file)
    if classes is None or name not in classes:
        return None
    body = classes[name].body
    return {
        node.target.id: node.annotation
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


@functools.cache
def _flags(package: str, file: str, name: str, method: str) -> frozenset[str]:
    classes = _classes(package, file) or {}
    own = (node for node in classes[name].body if isinstance(node, ast.FunctionDef) and node.name == method)
    words = (node.value for function in own for node in ast.walk(function) if isinstance(node, ast.Constant))
    return frozenset(word[2:].replace("-", "_") for word in words if isinstance(word, str) and word.startswith("--"))
