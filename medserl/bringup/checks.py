"""The checks of ``medserl bringup`` in their order, and which of them are to run. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medserl.errors import ConfigError

CPU, CUDA = "cpu", "cuda"
PASSED, FAILED, NOT_RUN, LEFT_OUT = "passed", "failed", "not run", "left out"


class NotRun(Exception):
    """What a check asks for is not here; the text says what."""


class Unexpected(Exception):
    """A check ran to its end and found something else than it expects.

    Args:
        why: One sentence.
        measured: What it found all the same.
    """

    def __init__(self, why: str, measured: Mapping[str, Any]) -> None:
        super().__init__(why)
        self.measured = dict(measured)


@dataclass(frozen=True)
class Check:
    """One line of the output.

    Attributes:
        key: Its group's letter and a number.
        call: ``module:function``; the function takes a ``child.Place`` and returns what it measured.
        expected: What must hold for it to pass, and what is aimed at, for whoever reads the line.
        cuda_seconds, cpu_seconds: About how long it takes; None where it needs the other device.
        packages: Distributions' modules without which it is not run.
        on_gpus: The same on GPUs, besides.
        fresh: In a process of its own; others share one with their group.
        patience, grace: It counts as hanging after that many times the expected seconds, and these seconds more.
    """

    key: str
    title: str
    call: str
    expected: str
    cuda_seconds: float | None
    cpu_seconds: float | None
    packages: tuple[str, ...] = ("torch",)
    fresh: bool = False
    on_gpus: tuple[str, ...] = ()
    patience: float = 4.0
    grace: float = 60.0

    @property
    def group(self) -> str:
        return self.key[0]

    def seconds(self, device: str) -> float | None:
        """Expected duration on a device; None where it is not run there."""
        return self.cuda_seconds if device == CUDA else self.cpu_seconds

    def needs(self, device: str) -> tuple[str, ...]:
        """Modules without which it is not run on a device."""
        return self.packages + (self.on_gpus if device == CUDA else ())

    def limit(self, device: str) -> float:
        """Seconds after which it counts as hanging."""
        return self.patience * (self.seconds(device) or 0.0) + self.grace


TRAINER = ("torch", "megatron.core", "mbridge", "verl", "hydra", "ray", "tensordict", "peft", "accelerate")
"""The last four are imported with verl's engines, whichever of them runs (verl 0.9.1, workers/engine/__init__.py)."""
ENGINE = "transformer_engine"
_PACKAGE = "medserl.bringup"

