"""Bytes that a run on CPUs takes of its machine, all of its processes together. No torch.

What a GPU's planner (medserl/planning/memory.py) may leave out counts here: attention without a fused kernel keeps a
matrix of tokens x tokens for each head and layer, vLLM holds float32 weights, and a dozen processes import torch.
docs/real-models.md has what was measured beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from medserl.planning.job import Job, Training
from medserl.planning.memory import CRITIC, LOG_PROBS, PROCESSES, UPDATE, need_of
from medserl.planning.shapes import Shape

KEPT, PASSING = 6.0, 12.0
"""Bytes of an attention matrix's element that the backward pass needs (float32 softmax, its bf16 copy), and while a
layer computes (megatron-core 0.16.1, fusions/fused_softmax.py:forward_torch_softmax)."""
RETAINED = 0.3
"""Of what a worker computes with, its allocator keeps this much more: a warm start of SmolLM2-135M held 10.9 GiB where
the sums without it give 8.9."""
_NOT_HERE = ("contexts", "CUDA graphs")


def bytes_on_cpus(job: Job, shape: Shape) -> Mapping[str, float]:
    """By part, at the fullest time: an update beside a vLLM that cannot sleep, or a checkpoint being saved.

    Args:
        job: The job.
        shape: The model.
    """
    training = job.training
    need = need_of(job, shape, None)
    phases = [phase for phase in need.phases if phase.name in (LOG_PROBS, CRITIC, UPDATE)]
    own = max(
        (
            {
                **{part: size for part, size in phase.parts.items() if part not in _NOT_HERE},
                "attention": attention_bytes(training, shape, job.longest, phase.stage, phase.name != LOG_PROBS),
            }
            for phase in phases
        ),
        key=lambda parts: sum(parts.values()),
    )
    workers = training.gpus_per_node
    parts = {part: workers * size for part, size in own.items()}
    parts["allocator"] = RETAINED * sum(parts.values())
    if job.rollout is not None:
        width = 4.0 if job.rollout.full_precision else 2.0
        parts["vLLM weights"] = workers * width * shape.parameters / job.rollout.tp
        parts["KV cache"] = workers * (job.rollout.cache or 0.0)
    working = ("activations", "logits", "attention")  # gone when a checkpoint is saved
    parts["saving"] = max(0.0, need.host.saving - sum(parts[part] for part in working))
    parts["processes"] = need.host.processes if job.rollout is not None else PROCESSES * (workers + 1)
    return parts


def attention_bytes(training: Training, shape: Shape, longest: int, stage: int, update: bool) -> float:
    """Of the attention matrices of one worker: rows as long as they may be, side by side in a micro-batch.

    Args:
        training: Its split, and whether attention is computed again in the backward pass.
        shape: The model.
        longest: Tokens of the longest row.
        stage: The pipeline's.
        update: Whether a backward pass follows.
    """
    layers = training.layers(shape)
    one = shape.heads / training.tp * max(training.tokens, longest) * longest
    if not update or training.recomputes or training.recomputes_attention:
        return PASSING * one
    return one * (PASSING + KEPT * layers[stage] * (len(layers) - stage))
