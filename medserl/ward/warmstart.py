"""Make the tiny model: Qwen3 architecture, trained on demonstrations until it plays, but not well.

``python -m medserl.ward.warmstart --out DIR`` builds tokenizer, model and ``recipe.json``; one thread, no GPU.
The same machine, versions and arguments give the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from medserl.game.labels import Label
from medserl.game.prompts import load_prompt_set
from medserl.ward.demonstrations import PROMPT_SET, Demonstration, Mixture, demonstration_batches, prompts_sha256
from medserl.ward.evaluate import Player, evaluate, token_lengths
from medserl.ward.generator import ward_cases, ward_notes
from medserl.ward.table import Table, load_table
from medserl.ward.tokenizer import MAX_LENGTH, VOCAB_SIZE, build_tokenizer, save_tokenizer, table_texts
from medserl.ward.wiring import wire_copying_heads

WEIGHTS = "model.safetensors"
_TOKENIZER_NOTES = 6000
_IGNORED = -100
_COPY_ROWS, _COPY_TOKENS, _COPY_WORDS = 32, 64, 256
_PROGRESS = 50
_VERSIONED = ("torch", "transformers", "tokenizers")
PARTS = ("answer", "text", "verdict")
"""Kinds of tokens that are learnt: of an answer, of a correct note in a prompt, the assessor's verdict."""


@dataclass(frozen=True)
class Recipe:
    """Every number that the warm start depends on."""

    seed: int = 1
    copy_steps: int = 150
    """Steps on repeated random tokens before the demonstrations."""
    steps: int = 800
    """Steps on demonstrations."""
    patients: int = 3000
    """Train patients that demonstrations are drawn from."""
    learning_rate: float = 3e-3
    warmup: int = 40
    weight_decay: float = 0.01
    text_weight: float = 1.0
    """Weight of the mean loss over the words of correct notes, against 1 for the rest of the answers."""
    verdict_weight: float = 1.0
    """Weight of the mean loss over the assessor's verdicts."""
    hidden_size: int = 96
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate_size: int = 256
    mixture: Mixture = field(default_factory=Mixture)


def make_tokenizer(table: Table, directory: Path) -> PreTrainedTokenizerFast:
    """Build the ward's tokenizer, write it to ``directory`` and read it back."""
    prompts = load_prompt_set(PROMPT_SET)
    cases = ward_cases("train", _TOKENIZER_NOTES, 0, table)
    texts = [text for gold in cases for text in (gold.case.text, gold.error.apply(gold.case))]
    # Both prompts and answers, twice, so that their words count as repeated; numbers: sentence indices and counts.
    batches = demonstration_batches(table, cases, prompts, Mixture(), 0)
    for batch in islice(batches, 20):
        texts += [text for demo in batch for text in (demo.messages[-1]["content"], demo.answer)]
    texts += [f"{i} {i}\n{i}\n" for i in range(10)] + table_texts(table)
    save_tokenizer(build_tokenizer(texts, VOCAB_SIZE), directory)
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory)
    return tokenizer


def make_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """The untrained model, float32, seeded, with its copying heads wired."""
    torch.manual_seed(recipe.seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.head_dim,
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
    wire_copying_heads(model, recipe.seed)
    return model


class Batch(NamedTuple):
    """Token ids with their targets, both int64 [rows, longest row - 1], padded at the right.

    ``targets[i, t]`` is the token after ``ids[i, t]`` where it is to be learnt, else -100. ``parts`` has the same
    shape and says what kind of token the target is: an index into `PARTS`.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    parts: torch.Tensor


class Encoder:
    """Turns demonstrations into batches."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._verdicts = {tokenizer.convert_tokens_to_ids(label.value) for label in Label}

    def batch(self, demonstrations: Sequence[Demonstration]) -> Batch:
        rows = [self._row(demonstration) for demonstration in demonstrations]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), self._tokenizer.pad_token_id)
        targets = torch.full((len(rows), width), _IGNORED)
        parts = torch.zeros((len(rows), width), dtype=torch.int64)
        for i, ((row, start), demonstration) in enumerate(zip(rows, demonstrations, strict=True)):
            ids[i, : len(row)] = torch.tensor(row)
            learnt = 0 if demonstration.note_is_right else start
            targets[i, learnt : len(row)] = ids[i, learnt : len(row)]
            parts[i, :start] = PARTS.index("text")
        answered = parts == PARTS.index("answer")
        for verdict in self._verdicts:
            parts[answered & (targets == verdict)] = PARTS.index("verdict")
        return Batch(ids[:, :-1], targets[:, 1:], parts[:, 1:])

    def _row(self, demonstration: Demonstration) -> tuple[list[int], int]:
        """Token ids of prompt and reply, and where the reply starts."""
        prompt = self._tokenizer.apply_chat_template(
            list(demonstration.messages),
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=demonstration.thinking,
        )
        ids = self._tokenizer.encode(prompt, add_special_tokens=False)
        reply = self._tokenizer.encode(demonstration.reply, add_special_tokens=False)
        return ids + reply + [self._tokenizer.eos_token_id], len(ids)


