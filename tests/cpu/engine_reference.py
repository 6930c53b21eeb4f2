"""The case of the engine tests: a tiny model, a batch, a schedule, and what plain Hugging Face does.

``python engine_reference.py DIRECTORY`` writes the model and ``reference_PRECISION.pt`` there.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import torch

STEPS = 5
SAVE_AFTER = 3
LR, MIN_LR, WARMUP_FROM, WARMUP_STEPS, DECAY_STEPS = 2e-3, 2e-4, 2e-4, 2, 8
CLIP, BETAS, EPS, WEIGHT_DECAY = 1.0, (0.9, 0.999), 1e-8, 0.01
VOCABULARY = 512
# Unequal lengths: padded in different ways in each micro-batch, and to a multiple of TP.
LENGTHS = (17, 30, 9, 23, 12, 5, 28, 16)
MICRO_BATCH = 2
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def sequences() -> list[torch.Tensor]:
    """LENGTHS sequences of token ids, int64 [length]; never the padding token (0).

    Hugging Face gives that row of the embedding no gradient from the input side; Megatron knows no such row.
    """
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator) for n in LENGTHS]


def loss_masks() -> list[torch.Tensor]:
    """1 where a position's prediction counts: all but the first third (a prompt) and the last one."""
    masks = []
    for n in LENGTHS:
        mask = torch.ones(n, dtype=torch.long)
        mask[: n // 3] = 0
        mask[-1] = 0
        masks.append(mask)
    return masks


def learning_rate(step: int) -> float:
    """megatron's schedule at update ``step`` (from 0): linear warm-up, then cosine decay."""
    if step <= WARMUP_STEPS:
        return WARMUP_FROM + (LR - WARMUP_FROM) * step / WARMUP_STEPS
    done = min(1.0, (step - WARMUP_STEPS) / (DECAY_STEPS - WARMUP_STEPS))
    return MIN_LR + (LR - MIN_LR) * 0.5 * (1 + math.cos(math.pi * done))


# --- a model, and what plain Hugging Face and torch make of it ---------------------------------------


# Sizes that TP 2 and PP 2 divide, grouped queries, a base of rotary positions that is not the usual one, and weights
# large enough that each of them matters.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e4},
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}


def make_model(directory: Path, config: Any) -> None:
    """A random model of a configuration, float32 on disk, and a tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<pad>")), pad_token="<pad>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:  # these start at one and zero; make each of them different
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def plain_log_probs(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """float32 [length]: log-probability of each next token; 0 at the last position."""
    logits = model(input_ids=ids[None]).logits[0, :-1].float()
    picked = torch.log_softmax(logits, -1).gather(-1, ids[1:, None])[:, 0]
    return torch.cat([picked, picked.new_zeros(1)])


class Plain:
    """A Hugging Face model in one precision, trained by torch.optim.AdamW with float32 masters."""

    def __init__(self, path: Path, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
        self.masters = {n: p.detach().float().clone() for n, p in self.model.named_parameters()}
        decayed = [m for m in self.masters.values() if m.dim() > 1]
        others = [m for m in self.masters.values() if m.dim() == 1]
        self.adam = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
            betas=BETAS,
            eps=EPS,
        )

    def log_probs(self) -> list[torch.Tensor]:
        with torch.no_grad():
            return [plain_log_probs(self.model, ids) for ids in sequences()]

    def backward(self) -> tuple[float, dict[str, torch.Tensor]]:
        """The loss over the whole batch, and its gradients summed in float32, sequence by sequence."""
        total = sum(int(mask.sum()) for mask in loss_masks())
        gradients = {n: torch.zeros_like(m) for n, m in self.masters.items()}
        whole = 0.0
        for ids, mask in zip(sequences(), loss_masks(), strict=True):
            self.model.zero_grad()
            loss = -(plain_log_probs(self.model, ids) * mask).sum() / total
            loss.backward()
            whole += loss.item()
            for name, parameter in self.model.named_parameters():
                gradients[name] += parameter.grad.float()
        return whole, gradients

    def step(self, number: int) -> tuple[float, float]:
        """One update; returns the loss before it and the norm of its gradient before clipping."""
        loss, gradients = self.backward()
        for name, master in self.masters.items():
            master.grad = gradients[name]
        norm = torch.nn.utils.clip_grad_norm_(list(self.masters.values()), CLIP).item()
        for group in self.adam.param_groups:
            group["lr"] = learning_rate(number)
        self.adam.step()
        for name, parameter in self.model.named_parameters():
            parameter.data.copy_(self.masters[name])
        return loss, norm

    def state(self) -> dict[str, dict[str, torch.Tensor]]:
        return {
            n: {"master": m.detach(), **{k: self.adam.state[m][k] for k in ("exp_avg", "exp_avg_sq")}}
            for n, m in self.masters.items()
        }


def reference(directory: Path) -> None:
    from transformers import Qwen3Config

    make_model(directory / "model", Qwen3Config(**SIZES, head_dim=32))
    for name, dtype in PRECISIONS.items():
        plain = Plain(directory / "model", dtype)
        found: dict[str, Any] = {"log_probs": plain.log_probs()}
        found["loss"], found["gradients"] = plain.backward()
        found["start"] = {n: m.clone() for n, m in plain.masters.items()}
        found["curve"] = [plain.step(i) for i in range(STEPS)]
        found["state"] = plain.state()
        torch.save(found, directory / f"reference_{name}.pt")


if __name__ == "__main__":
    from engine_families import family_references

    reference(Path(sys.argv[1]))
    family_references(Path(sys.argv[1]))
