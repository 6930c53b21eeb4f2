"""The token that ends a reply: the chat template's where servers stop at it, else the tokenizer's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from medserl.config.chat_template import end_of_reply
from tests.preflight.models import CHATML, make_model

ENDS = (
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)
REFUSES = "{% if messages[-1]['role'] == 'assistant' %}{{ raise_exception('no') }}{% endif %}"


@pytest.mark.parametrize(
    ("template", "eos", "stops", "expected"),
    [
        (CHATML, "<|im_end|>", None, "<|im_end|>"),
        (CHATML, "<|endoftext|>", 3, "<|im_end|>"),  # Qwen2.5 out of a GGUF file
        (CHATML, "<|im_start|>", [3, 4], "<|im_end|>"),  # SmolLM2 out of one
        (CHATML, "<|endoftext|>", 4, "<|endoftext|>"),  # no server would stop at the template's
        (CHATML, "<|endoftext|>", None, "<|endoftext|>"),
        (ENDS, "<|endoftext|>", 3, "<|endoftext|>"),
        ("{{ messages[-1]['content'] }}", "<|endoftext|>", 3, "<|endoftext|>"),
        (REFUSES, "<|endoftext|>", 3, "<|endoftext|>"),
    ],
)
def test_the_token_that_ends_a_reply(
    tmp_path: Path, template: str, eos: str, stops: int | list[int] | None, expected: str
) -> None:
    model = make_model(tmp_path / "model", template=template)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_special_tokens({"eos_token": "<|im_start|>", "pad_token": "<|endoftext|>"})
    tokenizer.add_tokens(["<|im_end|>", "<|endoftext|>"], special_tokens=True)
    tokenizer.eos_token = eos
    numbers = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<|im_end|>", "<|endoftext|>")}
    if stops is not None:
        wanted = [numbers["<|im_end|>"] if stop == 3 else numbers["<|endoftext|>"] for stop in (
            stops if isinstance(stops, list) else [stops])]  # fmt: skip
        given = wanted if isinstance(stops, list) else wanted[0]
        (model / "generation_config.json").write_text(json.dumps({"eos_token_id": given}))
    assert tokenizer.convert_ids_to_tokens(end_of_reply(tokenizer)) == expected
