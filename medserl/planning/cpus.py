"""Bytes that a run on CPUs takes of its machine, all of its processes together. No torch.

What a GPU's planner (medserl/planning/memory.py) may leave out counts here: attention without a fused kernel keeps a
matrix of tokens x tokens for each head and layer, vLLM holds float32 weights, and a dozen processes import torch.
docs/real-models.md has what was measured beside it.
"""

from __future__ import annotations

from collections.abc import Mapping

from medserl.planning.job import Job, Training
from medserl.planning.memory import CRITIC, GIB, LOG_PROBS, PROCESSES, UPDATE, Need, need_of
from medserl.planning.shapes import Shape

KEPT, PASSING = 6.0, 12.0
"""Bytes of an attention matrix's element that the backward pass needs (float32 softmax, its bf16 copy), and while a
layer computes (megatron-core 0.16.1, fusions/fused_softmax.py:forward_torch_softmax)."""
RETAINED = 1.1
"""Of what a pass works with (activations, logits, attention), as much again and more is held: gradients of these, and
what the allocator keeps. Warm starts held 11.5 GiB (SmolLM2-135M, two workers) and 17.0 (Qwen2.5-0.5B, one), for
which the sums give 12.6 and 17.3."""
SERVED = 2.0
"""vLLM's weights on CPUs lie there a second time, packed for its matrix products: with Qwen2.5-0.5B its worker held 4.6
GiB in float32 and 2.7 in bfloat16, of which its process is 0.6."""
OTHERS = 0.75 * GIB
"""Host memory of one process beside what is counted by itself. A run has three a worker (Megatron, vLLM's worker and
its server), and four more (driver, TransferQueue's two, Ray's own together)."""
_NOT_HERE = ("contexts", "CUDA graphs")


def bytes_on_cpus(job: Job, shape: Shape) -> Mapping[str, float]:
    """By part, at the fullest time: an update beside a vLLM that cannot sleep, or a checkpoint being saved.

    Args:
        job: The job.
        shape: The model.
    """
    training, rollout = job.training, job.rollout
    need = need_of(job, shape, None)
    workers = training.gpus_per_node
    # At a save what a pass works with is gone, and the optimizer's state lies there to be written.
    times: list[dict[str, float]] = [{"saving": need.host.saving} | _resident(need, workers)]
    for phase in need.phases:
        if phase.name in (LOG_PROBS, CRITIC, UPDATE):
            works = {part: workers * phase.parts.get(part, 0.0) for part in ("activations", "logits")}
            rows = attention_bytes(training, shape, job.longest, phase.stage, phase.name != LOG_PROBS)
            works["attention"] = workers * rows
            times.append(works | {"allocator": RETAINED * sum(works.values())} | _resident(need, workers))
    parts = max(times, key=lambda parts: sum(parts.values()))
    if rollout is None:
        return parts | {"processes": PROCESSES * (workers + 1)}
    width = SERVED * (4.0 if rollout.full_precision else 2.0)
    return parts | {
        "vLLM weights": workers * width * shape.parameters / rollout.tp,
        "KV cache": workers * (rollout.cache or 0.0),
        "processes": OTHERS * (3 * workers + job.round.workers + 4),
    }


def _resident(need: Need, workers: int) -> dict[str, float]:
    """What stays: weights, gradients, optimizer, reference and critic of the fullest stage, for each worker."""
    update = need.phase(UPDATE)
    passing = ("activations", "logits", *_NOT_HERE)
    return {part: workers * size for part, size in update.parts.items() if part not in passing}


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
