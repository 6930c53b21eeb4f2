"""verl's Megatron engine in one process, made as its workers make it, with random weights; and batches for it.

Settings are those of the shipped configurations: `qwen3_4b_1node` on GPUs, `embedded` on CPUs. What is measured is what
a training runs.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medserl.bringup.checks import CUDA
from medserl.bringup.child import Place
from medserl.bringup.flops import QWEN3_4B, peak, training_flops
from medserl.files import read_object
from medserl.ward import model_dir

TOKENS = {"cuda": 24576, "cpu": 512}
"""Packed into one micro-batch: ``ppo_max_token_len_per_gpu`` of the shipped configuration."""
LONGEST = {"cuda": 1536, "cpu": 96}
SHARES = (1 / 3, 1 / 2, 2 / 3, 5 / 6, 1)
"""Lengths of sequences, of the longest: notes and answers differ, packed they are cut where they are."""
FUSIONS = ("apply_rope_fusion", "bias_activation_fusion")
CONFIGURATIONS = {"cuda": "qwen3_4b_1node", "cpu": "embedded"}


def model_folder(place: Place, layers: int = 36) -> Path:
    """A model directory without weights: Qwen3-4B's shape with so many layers on GPUs, the tiny model's on CPUs."""
    folder = place.folder / f"shape{layers}"
    if folder.exists():
        return folder
    folder.mkdir()
    for path in model_dir().iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    if place.device == CUDA:
        (folder / "config.json").write_text(json.dumps(QWEN3_4B | {"num_hidden_layers": layers}))
    return folder


def model_with_weights(place: Place, layers: int) -> Path:
    """A model directory that everything can load: on CPUs the tiny model, on GPUs Qwen3-4B's shape with so many layers,
    random weights, and a tokenizer with as many entries as the model, because verl keeps vLLM from sampling ids that
    the tokenizer lacks."""
    if place.device != CUDA:
        return model_dir()
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder, config = model_folder(place, layers), QWEN3_4B | {"num_hidden_layers": layers}
    if not list(folder.glob("*.safetensors")):
        torch.manual_seed(1)
        with torch.device("cuda"):
            model = Qwen3ForCausalLM(Qwen3Config(**config)).to(torch.bfloat16)
        model.save_pretrained(folder)
        del model
        torch.cuda.empty_cache()  # else 24 GB stay with this process, beside which others are to run
        (folder / "config.json").write_text(json.dumps(config))
        fill_vocabulary(folder / "tokenizer.json", QWEN3_4B["vocab_size"])
    return folder


def fill_vocabulary(path: Path, size: int) -> None:
    """Add tokens that no text has, until a tokenizer of the `tokenizers` library has ``size``."""
    tokenizer = read_object(path, "remove that folder to have it made again", {"model": dict, "added_tokens": list})
    there = len(tokenizer["model"]["vocab"].keys() | {token["content"] for token in tokenizer["added_tokens"]})
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"] += [{"id": i, "content": f"\ufffd{i}\ufffd", **plain} for i in range(there, size)]
    path.write_text(json.dumps(tokenizer))


def shape_of(folder: Path) -> dict[str, Any]:
    """The model's config.json."""
    return read_object(folder / "config.json", "remove that folder to have it made again")


def join_group(place: Place) -> None:
    """Make this process a group of one."""
    if torch.distributed.is_initialized():
        return
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1")
    if place.device == CUDA:
        torch.cuda.set_device(0)
    torch.distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if place.device == CUDA else "gloo",
        init_method=f"file://{place.folder}/rendezvous-{os.getpid()}",
        rank=0,
        world_size=1,
    )


def make_engine(place: Place, folder: Path, *, optimizer: bool, fusions: bool = True) -> Any:
    """verl's engine on one device.

    Args:
        place: Device and folder.
        folder: A model directory; where it has no weights, Megatron's random ones are kept.
        optimizer: Whether it has one; gradients there are in either case.
        fusions: RoPE's and SwiGLU's fused kernels, on GPUs.
    """
    from omegaconf import OmegaConf
    from verl.trainer.config import CheckpointConfig
    from verl.workers.config import HFModelConfig, McoreEngineConfig, McoreOptimizerConfig
    from verl.workers.engine import EngineRegistry

    from medserl.bridges import register
    from medserl.config.load import load_config

    register()  # as verl's workers do (medserl/training/verl_plugin.py): mbridge's own do not read transformers 5
    torch.manual_seed(1)
    join_group(place)
    config = load_config(CONFIGURATIONS[place.device], ["medserl.notes.path=null", "medserl.notes.source=ward"])
    actor = config.actor_rollout_ref.actor
    own = dict(OmegaConf.to_container(actor.megatron.override_transformer_config))
    if not fusions:
        own |= dict.fromkeys(FUSIONS, False)
    packed = place.device == CUDA
    engine = EngineRegistry.new(
        "language_model",
        "megatron",
        HFModelConfig(path=str(folder), use_remove_padding=packed),
        McoreEngineConfig(
            tensor_model_parallel_size=1,
            sequence_parallel=False,
            vanilla_mbridge=True,
            use_remove_padding=packed,
            entropy_from_logits_with_chunking=bool(actor.entropy_from_logits_with_chunking),
            dist_ckpt_optim_fully_reshardable=bool(actor.megatron.dist_ckpt_optim_fully_reshardable),
            distrib_optim_fully_reshardable_mem_efficient=True,
            override_transformer_config=own,
        ),
        McoreOptimizerConfig(optimizer="adam", lr=1e-3, lr_warmup_steps=0, total_training_steps=10),
        CheckpointConfig(),
    )
    _leave_out(engine, weights=not list(folder.glob("*.safetensors")), optimizer=not optimizer)
    engine.initialize()
    return engine


