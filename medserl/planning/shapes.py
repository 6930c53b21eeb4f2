"""The shape of a decoder, and how Megatron and vLLM split it. Parameters are exact: tests/planning compares them with
megatron-core's own models, rank by rank, and with the sizes that are published for the models in `KNOWN`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from medserl.errors import ConfigError, all_told
from medserl.families import FAMILIES, family_of, obstacle
from medserl.files import read_json

_NUMBERS = (
    "num_hidden_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
)
_QWEN3, _QWEN2, _LLAMA, _MISTRAL = FAMILIES
# From the models' own config.json: architecture, layers, hidden, intermediate, heads, key-value heads, head size,
# vocabulary, tied embeddings, context.
KNOWN: dict[str, tuple[str, int, int, int, int, int, int, int, bool, int]] = {
    "qwen3-0.6b": (_QWEN3, 28, 1024, 3072, 16, 8, 128, 151936, True, 40960),
    "qwen3-1.7b": (_QWEN3, 28, 2048, 6144, 16, 8, 128, 151936, True, 40960),
    "qwen3-4b": (_QWEN3, 36, 2560, 9728, 32, 8, 128, 151936, True, 40960),
    "qwen3-8b": (_QWEN3, 36, 4096, 12288, 32, 8, 128, 151936, False, 40960),
    "qwen3-14b": (_QWEN3, 40, 5120, 17408, 40, 8, 128, 151936, False, 40960),
    "qwen3-32b": (_QWEN3, 64, 5120, 25600, 64, 8, 128, 151936, False, 40960),
    "qwen2.5-0.5b": (_QWEN2, 24, 896, 4864, 14, 2, 64, 151936, True, 32768),
    "qwen2.5-1.5b": (_QWEN2, 28, 1536, 8960, 12, 2, 128, 151936, True, 32768),
    "qwen2.5-3b": (_QWEN2, 36, 2048, 11008, 16, 2, 128, 151936, True, 32768),
    "qwen2.5-7b": (_QWEN2, 28, 3584, 18944, 28, 4, 128, 152064, False, 32768),
    "qwen2.5-14b": (_QWEN2, 48, 5120, 13824, 40, 8, 128, 152064, False, 32768),
    "qwen2.5-32b": (_QWEN2, 64, 5120, 27648, 40, 8, 128, 152064, False, 32768),
    "llama-3.2-1b": (_LLAMA, 16, 2048, 8192, 32, 8, 64, 128256, True, 131072),
    "llama-3.2-3b": (_LLAMA, 28, 3072, 8192, 24, 8, 128, 128256, True, 131072),
    "llama-3.1-8b": (_LLAMA, 32, 4096, 14336, 32, 8, 128, 128256, False, 131072),
    "mistral-7b-v0.3": (_MISTRAL, 32, 4096, 14336, 32, 8, 128, 32768, False, 32768),
}


@dataclass(frozen=True)
class Shape:
    """A decoder with grouped-query attention, a gated MLP and RMS norms."""

    name: str
    """For sentences: a known name or a path."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    groups: int
    """Key-value heads."""
    head: int
    """Elements of one head."""
    vocab: int
    tied: bool
    """The output layer is the embedding."""
    qk_norm: bool
    qkv_bias: bool
    context: int | None = None
    """Longest sequence; None where config.json does not say."""

    @property
    def matrices(self) -> int:
        """Elements of one layer's matrices, which are what tensor parallelism divides and what costs time."""
        attention = 2 * self.hidden * self.heads * self.head + 2 * self.hidden * self.groups * self.head
        return attention + 3 * self.hidden * self.intermediate

    @property
    def embedding(self) -> int:
        """Elements of the embedding, and of the output layer."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole model, as its weight files hold it."""
        return self.layers * self.layer(1) + self.hidden + self.embedding * (1 if self.tied else 2)

    def layer(self, tp: int) -> int:
        """Parameters of one layer on one of ``tp`` ranks: matrices and biases are divided, norms are on each."""
        bias = (self.heads + 2 * self.groups) * self.head if self.qkv_bias else 0
        return (self.matrices + bias) // tp + (2 * self.head if self.qk_norm else 0) + 2 * self.hidden

    def stage(self, tp: int, layers: Sequence[int], stage: int) -> int:
        """Parameters that one tensor-parallel rank of a pipeline's stage holds.

        The first stage has the embedding, the last one the final norm and the output layer: a matrix of its own, or,
        where the two are tied, the embedding once more unless the first stage is the last.

        Args:
            tp: Tensor-parallel size.
            layers: Layers of each stage, ``stage_layers``.
            stage: Which one.
        """
        count = layers[stage] * self.layer(tp)
        if stage == 0:
            count += self.embedding // tp
        if stage == len(layers) - 1:
            count += self.hidden
            if len(layers) > 1 or not self.tied:
                count += self.embedding // tp
        return count

    def critic_stage(self, tp: int, layers: Sequence[int], stage: int) -> int:
        """The same of a critic made from it: one row, on every rank, has the output layer's place."""
        count = layers[stage] * self.layer(tp)
        if stage == 0:
            count += self.embedding // tp
        return count + (2 * self.hidden if stage == len(layers) - 1 else 0)

    @property
    def critic(self) -> int:
        """Parameters of a critic made from it, as its weight files hold them."""
        return self.layers * self.layer(1) + 2 * self.hidden + self.embedding

    def cache(self, tp: int) -> int:
        """Bytes of vLLM's cache for one token on one of ``tp`` ranks, bf16; a head that cannot be divided is copied."""
        return 2 * 2 * self.layers * max(1, self.groups // tp) * self.head


Ends = tuple[int | None, int | None]
"""Layers of a pipeline's first and last stage; None: as many as the others."""


def stage_layers(shape: Shape, pp: int, first: int | None = None, last: int | None = None) -> tuple[int, ...]:
    """Layers of each pipeline stage, as megatron-core deals them.

    Args:
        shape: The model.
        pp: Stages.
        first: ``num_layers_in_first_pipeline_stage``, where the configuration sets it.
        last: The same of the last stage.

    Raises:
        ConfigError: the layers cannot be dealt.
    """
    ends = [size for size in (first, last) if size is not None]
    rest, stages = shape.layers - sum(ends), pp - len(ends)
    if not ends and (stages > shape.layers or shape.layers % stages):
        raise ConfigError(
            f"{shape.name}: its num_hidden_layers {shape.layers} cannot be divided by pipeline_model_parallel_size "
            f"{pp}; choose one of {_divisors(shape.layers)}"
        )
    if ends and (pp < 2 or min(ends) < 1 or stages < 0 or (rest % stages or rest < stages if stages else rest)):
        told = " and ".join(f"num_layers_in_{end}_pipeline_stage {size}" for end, size in (("first", first),
                            ("last", last)) if size is not None)  # fmt: skip
        raise ConfigError(
            f"{shape.name}: its num_hidden_layers {shape.layers} cannot be dealt to pipeline_model_parallel_size {pp} "
            f"with {told}; the other stages need the same number of layers each, at least one"
        )
    middle = [rest // stages] * stages if stages else []
    return tuple([*([first] if first is not None else []), *middle, *([last] if last is not None else [])])


def undivided(shape: Shape, tp: int) -> str | None:
    """Why Megatron cannot split the model over ``tp`` ranks; None where it can."""
    for name, value in (
        ("num_attention_heads", shape.heads),
        ("num_key_value_heads", shape.groups),
        ("intermediate_size", shape.intermediate),
        ("vocab_size", shape.vocab),
    ):
        if value % tp:
            return f"its {name} {value} cannot be divided by tensor_model_parallel_size {tp}"
    return None


def unserved(shape: Shape, tp: int) -> str | None:
    """Why vLLM cannot split the model over ``tp`` ranks; None where it can. It pads vocabularies and copies heads."""
    if shape.heads % tp or shape.intermediate % tp or (shape.groups % tp and tp % shape.groups):
        return (
            f"its {shape.heads} heads, {shape.groups} key-value heads and intermediate_size {shape.intermediate} "
            f"cannot be divided by rollout.tensor_model_parallel_size {tp}"
        )
    return None


def check_divides(shape: Shape, tp: int, pp: int, rollout_tp: int | None, ends: Ends = (None, None)) -> None:
    """Raise where Megatron or vLLM cannot split the model.

    Args:
        shape: The model.
        tp: Megatron's tensor-parallel size.
        pp: Its pipeline stages.
        rollout_tp: vLLM's tensor-parallel size; None where there is none.
        ends: Layers of the first and the last stage where the configuration sets them, ``job.ends_of``.

    Raises:
        ConfigError: says which number cannot be divided by which, and what can.
    """
    fitting = [str(size) for size in (1, 2, 4, 8, 16) if undivided(shape, size) is None]
    with all_told() as found:
        if (reason := undivided(shape, tp)) is not None:
            found.add(ConfigError(f"{shape.name}: {reason}; choose one of {', '.join(fitting)}"))
        with found.noted():
            stage_layers(shape, pp, *ends)
        if rollout_tp is not None and (reason := unserved(shape, rollout_tp)) is not None:
            found.add(ConfigError(f"{shape.name}: {reason}; choose another one"))


def _divisors(number: int) -> str:
    return ", ".join(str(size) for size in range(1, 17) if number % size == 0)


def known_shape(name: str) -> Shape | None:
    """A model by its name, with or without its publisher's, in any case; None where it is not in the list."""
    short = name.rstrip("/").rsplit("/", 1)[-1].lower().removesuffix("-instruct")
    if short not in KNOWN:
        return None
    architecture, layers, hidden, intermediate, heads, groups, head, vocab, tied, context = KNOWN[short]
    family = FAMILIES[architecture]
    return Shape(
        short, layers, hidden, intermediate, heads, groups, head, vocab, tied, family.qk_norm, family.qkv_bias, context
    )


def shape_of(model: Mapping[str, Any], where: str) -> Shape:
    """The shape that a config.json describes.

    Args:
        model: Its content.
        where: For the sentence, and the shape's name.

    Raises:
        ConfigError: it is of no decoder that MedSeRL knows, or a number in it is none.
    """
    family = family_of(model)
    if family is None:
        named = model.get("architectures")
        found = ", ".join(map(str, named)) if isinstance(named, list) and named else "no architecture"
        raise ConfigError(f"{where}: describes {found}; MedSeRL plans {', '.join(FAMILIES)}")
    if reason := obstacle(model):
        raise ConfigError(f"{where}: {reason}; use another model")
    numbers = {name: _number(model, name, where) for name in _NUMBERS}
    heads, hidden = numbers["num_attention_heads"], numbers["hidden_size"]
    groups = _number(model, "num_key_value_heads", where, heads)
    if heads % groups:
        raise ConfigError(f"{where}: num_attention_heads {heads} cannot be divided by num_key_value_heads {groups}")
    if model.get("head_dim") is None and hidden % heads:
        raise ConfigError(f"{where}: hidden_size {hidden} cannot be divided by num_attention_heads {heads}")
    context = model.get("max_position_embeddings")
    if context is not None:
        context = _number(model, "max_position_embeddings", where)
    tied = model.get("tie_word_embeddings")
    if tied is not None and not isinstance(tied, bool):
        raise ConfigError(
            f"{where}: tie_word_embeddings is {tied!r}, true or false is needed; copy the model's own file"
        )
    return Shape(
        name=where,
        layers=numbers["num_hidden_layers"],
        hidden=hidden,
        intermediate=numbers["intermediate_size"],
        heads=heads,
        groups=groups,
        head=_number(model, "head_dim", where, hidden // heads),
        vocab=numbers["vocab_size"],
        tied=bool(tied),
        qk_norm=family.qk_norm,
        qkv_bias=family.qkv_bias,
        context=context,
    )


def _number(model: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
    value = model.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        told = "is missing" if value is None else f"is {value!r}"
        raise ConfigError(f"{where}: {name} {told}, a whole number above 0 is needed; copy the model's own file")
    return value


def find_shape(name: str, option: str) -> Shape:
    """A model by its name in ``KNOWN``, its directory, or its config.json.

    Args:
        name: What the user gave.
        option: Where, for the sentence.

    Raises:
        ConfigError: there is no such model, or its file is none.
    """
    if not name:
        raise ConfigError(
            f"{option} '': is empty; give a model's folder, its config.json, or one of {', '.join(KNOWN)}"
        )
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    elif not path.is_file():
        if (shape := known_shape(name)) is not None:
            return shape
        near = get_close_matches(name.lower().rsplit("/", 1)[-1], KNOWN, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{option} {name}: no such file, and no model known by name; {hint}known: {', '.join(KNOWN)}")
    try:
        model = read_json(path)
    except OSError as error:
        raise ConfigError(f"{option} {name}: {path} cannot be read ({error.strerror}); give a config.json") from None
    except ValueError as error:
        what = f"not JSON (line {error.lineno})" if isinstance(error, json.JSONDecodeError) else "not UTF-8 text"
        raise ConfigError(f"{option} {name}: {path} is {what}; copy the model's own file there") from None
    if not isinstance(model, dict):
        raise ConfigError(f"{option} {name}: {path} is not a model's configuration; copy the model's own file there")
    return shape_of(model, str(path.parent if path.name == "config.json" else path))
