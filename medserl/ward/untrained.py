"""The tiny model before its warm start: the ward's tokenizer, and seeded weights that can copy.

Two heads of the weights are written by hand so that they copy (`medserl.ward.wiring`) and sharpened by some steps of
copying random words, in plain torch; nothing of the game is learnt here. `medserl sft` does the rest.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from medserl.game.prompts import load_prompt_set
from medserl.ward.demonstrations import PROMPT_SET, Mixture, demonstration_batches
from medserl.ward.generator import ward_cases
from medserl.ward.table import Table, load_table
from medserl.ward.tokenizer import MAX_LENGTH, VOCAB_SIZE, build_tokenizer, save_tokenizer
from medserl.ward.wiring import wire_copying_heads

HIDDEN_SIZE, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE_SIZE = 96, 4, 4, 2, 32, 256
_TOKENIZER_NOTES = 6000
_COPY_STEPS, _COPY_ROWS, _COPY_TOKENS, _COPY_WORDS = 150, 32, 64, 256
_COPY_RATE = 3e-3


def write_untrained(directory: Path, seed: int) -> None:
    """Write model and tokenizer to ``directory`` in Hugging Face's format (weights float32).

    The same seed, machine and versions give the same weights.
    """
    directory.mkdir(parents=True)
    tokenizer = make_tokenizer(load_table(), directory)
    model = make_model(tokenizer, seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        practise_copying(model, tokenizer, seed)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(directory)
    config = {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    (directory / "generation_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def make_tokenizer(table: Table, directory: Path) -> PreTrainedTokenizerFast:
    """Build the ward's tokenizer, write it to ``directory`` and read it back."""
    prompts = load_prompt_set(PROMPT_SET)
    cases = ward_cases("train", _TOKENIZER_NOTES, 0, table)
    texts = [text for gold in cases for text in (gold.case.text, gold.error.apply(gold.case))]
    # Both prompts and answers, twice, so that their words count as repeated; numbers: sentence indices and counts.
    for batch in islice(demonstration_batches(table, cases, prompts, Mixture(), 0), 20):
        texts += [text for demo in batch for text in (demo.messages[-1]["content"], demo.answer)]
    texts += [f"{i} {i}\n{i}\n" for i in range(10)]
    save_tokenizer(build_tokenizer(texts, VOCAB_SIZE), directory)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory)
    return tokenizer


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """Seeded float32 weights with the copying heads wired."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=INTERMEDIATE_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=MAX_LENGTH,
        rope_theta=1e6,
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    wire_copying_heads(model, seed)
    return model


def practise_copying(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int) -> list[float]:
    """Sharpen the copying heads on random words; returns the loss of every step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=_COPY_RATE, betas=(0.9, 0.95), weight_decay=0.01)
    losses = []
    for step, (ids, targets) in enumerate(islice(copy_batches(tokenizer, seed), _COPY_STEPS)):
        for group in optimizer.param_groups:
            group["lr"] = _COPY_RATE * min(1.0, (step + 1) / 40)
        hidden = model.model(input_ids=ids).last_hidden_state
        asked = targets >= 0
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[asked]), targets[asked])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def copy_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of random words that repeat after 8 to 23 tokens: ids and targets, int64 [32, 63]; -100 asks for nothing.

    Each batch draws from its own few words, or a model would learn which words there are before it learns to copy.
    """
    generator = torch.Generator().manual_seed(seed)
    words = torch.arange(len(ByteLevel.alphabet()), tokenizer.pad_token_id)
    while True:
        pool = words[torch.randperm(len(words), generator=generator)[:_COPY_WORDS]]
        period = int(torch.randint(8, 24, (1,), generator=generator))
        segment = pool[torch.randint(0, _COPY_WORDS, (_COPY_ROWS, period), generator=generator)]
        ids = segment.repeat(1, _COPY_TOKENS // period + 1)[:, :_COPY_TOKENS]
        targets = ids[:, 1:].clone()
        targets[:, :period] = -100  # nothing says what the words are, nor that they start again
        yield ids[:, :-1], targets