def training_losses(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of each of the `PARTS` (0 where the batch has none), float32 [len(PARTS)].

    No padding mask: the rows are padded at the right, where causal attention does not look.
    """
    hidden = model.model(input_ids=batch.ids).last_hidden_state
    chosen = batch.targets != _IGNORED
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), batch.targets[chosen], reduction="none")
    masks = torch.nn.functional.one_hot(batch.parts[chosen], len(PARTS)).float()
    return (losses @ masks) / masks.sum(0).clamp(min=1)


def copy_batches(tokenizer: PreTrainedTokenizerFast, seed: int) -> Iterator[Batch]:
    """Rows of random words that repeat after 8 to 23 tokens; the repetitions are the targets.

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
        targets[:, :period] = _IGNORED  # nothing says what the words are, nor that they start again
        yield Batch(ids[:, :-1], targets, torch.zeros_like(targets))


def train(model: Qwen3ForCausalLM, batches: Iterator[Batch], recipe: Recipe) -> torch.Tensor:
    """AdamW; the rate warms up, stays during the copying and decays as a cosine over the demonstrations.

    Returns the loss of every step, by `PARTS`: float32 [steps, len(PARTS)].
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    weights = torch.tensor([1.0, recipe.text_weight, recipe.verdict_weight])
    history = []
    total = recipe.copy_steps + recipe.steps
    started = time.process_time()
    model.train()
    for step in range(total):
        progress = max(0, step - recipe.copy_steps) / recipe.steps
        rate = min(1.0, (step + 1) / recipe.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        losses = training_losses(model, next(batches))
        optimizer.zero_grad(set_to_none=True)
        (losses @ weights).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(losses.detach())
        if (step + 1) % _PROGRESS == 0:
            print(f"step {step + 1}/{total}  {_means(history)}  {time.process_time() - started:.0f} CPU s", flush=True)
    model.eval()
    return torch.stack(history)


def _means(history: Sequence[torch.Tensor]) -> dict[str, float]:
    """Mean losses of the last steps, by part."""
    means = torch.stack(list(history[-_PROGRESS:])).mean(0).tolist()
    return {name: round(mean, 4) for name, mean in zip(PARTS, means, strict=True)}


def warm_start(recipe: Recipe, directory: Path, eval_count: int) -> dict[str, Any]:
    """Train, save to ``directory`` (in bfloat16) and measure; returns what recipe.json holds."""
    table = load_table()
    tokenizer = make_tokenizer(table, directory)
    model = make_model(recipe, tokenizer)
    cases = ward_cases("train", recipe.patients, recipe.seed, table)
    encoder = Encoder(tokenizer)
    prompts = load_prompt_set(PROMPT_SET)
    demonstrations = demonstration_batches(table, cases, prompts, recipe.mixture, recipe.seed)
    batches = chain(islice(copy_batches(tokenizer, recipe.seed), recipe.copy_steps), map(encoder.batch, demonstrations))
    started = time.process_time()
    losses = train(model, batches, recipe)
    seconds = time.process_time() - started
    model.to(torch.bfloat16).save_pretrained(directory)
    (directory / WEIGHTS).chmod(0o644)  # safetensors writes 0600; these weights are public
    _write_generation_config(directory, tokenizer)
    player = Player.load(directory)
    notes = ward_notes("validation", eval_count, recipe.seed, table)
    written = {
        "command": "python -m medserl.ward.warmstart --out DIR",
        "recipe": asdict(recipe),
        "table_sha256": table.sha256,
        "prompts_sha256": prompts_sha256(),
        "weights_sha256": sha256(directory / WEIGHTS),
        "tokenizer_sha256": sha256(directory / "tokenizer.json"),
        "parameters": model.num_parameters(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _VERSIONED}},
        "cpu_seconds": round(seconds),
        "loss": {"first": _means(list(losses[: recipe.copy_steps + 1])[-1:]), "last": _means(list(losses))},
        "measured": {
            "split": "validation", "notes": eval_count, "seed": recipe.seed,
            **(evaluate(player, notes, recipe.seed) if eval_count else {}),
            "tokens": token_lengths(player, notes) if eval_count else {},
        },
    }  # fmt: skip
    (directory / "recipe.json").write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    return written


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_generation_config(directory: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    config = {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    (directory / "generation_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write; replaced when all is done")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--label-noise", type=float, default=Mixture.label_noise)
    parser.add_argument("--eval-notes", type=int, default=300)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    recipe = Recipe(seed=arguments.seed, steps=arguments.steps, mixture=Mixture(label_noise=arguments.label_noise))
    out: Path = arguments.out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        written = warm_start(recipe, made, arguments.eval_notes)
        if out.exists():
            os.replace(out, Path(scratch) / "replaced")
        shutil.move(made, out)
    print(json.dumps(written["measured"], indent=2))


if __name__ == "__main__":
    main()
