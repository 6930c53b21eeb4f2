"""What padding costs on CPUs: rows as MEDEC has them through Megatron, padded and in micro-batches of like length.

usage: python benchmarks/padding.py [--rows N] [--repeats N]

A random Llama of 20 million parameters in verl's Megatron engine, one process, bf16: log-probabilities and an update of
the same rows with every row as long as the configured maximum of 1024 tokens, with every row as long as the longest of
them, and in micro-batches of like length, in turn. Prints seconds (the best of the repeats) and their ratios.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

MAXIMUM, MEAN, SPREAD, LEAST = 1024, 480, 140, 200
"""Tokens of a row: prompts of both roles on MEDEC-MS's notes with their replies (docs/real-models.md)."""
BUDGET = 1536
VOCABULARY = 8192


def lengths(rows: int) -> list[int]:
    """Lengths with the mean and spread of real rows, the same each time."""
    import random

    draw = random.Random(0)
    found = [min(MAXIMUM, max(LEAST, round(draw.gauss(MEAN, SPREAD)))) for _ in range(rows)]
    return [n + round(MEAN - sum(found) / rows) for n in found]


def make_engine(folder: Path) -> Any:
    """verl's engine on a random Llama, this process its only one."""
    import torch
    import torch.distributed as dist
    from transformers import LlamaConfig, LlamaForCausalLM
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import HFModelConfig, McoreEngineConfig, McoreOptimizerConfig
    from verl.workers.engine import EngineRegistry

    from medserl.cpu.megatron import OVERRIDE_TRANSFORMER_CONFIG

    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=MAXIMUM,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    _tokenizer().save_pretrained(folder / "model")
    engine = EngineRegistry.new(
        "language_model",
        "megatron",
        HFModelConfig(path=str(folder / "model"), use_remove_padding=False),
        McoreEngineConfig(
            sequence_parallel=False,
            vanilla_mbridge=True,
            use_remove_padding=False,
            pad_bshd_to_minibatch_max=False,
            override_transformer_config=dict(OVERRIDE_TRANSFORMER_CONFIG),
        ),
        McoreOptimizerConfig(optimizer="adam", lr=1e-5, total_training_steps=100),
        CheckpointConfig(),
    )
    engine.initialize()
    return engine


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(VOCABULARY)}
    made = Tokenizer(WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="w0", eos_token="w1")


def batch(sizes: list[int], shown: list[int]) -> Any:
    """The rows in micro-batches of at most BUDGET tokens, each as long as ``shown`` says, as if by padding."""
    import torch
    import verl.utils.tensordict_utils as tu
    from tensordict import TensorDict
    from verl.utils.dataset.dataset_utils import DatasetPadMode

    draw = torch.Generator().manual_seed(1)
    counted = [torch.cat([torch.ones(n), torch.zeros(s - n)]).long() for n, s in zip(sizes, shown, strict=True)]
    rows = {
        "input_ids": [torch.randint(2, VOCABULARY, (n,), generator=draw) for n in shown],
        "position_ids": [torch.arange(n) for n in shown],
        "loss_mask": counted,
    }
    nested = {name: torch.nested.as_nested_tensor(parts, layout=torch.jagged) for name, parts in rows.items()}
    data = TensorDict({**nested, "temperature": torch.ones(len(sizes))}, batch_size=len(sizes))
    tu.assign_non_tensor(
        data,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=BUDGET,
        pad_mode=DatasetPadMode.NO_PADDING,
        calculate_entropy=False,
        use_fused_kernels=False,
    )
    return data


def loss(model_output: dict[str, Any], data: Any, dp_group: Any) -> tuple[Any, dict[str, Any]]:
    """Minus the mean log-probability."""
    del dp_group
    return -(model_output["log_probs"].values() * data["loss_mask"].values()).sum() / data["batch_num_tokens"], {}


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure both ways in turn and print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    from medserl.cpu.environment import cpu_environment

    os.environ.update({**cpu_environment(), "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"})
    with tempfile.TemporaryDirectory(prefix="medserl-padding-") as folder:
        engine = make_engine(Path(folder))
        sizes = lengths(options.rows)

        ways = [[MAXIMUM] * len(sizes), [max(sizes)] * len(sizes), sizes]

        def log_probs(shown: list[int]) -> None:
            with engine.eval_mode():
                engine.infer_batch(batch(sizes, shown))

        def update(shown: list[int]) -> None:
            with engine.train_mode():
                engine.train_batch(batch(sizes, shown), loss)

        print(f"{len(sizes)} rows of {min(sizes)} to {max(sizes)} tokens, mean {sum(sizes) / len(sizes):.0f}\n")
        print("| seconds | to 1024 | to the longest | like lengths | 1024 / like | longest / like |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, work in (("log-probabilities", log_probs), ("update", update)):
            work(sizes)  # warm
            times = [[seconds(partial(work, way)) for way in ways] for _ in range(options.repeats)]
            best = [min(column) for column in zip(*times, strict=True)]
            shown = " | ".join(f"{value:.2f}" for value in (*best, best[0] / best[2], best[1] / best[2]))
            print(f"| {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