def _leave_out(engine: Any, weights: bool, optimizer: bool) -> None:
    """Have it read no weights, or make no optimizer. On this one object, so nothing of verl's is changed for others."""
    build = engine._build_tf_config

    def without_weights() -> None:
        build()
        engine.bridge.load_weights = lambda *_, **__: None

    if weights:
        engine._build_tf_config = without_weights
    if optimizer:
        engine._build_optimizer = lambda: None
        engine._build_lr_scheduler = lambda: None


def lengths(total: int, longest: int) -> list[int]:
    """Lengths of sequences of differing length that have ``total`` tokens together."""
    found: list[int] = []
    while (left := total - sum(found)) > 0:
        found.append(min(left, round(longest * SHARES[len(found) % len(SHARES)])))
    return found


def batch(sizes: Sequence[int], vocabulary: int, *, entropy: bool = False) -> Any:
    """One micro-batch of random tokens, of which the second half of each sequence counts."""
    import verl.utils.tensordict_utils as tu
    from tensordict import TensorDict
    from verl.utils.dataset.dataset_utils import DatasetPadMode

    def nest(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.nested.as_nested_tensor(parts, layout=torch.jagged)

    generator = torch.Generator().manual_seed(7)
    data = TensorDict(
        {
            "input_ids": nest([torch.randint(vocabulary, (n,), generator=generator) for n in sizes]),
            "position_ids": nest([torch.arange(n) for n in sizes]),
            "loss_mask": nest([(torch.arange(n) >= n // 2).long() for n in sizes]),
            "temperature": torch.ones(len(sizes)),
        },
        batch_size=len(sizes),
    )
    tu.assign_non_tensor(
        data,
        use_dynamic_bsz=False,
        micro_batch_size_per_gpu=len(sizes),
        pad_mode=DatasetPadMode.NO_PADDING,
        calculate_entropy=entropy,
        use_fused_kernels=False,
    )
    return data


def loss(model_output: dict[str, Any], data: Any, dp_group: Any) -> tuple[torch.Tensor, dict[str, Any]]:
    """Minus the log-probability per counted token; an entropy that was computed goes into it with weight 0, as verl's
    own loss does with ``entropy_coeff`` 0."""
    del dp_group
    values = model_output["log_probs"].values()
    total = -(values * data["loss_mask"].values()).sum() / data["batch_num_tokens"]
    if "entropy" in model_output:
        total = total + 0.0 * model_output["entropy"].values().sum()
    return total, {}


@dataclass(frozen=True)
class Timed:
    """A pass, how long it took, and what it held at most."""

    seconds: float
    tokens: int
    flops: float
    peak_gib: float | None
    outputs: list[Any] = field(default_factory=list)

    def measured(self, device_name: str) -> dict[str, Any]:
        """What the line says: tokens a second, MFU where the device's peak is known, memory."""
        most = peak(device_name)
        return {
            "tokens_per_s": round(self.tokens / self.seconds, 1),
            "seconds": round(self.seconds, 4),
            "tflops_per_s": round(self.flops / self.seconds / 1e12, 3),
            "mfu": None if most is None else round(self.flops / self.seconds / most, 4),
            "peak_gib": self.peak_gib,
        }


def device_name(place: Place) -> str:
    """As the driver calls it."""
    return torch.cuda.get_device_name(0) if place.device == CUDA else "CPU"


def timed(place: Place, work: Callable[[], Any], flops: float, tokens: int, repeats: int = 3) -> Timed:
    """The mean of some passes after one that warms up."""
    cuda = place.device == CUDA
    outputs = [work()]
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    if cuda:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - began) / repeats
    held = round(torch.cuda.max_memory_allocated() / 2**30, 2) if cuda else None
    return Timed(seconds, tokens, flops, held, outputs)


def flops_of(shape: dict[str, Any], sizes: Sequence[int], *, backward: bool) -> float:
    """Model FLOPs of a pass."""
    return training_flops(shape, sizes) / (1 if backward else 3)
