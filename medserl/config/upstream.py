"""Names that other libraries take, read from their sources: importing vLLM or Megatron would take half a minute.

verl hands some of its sections on to another library as they are (vllm 0.24.0, megatron-core 0.16.1), which would tell
an unknown name minutes into a start.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path
from typing import Any

from medserl.config.own_types import LONGEST_SHOWN

_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "list": "a list",
          "dict": "keys with values"}  # fmt: skip
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,),
                                       "list": (list,), "dict": (dict,)}  # fmt: skip
_WITH_UNIT = re.compile(r"\d+(\.\d+)?[kKmMgGtT]?i?")
"""A number as vLLM's command line reads it."""


TRANSFORMER, DDP, OPTIMIZER = "override_transformer_config", "override_ddp_config", "override_optimizer_config"
MEGATRON = {
    TRANSFORMER: (
        ("core/transformer/transformer_config.py", "TransformerConfig"),
        ("core/model_parallel_config.py", "ModelParallelConfig"),
    ),
    DDP: (("core/distributed/distributed_data_parallel_config.py", "DistributedDataParallelConfig"),),
    OPTIMIZER: (("core/optimizer/optimizer_config.py", "OptimizerConfig"),),
}
"""Sections that megatron-core gets, by their last part: files below the package, and what is made of the section."""
VLLM = "actor_rollout_ref.rollout.engine_kwargs.vllm"
_ENGINE, _FLAGS = (("engine/arg_utils.py", "EngineArgs"), ("engine/arg_utils.py", "AsyncEngineArgs")), "add_cli_args"
NO_ARGUMENT, NO_SETTING = "vLLM's engine has no argument {}", "megatron-core has no such setting"
NOT_ADAMS = "torch's AdamW has no such setting"


def names_at(section: str, megatron: bool = True) -> tuple[str, dict[str, ast.expr]]:
    """What to say of a name that a section's library has not, and the names that it has, with their types; none where
    the library is not here, or takes any name.

    Args:
        section: Dotted.
        megatron: Whether Megatron is the engine; FSDP's optimizer is torch's.
    """
    if section == VLLM:
        return NO_ARGUMENT, of_vllm()
    if not megatron and section.endswith(f".{OPTIMIZER}"):
        return NOT_ADAMS, of_adamw()
    return NO_SETTING, of_megatron(section.rpartition(".")[2])


def of_megatron(part: str) -> dict[str, ast.expr]:
    """Fields of the dataclass that megatron-core makes of a section with this last part."""
    found: dict[str, ast.expr] = {}
    for file, name in MEGATRON.get(part, ()):
        found |= _fields("megatron", file, name)
    return found


def of_adamw() -> dict[str, ast.expr]:
    """Arguments of torch's AdamW, besides the parameters."""
    made = _classes("torch", "optim/adamw.py").get("AdamW")
    for node in made.body if made is not None else ():
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            given = (*node.args.args[2:], *node.args.kwonlyargs)
            return {arg.arg: arg.annotation for arg in given if arg.annotation is not None}
    return {}


def of_vllm() -> dict[str, ast.expr]:
    """Arguments of vLLM's engine that its command line has, too: verl calls that one."""
    base, own = (_fields("vllm", file, name) for file, name in _ENGINE)
    flags = _flags("vllm", *_ENGINE[0], _FLAGS)
    return {name: kind for name, kind in base.items() if name in flags} | own


def problem(kind: ast.expr, value: Any) -> str | None:
    """What is wrong with a value of vLLM's, as the end of a sentence; None where nothing is, or its type says too
    little."""
    kinds = _kinds(kind)
    if value is None or not kinds or any(_fits(one, value) for one in kinds):
        return None
    told = repr(value)
    shown = told if len(told) <= LONGEST_SHOWN else f"what is given ({len(told)} characters)"
    literal = [str(one) for one in kinds if one not in _WORDS]
    allowed = [_WORDS[one] for one in kinds if one in _WORDS]
    return f"{shown} is not {' or '.join([*allowed, *([f'one of {", ".join(literal)}'] if literal else [])])}"


def _fits(kind: Any, value: Any) -> bool:
    if kind not in _TYPES:
        return bool(kind == value and type(kind) is type(value))
    if isinstance(value, bool) and kind != "bool":
        return False
    if kind in ("int", "float") and isinstance(value, str):
        return _WITH_UNIT.fullmatch(value) is not None
    return isinstance(value, _TYPES[kind]) or (kind == "str" and not isinstance(value, list | dict))


def _kinds(node: ast.expr) -> list[Any] | None:
    """Names of `_TYPES`, and words that are values themselves; None where a name is not known here."""
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
    return [name] if name in _TYPES else None


def _all(parts: Any) -> list[Any] | None:
    found: list[Any] = []
    for kinds in map(_kinds, parts):
        if kinds is None:
            return None
        found += kinds
    return found


@functools.cache
def _classes(package: str, file: str) -> dict[str, ast.ClassDef]:
    spec = importlib.util.find_spec(package)  # of a top-level package: nothing of it is imported
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = next((path for folder in folders if (path := Path(folder) / file).is_file()), None)
    if path is None:
        return {}
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: node for node in body if isinstance(node, ast.ClassDef)}


def _fields(package: str, file: str, name: str) -> dict[str, ast.expr]:
    classes = _classes(package, file)
    return {
        node.target.id: node.annotation
        for node in (classes[name].body if name in classes else ())
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_"
    }


@functools.cache
def _flags(package: str, file: str, name: str, method: str) -> frozenset[str]:
    classes = _classes(package, file)
    body = classes[name].body if name in classes else ()
    own = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == method)
    words = (node.value for function in own for node in ast.walk(function) if isinstance(node, ast.Constant))
    return frozenset(word[2:].replace("-", "_") for word in words if isinstance(word, str) and word.startswith("--"))
