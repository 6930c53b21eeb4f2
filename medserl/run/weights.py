"""Weight files in Hugging Face's format, looked at by their headers: whole, and of the shape that config.json says.

The form of a ``.safetensors`` file: eight bytes with the header's length, the header (JSON: name, dtype, shape and
place of each tensor), the tensors (https://github.com/huggingface/safetensors). No torch; a header is read in
milliseconds.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from medserl.families import FAMILIES, family_of, head_width
from medserl.files import read_json

INDEX = "model.safetensors.index.json"
HEAD = "lm_head.weight"
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the format's own library
_LFS = b"version https://git-lfs"
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
_LAYER = re.compile(r"^model\.layers\.(\d+)\.")

Shapes = dict[str, tuple[int, ...]]


_GGUF = (
    "a model directory is made of one by transformers (AutoModelForCausalLM and AutoTokenizer, from_pretrained(FOLDER, "
    "gguf_file=NAME), then save_pretrained)"
)


def stranger(path: Path) -> str | None:
    """What stands where a model directory should, in a phrase with what to do, where people take it for one."""
    if path.is_symlink() and not path.exists():
        return "is a symbolic link that leads nowhere; give the model's directory"
    if path.is_file():
        if path.suffix.lower() == ".gguf" or _begins_with(path, b"GGUF"):
            return f"is a GGUF file; {_GGUF}"
        return "is a file; give the model's directory"
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        return "holds an adapter (LoRA), no model; merge it into its model (peft: merge_and_unload) and save that"
    if any(path.glob("*.gguf")) and not any(path.glob("*.safetensors")):
        return f"holds a GGUF file and no other weights; {_GGUF}"
    if (path / "params.json").is_file() and any(path.glob("consolidated*.safetensors")):
        return (
            "holds params.json and consolidated*.safetensors, which vLLM reads instead of config.json and its weights; "
            "move these away"
        )
    return None


def _begins_with(file: Path, mark: bytes) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(len(mark)) == mark
    except OSError:
        return False


class DamagedWeights(ValueError):
    """Weight files that cannot be loaded; the sentence names the file."""


class WrongLength(DamagedWeights):
    """A file that has fewer or more bytes than its header says."""


def weight_shapes(folder: Path) -> Shapes:
    """Shape of every tensor of a model directory by its name.

    Raises:
        DamagedWeights: no weights, an index that `indexed` refuses or that is gone, a shard that it names is missing or
            lacks a tensor, a file that is cut, empty, a directory, a pointer of git-lfs, or none of this format.
    """
    promised = indexed(folder)
    shapes: Shapes = {}
    lacking = []
    for file in _files(folder, promised):
        own = {name: tuple(entry["shape"]) for name, entry in header(file).items()}
        lacking += [(file, name) for name in sorted(promised.get(file.name, set()) - own.keys())]
        shapes |= own
    for file, name in lacking:
        if name != HEAD or name in shapes:  # a tied model's index may name a head that is nowhere: `misfit` knows
            raise DamagedWeights(not_in_shard(file, name))
    return shapes


def indexed(folder: Path) -> dict[str, set[str]]:
    """Names of the tensors of each file that the index lists; empty where there is no index.

    Raises:
        DamagedWeights: an index that lists nothing, or another thing than files right in the folder: checkpoints are
            written under the names of the index, and would go to where such a name leads.
    """
    index = folder / INDEX
    if not index.exists():
        return {}
    found: dict[str, set[str]] = {}
    try:
        places = list(read_json(index)["weight_map"].items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise DamagedWeights(f"its {INDEX} is damaged") from None
    for tensor, name in places:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise DamagedWeights(f"its {INDEX} names {name!r}, which is no .safetensors file right in the folder")
        found.setdefault(name, set()).add(tensor)
    if not found:
        raise DamagedWeights(f"its {INDEX} names no weights")
    return found


def not_in_shard(file: Path, tensor: str) -> str:
    """A phrase for a tensor that is not where the index says."""
    return f"{file.name} lacks {tensor}, which {INDEX} promises"


def _files(folder: Path, promised: Collection[str]) -> list[Path]:
    if promised:
        if missing := sorted(name for name in promised if not (folder / name).is_file()):
            raise DamagedWeights(f"lacks {', '.join(missing[:3])}, which {INDEX} names")
        return [folder / name for name in sorted(promised)]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DamagedWeights("has no weights (*.safetensors)")
    if all(file.name.startswith("consolidated") for file in files):
        raise DamagedWeights(f"holds {files[0].name}, which is in Mistral's own format, and no model*.safetensors")
    if shard := next((file for file in files if _SHARD.search(file.name)), None):
        raise DamagedWeights(f"holds {shard.name}, one of several files, and no {INDEX}, which names them")
    return files


def header(file: Path) -> dict[str, Any]:
    """Name, dtype, shape and place of each tensor of a file.

    Raises:
        DamagedWeights: as `weight_shapes`.
    """
    if not file.is_file():
        raise DamagedWeights(f"{file.name} is not a file")
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(max(8, len(_LFS)))
        if start.startswith(_LFS):
            raise DamagedWeights(f"{file.name} is a pointer of git-lfs; fetch the weights (git lfs pull)")
        length = struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
        if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
            raise DamagedWeights(f"{file.name} is empty, cut off or no safetensors file ({size} bytes)")
        opened.seek(8)
        text = opened.read(length)
    try:
        found = {name: entry for name, entry in json.loads(text).items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for entry in found.values()), default=0)
        for entry in found.values():
            tuple(map(int, entry["shape"]))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise DamagedWeights(f"{file.name} is not a safetensors file (its header cannot be read)") from None
    if size - 8 - length != end:
        raise WrongLength(f"{file.name} holds {size - 8 - length} bytes of weights instead of {end}")
    return found


def misfit(shapes: Shapes, config: Mapping[str, Any]) -> str | None:
    """Where the weights of a model of a known family are not those that config.json describes, in a phrase; else None.

    Args:
        shapes: Of `weight_shapes`.
        config: Content of config.json, its numbers checked.
    """
    layers = 1 + max((int(found[1]) for name in shapes if (found := _LAYER.match(name))), default=-1)
    if layers != config["num_hidden_layers"]:
        return f"the weights have {layers} layers, config.json says num_hidden_layers {config['num_hidden_layers']}"
    for name, shape in expected(config).items():
        if name not in shapes:
            return f"the weights have no {name}"
        if shapes[name] != shape:
            return f"{name} is {list(shapes[name])} in the weights and {list(shape)} by config.json"
    return None


def index_misfit(promised: Mapping[str, Collection[str]], config: Mapping[str, Any]) -> str | None:
    """Where an index does not name the tensors of the model that config.json describes, in a phrase; else None.

    What it does not name is not found in a start. A file of which it names a tensor too many is left out of every
    checkpoint, which waits for all of them (mbridge 0.15.1, core/safetensor_io.py, save_hf_weight).

    Args:
        promised: Of `indexed`.
        config: Content of config.json, its numbers checked.
    """
    if not promised:
        return None
    named, wanted = {tensor for tensors in promised.values() for tensor in tensors}, expected(config).keys()
    if lacking := sorted(wanted - named):
        return f"its {INDEX} does not name {lacking[0]}"
    if strange := sorted(named - wanted - {HEAD}):
        return (
            f"its {INDEX} names {strange[0]}, which the model that config.json describes has not (transformers' "
            "from_pretrained and save_pretrained write the model without it)"
        )
    return None


def expected(config: Mapping[str, Any]) -> Shapes:
    """Names and shapes of the tensors of a model of a known family, as transformers names them."""
    family = family_of(config) or FAMILIES["Qwen3ForCausalLM"]
    hidden, inner, words = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    head = head_width(config)
    shapes: Shapes = {"model.embed_tokens.weight": (words, hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings"):
        shapes[HEAD] = (words, hidden)
    for layer in range(config["num_hidden_layers"]):
        for name, shape in (
            ("input_layernorm", (hidden,)),
            ("post_attention_layernorm", (hidden,)),
            ("self_attn.q_proj", (heads * head, hidden)),
            ("self_attn.k_proj", (groups * head, hidden)),
            ("self_attn.v_proj", (groups * head, hidden)),
            ("self_attn.o_proj", (hidden, heads * head)),
            ("mlp.gate_proj", (inner, hidden)),
            ("mlp.up_proj", (inner, hidden)),
            ("mlp.down_proj", (hidden, inner)),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
        attention = f"model.layers.{layer}.self_attn"
        if family.qk_norm:
            shapes |= {f"{attention}.{name}_norm.weight": (head,) for name in "qk"}
        if family.qkv_bias:
            widths = {"q": heads * head, "k": groups * head, "v": groups * head}
            shapes |= {f"{attention}.{name}_proj.bias": (width,) for name, width in widths.items()}
    return shapes
