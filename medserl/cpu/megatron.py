"""verl's Megatron engine on CPUs (gloo, any tensor × pipeline layout).

Imported after ``verl.workers.engine.megatron`` by `medserl.cpu.plugin`; imports megatron-core.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.megatron import transformer_impl
from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead, MegatronEngineWithValueHead

from medserl.cpu.cuda_names import CudaToCPU, install_stand_ins
from medserl.cpu.micro_batches import prepare_micro_batches

# What the transformer configuration must say on CPUs, as
# ``actor_rollout_ref.actor.megatron.override_transformer_config``: the local attention, no fused CUDA
# kernels, weights initialised on the host, and no sequence parallelism (torch's RMSNorm, which stands
# in for Transformer Engine's, refuses it).
OVERRIDE_TRANSFORMER_CONFIG: dict[str, Any] = {
    "attention_backend": "local",
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "masked_softmax_fusion": False,
    "gradient_accumulation_fusion": False,
    "apply_rope_fusion": False,
    "persist_layer_norm": False,
    "use_cpu_initialization": True,
    "sequence_parallel": False,
}


def adam_optimizers(optimizer: Any) -> Iterator[torch.optim.Optimizer]:
    """The torch optimizers inside a megatron optimizer (several where it is a chained one)."""
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if (inner := getattr(part, "optimizer", None)) is not None:
            yield inner


def fill_adam_state(optimizer: Any) -> None:
    """Gives every parameter the Adam state that torch would make at the first step.

    megatron's distributed optimizer, without Apex and Transformer Engine, reads "step" from every
    parameter's state when it saves or loads (patches.ADAM_STATE), also before the first step.
    """
    for adam in adam_optimizers(optimizer):
        for group in adam.param_groups:
            for parameter in group["params"]:
                if not adam.state[parameter]:
                    adam.state[parameter].update(
                        step=torch.tensor(0.0),
                        exp_avg=torch.zeros_like(parameter.data),
                        exp_avg_sq=torch.zeros_like(parameter.data),
                    )


def restore_adam_steps(optimizer: Any) -> None:
    """Gives every parameter a "step" tensor of its own, with the value that was saved.

    Loading leaves the saved number in the parameter groups only: in the parameters' states, megatron's
    distributed optimizer overwrites it with the number from before the load, in one tensor that all of
    them share (patches.ADAM_STEP). torch's Adam then adds one to it per parameter, and the bias
    correction of the next updates is silently wrong.
    """
    for adam in adam_optimizers(optimizer):
        for group in adam.param_groups:
            for parameter in group["params"]:
                adam.state[parameter]["step"] = torch.tensor(float(group["step"]))


def accept_missing_steps(optimizer: Any) -> None:
    """Lets a checkpoint bring no "step" for a parameter, as the one that can be resharded does not.

    megatron fills every entry of a parameter's Adam state from what was loaded (patches.ADAM_STEP_VALUE); its
    fully reshardable format leaves the step out (patches.ADAM_STEP_MISSING), which FusedAdam does not keep per
    parameter and torch's Adam does. restore_adam_steps sets it afterwards.
    """
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if hasattr(part, "_set_main_param_and_optimizer_states"):
            part._set_main_param_and_optimizer_states = partial(_set_with_step, part)


def _set_with_step(part: Any, model_param: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
    own = part._get_main_param_and_optimizer_states(model_param)
    step = {"step": own["step"]} if "step" in own else {}
    type(part)._set_main_param_and_optimizer_states(part, model_param, {**step, **tensors})


def keep_write_results_here() -> None:
    """Results of synchronous checkpoint writes are collected in this process.

    megatron collects them in a server process (patches.WRITE_RESULTS), which an asynchronous save needs. It
    is a new interpreter that imports torch: 3 seconds and half a gigabyte per rank at the first save.
    """
    from megatron.core.dist_checkpointing.strategies import filesystem_async

    if filesystem_async._results_queue is None:
        filesystem_async._results_queue = queue.Queue()


class OnHost:
    """Stands before one of verl's Megatron engines among the bases: each entry point runs with "cuda" meaning the host.

    The mode belongs to a thread and Ray calls an actor from several, so it is entered at each call.
    """

    checkpoint_config: Any
    optimizer: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        install_stand_ins()
        from medserl.cpu import bridge  # noqa: F401  (registers the bridge, after verl has patched mbridge)

        with CudaToCPU():
            super().__init__(*args, **kwargs)

    def initialize(self) -> None:
        with CudaToCPU():
            super().initialize()  # type: ignore[misc]
            if self.optimizer is not None:
                fill_adam_state(self.optimizer)
                accept_missing_steps(self.optimizer)

    def to(self, *args: Any, **kwargs: Any) -> None:
        with CudaToCPU():
            super().to(*args, **kwargs)  # type: ignore[misc]

    def forward_backward_batch(self, *args: Any, **kwargs: Any) -> Any:
        with CudaToCPU():
            return super().forward_backward_batch(*args, **kwargs)  # type: ignore[misc]

    def optimizer_zero_grad(self) -> None:
        with CudaToCPU():
            super().optimizer_zero_grad()  # type: ignore[misc]

    def optimizer_step(self) -> Any:
        with CudaToCPU():
            return super().optimizer_step()  # type: ignore[misc]

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        if not self.checkpoint_config.async_save:
            keep_write_results_here()
        with CudaToCPU():
            super().save_checkpoint(*args, **kwargs)  # type: ignore[misc]

    def load_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with CudaToCPU():
            super().load_checkpoint(*args, **kwargs)  # type: ignore[misc]
        if self.optimizer is not None:
            restore_adam_steps(self.optimizer)

    def get_per_tensor_param(self, *args: Any, **kwargs: Any) -> Any:
        """(iterator over (name, tensor), adapter configuration); the iterator works when it is read."""
        with CudaToCPU():
            tensors, adapter = super().get_per_tensor_param(*args, **kwargs)  # type: ignore[misc]
        return _within_mode(iter(tensors)), adapter


def _within_mode(items: Iterator[Any]) -> Iterator[Any]:
    while True:
        with CudaToCPU():
            try:
                item = next(items)
            except StopIteration:
                return
        yield item


class CPUMegatronEngineWithLMHead(OnHost, MegatronEngineWithLMHead):
    """verl's engine for language models: the policy and its reference."""


class CPUMegatronEngineWithValueHead(OnHost, MegatronEngineWithValueHead):
    """verl's engine for a critic."""


def register() -> None:
    """Makes verl choose these engines on the platform "cpu"; once per process."""
    for kind, engine in (
        ("language_model", CPUMegatronEngineWithLMHead),
        ("value_model", CPUMegatronEngineWithValueHead),
    ):
        EngineRegistry.register(model_type=kind, backend="megatron", device="cpu")(engine)
    transformer_impl.prepare_micro_batches = prepare_micro_batches