CHECKS: tuple[Check, ...] = (
    Check(
        "a1",
        "torch: a matrix product in bf16",
        f"{_PACKAGE}.kernels:torch_product",
        "differs from float32 by less than 1 % of its size",
        20,
        10,
    ),
    Check(
        "a2",
        "torch: a sum over a process group of one (NCCL, on CPUs gloo)",
        f"{_PACKAGE}.kernels:group_sum",
        "the same numbers come back",
        15,
        5,
    ),
    Check(
        "a3",
        "Triton: a kernel compiled here",
        f"{_PACKAGE}.kernels:triton_sum",
        "the sum of two vectors, exactly",
        20,
        None,
        ("torch", "triton"),
    ),
    Check(
        "a4",
        "Transformer Engine: RMSNorm",
        f"{_PACKAGE}.kernels:transformer_engine_norm",
        "differs from float32 by less than 0.05",
        15,
        None,
        ("torch", ENGINE),
    ),
    Check(
        "a5",
        "Transformer Engine: fused RoPE of packed sequences, fused SwiGLU",
        f"{_PACKAGE}.kernels:transformer_engine_fusions",
        "each differs from float32 by less than 0.05",
        10,
        None,
        ("torch", ENGINE, "megatron.core"),
    ),
    Check(
        "a6",
        "vLLM: RMSNorm; on GPUs flash attention 3 (Hopper) or 2",
        f"{_PACKAGE}.kernels:vllm_kernels",
        "each differs from float32 by less than 0.1",
        25,
        30,
        ("torch", "vllm"),
    ),
    Check(
        "a7",
        "the libraries of the trainer import",
        f"{_PACKAGE}.kernels:imports",
        "no exception",
        25,
        40,
        TRAINER,
        on_gpus=(ENGINE,),
    ),
    Check(
        "b1",
        "attention of the trainer against plain float32, forward and backward",
        f"{_PACKAGE}.attention:against_plain",
        "outputs and gradients of packed sequences differ by less than 2 % of their size (cuDNN's `fused` on GPUs)",
        25,
        40,
        TRAINER,
        fresh=True,
        on_gpus=(ENGINE,),
    ),
    Check(
        "b2",
        "`flash` without flash-attn is refused before a start",
        f"{_PACKAGE}.attention:flash_is_refused",
        "the sentence about attention_backend, or flash-attn is installed",
        5,
        5,
        ("hydra",),
    ),
    Check(
        "c1",
        "Qwen3-4B's shape on the meta device",
        f"{_PACKAGE}.shape:parameters",
        "4 022 468 096 parameters in Megatron's own model",
        15,
        30,
        TRAINER,
        fresh=True,
    ),
    Check(
        "c2",
        "log-probs without entropy, fusions on",
        f"{_PACKAGE}.shape:log_probs",
        "finite log-probs; on CPUs with the tiny model",
        90,
        45,
        TRAINER,
        on_gpus=(ENGINE,),
    ),
    Check(
        "c3",
        "log-probs with chunked entropy, fusions on",
        f"{_PACKAGE}.shape:log_probs_with_entropy",
        "finite log-probs and entropies",
        20,
        10,
        TRAINER,
        on_gpus=(ENGINE,),
    ),
    Check(
        "c4",
        "forward and backward, fusions on",
        f"{_PACKAGE}.shape:update",
        "finite loss and gradients; aim on an H100: 45 % MFU",
        40,
        10,
        TRAINER,
        on_gpus=(ENGINE,),
    ),
    Check(
        "c5",
        "forward and backward with entropy, and without, half the tokens",
        f"{_PACKAGE}.shape:update_with_entropy",
        "finite loss; what the entropy costs in time and memory",
        40,
        10,
        TRAINER,
        on_gpus=(ENGINE,),
    ),
    Check(
        "c6",
        "log-probs, forward and backward, fusions off",
        f"{_PACKAGE}.shape:without_fusions",
        "the same log-probs up to rounding; what RoPE's and SwiGLU's fusion is worth",
        100,
        None,
        TRAINER,
        fresh=True,
        on_gpus=(ENGINE,),
    ),
    Check(
        "d1",
        "four layers through verl's engine with optimizer: a step, a save, a load",
        f"{_PACKAGE}.checkpoint:step_save_load",
        "the loss falls; weights after a load are bit by bit those that were saved",
        120,
        60,
        TRAINER,
        fresh=True,
        on_gpus=(ENGINE,),
    ),
    Check(
        "e1",
        "vLLM with dummy weights: decoding, sleep and wake",
        f"{_PACKAGE}.rollout:decode",
        "all tokens arrive; sleep frees more than the weights take",
        150,
        90,
        ("torch", "vllm"),
        fresh=True,
    ),
    Check(
        "e2",
        "the same with vLLM's old model runner",
        f"{_PACKAGE}.rollout:decode_old_runner",
        "all tokens arrive",
        150,
        None,
        ("torch", "vllm"),
        fresh=True,
    ),
    Check(
        "f1",
        "new weights from Megatron to vLLM, in two rounds, on GPUs without an update",
        f"{_PACKAGE}.rounds:weight_transfer",
        "correlation of probabilities above 0.99; aim on an H100: under 3 s for Qwen3-4B's shape",
        300,
        170,
        (*TRAINER, "vllm", "ray"),
        fresh=True,
        on_gpus=(ENGINE,),
    ),
    Check(
        "g1",
        "`medserl selftest`: whole rounds, seconds by phase",
        f"{_PACKAGE}.rounds:selftest",
        "exit code 0",
        240,
        170,
        (*TRAINER, "vllm", "ray"),
        fresh=True,
        on_gpus=(ENGINE,),
    ),
)
TITLES = {
    "a": "one kernel of each library",
    "b": "attention",
    "c": "the Qwen3-4B shape without an optimizer",
    "d": "a step, a save, a load",
    "e": "vLLM in the same shape",
    "f": "weight transfer",
    "g": "whole rounds",
}


def chosen(only: str | None, checks: Sequence[Check] = CHECKS) -> list[Check]:
    """The checks that ``--only`` names, in the order of the list.

    Args:
        only: Letters and keys, separated by commas; None for all.
        checks: The list.

    Raises:
        ConfigError: a name that is none of them.
    """
    if only is None:
        return list(checks)
    names = [name.strip() for name in only.split(",") if name.strip()]
    known = {check.key for check in checks} | {check.group for check in checks}
    wrong = next((name for name in names if name not in known), None)
    if wrong is not None or not names:
        letters = ", ".join(dict.fromkeys(check.group for check in checks))
        raise ConfigError(f"--only: {wrong or repr(only)} is not a check; give letters ({letters}) or keys (--list)")
    return [check for check in checks if check.key in names or check.group in names]
