"""(e) vLLM in Qwen3-4B's shape with dummy weights: decoding, sleep and wake; on CPUs the tiny model's decoding."""

from __future__ import annotations

import os
import time
from typing import Any

from medserl.bringup.checks import CUDA, Unexpected
from medserl.bringup.child import Place

SEQUENCES = {"cuda": (20, 256), "cpu": (4, 20)}
"""On GPUs 20, twice what an engine of `qwen3_4b_1node` gets (64 notes and 16 labelled ones for eight engines), and
`max_num_seqs`."""
NEW_TOKENS = {"cuda": 256, "cpu": 16}
PROMPT = 64
OPTIONS: dict[str, dict[str, Any]] = {
    "cuda": {"gpu_memory_utilization": 0.6, "enable_sleep_mode": True, "max_model_len": 3584, "max_num_seqs": 256},
    "cpu": {
        "kv_cache_memory_bytes": 1 << 26,
        "dtype": "float32",
        "max_model_len": 256,
        "max_num_seqs": 20,
        "enforce_eager": True,
        "max_num_batched_tokens": 2048,
    },
}


def decode(place: Place) -> dict[str, Any]:
    """With the model runner that vLLM chooses: the new one for Qwen3 on GPUs."""
    return _decode(place)


def decode_old_runner(place: Place) -> dict[str, Any]:
    """With the runner that CPUs use, the way out should the new one misbehave."""
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    return _decode(place)


def _decode(place: Place) -> dict[str, Any]:
    from vllm import LLM

    from medserl.bringup.engine import model_folder

    began = time.perf_counter()
    llm = LLM(
        model=str(model_folder(place)),
        load_format="dummy",
        skip_tokenizer_init=True,
        seed=1,
        **OPTIONS[place.device],
    )
    found: dict[str, Any] = {"start_seconds": round(time.perf_counter() - began, 1)}
    for count in SEQUENCES[place.device]:
        found[f"tokens_per_s_{count}"] = round(_rate(llm, count, NEW_TOKENS[place.device]), 1)
    return found | (_sleep_and_wake(llm) if place.device == CUDA else {"left_out": "sleep and wake, which need a GPU"})


def _rate(llm: Any, count: int, tokens: int) -> float:
    """Tokens a second of so many sequences together, their short prompts included; a first pass warms up."""
    from vllm import SamplingParams

    params = SamplingParams(temperature=1.0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    prompts = [{"prompt_token_ids": [(i * 31 + j * 7) % 1000 + 1 for j in range(PROMPT)]} for i in range(count)]
    for _ in range(2):
        began = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - began
    got = sum(len(output.outputs[0].token_ids) for output in outputs)
    if got != count * tokens:
        raise Unexpected(f"{got} tokens instead of {count * tokens}", {})
    return got / seconds


def _sleep_and_wake(llm: Any) -> dict[str, Any]:
    """Memory of the whole device while vLLM is awake, asleep, and awake again; and that it still generates."""
    found = {"awake_gib": _used()}
    began = time.perf_counter()
    llm.sleep(level=1)
    found |= {"asleep_gib": _used(), "sleep_seconds": round(time.perf_counter() - began, 2)}
    began = time.perf_counter()
    llm.wake_up()
    found |= {"woken_gib": _used(), "wake_seconds": round(time.perf_counter() - began, 2)}
    found["tokens_per_s_after_wake"] = round(_rate(llm, 20, 64), 1)
    if found["awake_gib"] - found["asleep_gib"] < 8:
        raise Unexpected("sleep frees less than the weights take", found)
    return found


def _used() -> float:
    import torch

    free, total = torch.cuda.mem_get_info()
    return round((total - free) / 2**30, 2)
