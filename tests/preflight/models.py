"""Model directories that pass every check before a start and are next to nothing: made without torch."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from medserl.families import FAMILIES
from medserl.run.weights import expected

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""As Qwen2.5's and SmolLM2's: without ``enable_thinking``."""
SIZES = {
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}


def make_model(
    folder: Path, architecture: str = "LlamaForCausalLM", template: str | None = CHATML, **changed: Any
) -> Path:
    """A directory with config.json, weights of zeros and a tokenizer of words, all of them unknown; returns it."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "word": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|im_end|>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    family = FAMILIES.get(architecture)
    config = {
        "architectures": [architecture],
        "model_type": family.model_type if family else "other",
        **SIZES,
        "vocab_size": 16,
        "tie_word_embeddings": True,
        **changed,
    }
    (folder / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    end = 0
    for name, shape in expected(config).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
    return folder


def split_weights(folder: Path) -> dict[str, str]:
    """Have two numbered files and their index in the place of a model's weights; returns which tensor is in which."""
    whole = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    header.pop("__metadata__", None)
    names, files = sorted(header), dict[str, str]()
    for number, part in enumerate((names[::2], names[1::2]), 1):
        own, data = {}, b""
        for name in part:
            begin, end = header[name]["data_offsets"]
            piece = whole[8 + length + begin : 8 + length + end]
            own[name] = {**header[name], "data_offsets": [len(data), len(data) + len(piece)]}
            data += piece
            files[name] = f"model-0000{number}-of-00002.safetensors"
        text = json.dumps(own).encode()
        (folder / files[part[0]]).write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "model.safetensors").unlink()
    write_index(folder, files)
    return files


def write_index(folder: Path, files: dict[str, Any]) -> None:
    """The index of weights in several files."""
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def real_notes(path: Path, count: int = 12, gold: bool = True) -> Path:
    """Notes as people write them, none of them anybody's; with a gold error where ``gold``."""
    text = (
        "Mrs. {0} was seen for follow-up in the outpatient department. She reports intermittent palpitations since "
        "March, worse when climbing stairs. Auscultation reveals an irregular rhythm without murmurs. "
        "Anticoagulation with apixaban 5 mg was started {0} days ago. She will return for echocardiography."
    )
    rows = []
    for number in range(count):
        note = {"note_id": f"n{number}", "text": text.format(number + 2)}
        if gold:
            right = note.pop("text")
            note |= {"correct_note": right, "incorrect_note": right.replace("apixaban", "aspirin")}
        rows.append(json.dumps(note) + "\n")
    path.write_text("".join(rows))
    return path
