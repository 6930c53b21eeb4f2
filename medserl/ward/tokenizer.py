"""The tiny model's tokenizer: whole words and numbers of the ward, bytes for everything else.

Byte-level BPE (`tokenizers`) whose vocabulary holds the ward's words without the merges that would build them:
``ignore_merges`` makes a word that is in the vocabulary one token, and any other text falls back to a few
merges and then to bytes, so every text survives encoding and decoding. The added tokens are those of Qwen3
(https://huggingface.co/Qwen/Qwen3-4B, tokenizer_config.json), after the vocabulary as there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from medserl.ward.table import Table

VOCAB_SIZE = 1792
"""Tokens in all, added ones included: equal to the model's vocab_size, and a multiple of 128."""

MAX_LENGTH = 1024
_MIN_COUNT = 2  # a piece that is seen once is no word of the ward
_PIECES = r"[ \-]?[\p{L}_]+(?:-\p{L}+)*| ?\p{N}{1,4}|\n+| ?[^\s\p{L}\p{N}_]|\s"
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
            "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
            "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")  # fmt: skip
_VISIBLE = ("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
            "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>")  # fmt: skip
"""Added tokens that Qwen3 does not skip when it decodes without special tokens."""

CHAT_TEMPLATE = """\
{%- for message in messages %}
{%- set content = message.content | default('') %}
{%- if message.role == 'assistant' and '</think>' in content and not loop.last %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}
{%- endif %}
{{- '<|im_start|>' + (message.role | default('user')) + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}
{{- '<think>\\n\\n</think>\\n\\n' }}
{%- endif %}
{%- endif %}
"""
"""Qwen3's turns and its ``enable_thinking`` switch; tools, which the game does not use, are left out."""


def build_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """A tokenizer of exactly ``vocab_size`` tokens that has every repeated piece of ``texts`` as a whole token.

    What room the words leave is filled with merges. Deterministic. Raises ValueError where the words do not fit
    or the merges run out.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    cutter = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PIECES), "isolated"), byte_level])
    counts = Counter(piece for text in texts for piece, _ in cutter.pre_tokenize_str(text))
    words = sorted(piece for piece, count in counts.items() if count >= _MIN_COUNT)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = vocab_size - len(_SPECIAL) - len(_VISIBLE) - len(set(alphabet) | set(words))
    if room < 0:
        raise ValueError(f"{len(words)} words do not fit into {vocab_size} tokens: {-room} too many")
    merges = _learn_merges(words, room)
    vocabulary = list(dict.fromkeys([*alphabet, *(left + right for left, right in merges), *words]))
    tokenizer = Tokenizer(
        models.BPE(vocab={word: i for i, word in enumerate(vocabulary)}, merges=merges, ignore_merges=True)
    )
    tokenizer.pre_tokenizer = cutter
    tokenizer.decoder = decoders.ByteLevel()
    for name in _SPECIAL:
        tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)])
    for name in _VISIBLE:
        tokenizer.add_tokens([AddedToken(name, special=False, normalized=False)])
    return tokenizer


def table_texts(table: Table) -> list[str]:
    """Every phrase and sentence pattern of the table twice, so that `build_tokenizer` takes its words as repeated.

    Also those that no training note has: a held-out phrasing of whole words measures what a model makes of it, one
    cut into bytes what its tokenizer does.
    """
    phrases = [phrase for named in table.concepts.values() for group in named.values() for phrase in group]
    for c in table.conditions.values():
        phrases += [phrase for group in (*c.exam, c.test) for phrase in group]
    patterns = [pattern for group in table.sentences.values() for pattern in group]
    texts = [f" {phrase}." for phrase in phrases] + patterns
    return [text for text in (re.sub(r"\{\w+\}", "left", text) for text in texts) for _ in range(2)]


def _learn_merges(spelt: list[str], count: int) -> list[tuple[str, str]]:
    """The most frequent merges of byte-pair encoding (Sennrich et al. 2016) that make ``count`` new tokens.

    Each word counts once: the merges serve words that the ward does not have, so its own frequencies do not
    matter.
    """
    words = [list(word) for word in spelt]
    known = set(spelt)
    merges: list[tuple[str, str]] = []
    while count > 0:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            raise ValueError(f"the words give {count} merges too few to fill the vocabulary")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        count -= "".join(best) not in known
        known.add("".join(best))
        words = [_merge(word, best) for word in words]
    return merges


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def save_tokenizer(tokenizer: Tokenizer, directory: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja as transformers reads them."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": MAX_LENGTH,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
