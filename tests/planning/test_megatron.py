"""Exact parts of the planner against megatron-core itself: its own models on the meta device, its own optimizer."""

import dataclasses
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from medserl.config.load import load_config
from medserl.planning.assumptions import Assumptions
from medserl.planning.choices import choices
from medserl.planning.gpus import find_gpu
from medserl.planning.job import job_of
from medserl.planning.memory import stage_bytes
from medserl.planning.shapes import Shape, find_shape, stage_layers

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

QWEN3_4B = find_shape("qwen3-4b", "--model")
TINY = dataclasses.replace(
    QWEN3_4B, layers=4, hidden=64, intermediate=96, heads=8, groups=4, head=16, vocab=512, name="tiny"
)
FAMILIES = {
    "qwen3-tied": TINY,
    "qwen3-untied": dataclasses.replace(TINY, tied=False),
    "qwen2": dataclasses.replace(TINY, qk_norm=False, qkv_bias=True),
    "llama": dataclasses.replace(TINY, qk_norm=False, tied=False),
}
LAYOUTS = ((1, 1), (2, 1), (4, 1), (1, 2), (2, 2), (1, 4), (2, 4))
UNEVEN = ((2, 2, None, 17), (1, 3, 12, 10))
REPLICAS = ((1, 1, 1), (2, 2, 2), (1, 1, 3), (2, 1, 4), (1, 2, 8))
PADDING = 12 * 128
"""Bytes of the optimizer that one rank may hold for the padding of a buffer, which ends on a multiple of 128 a rank."""


def proposed() -> list[tuple[int, int]]:
    """Every split of Qwen3-4B that the planner could propose, on 1 to 64 nodes."""
    found = set()
    for nodes in (1, 2, 8, 64):
        words = ["medserl.notes.path=x", f"trainer.nnodes={nodes}"]
        job = job_of(load_config("qwen3_4b_1node", words))
        for choice in choices(job, QWEN3_4B, find_gpu("h100-80gb"), None, Assumptions()):
            if choice.need is not None:
                found.add((choice.job.training.tp, choice.job.training.pp))
    return sorted(found)


@cache
def counted() -> list[tuple[Shape, dict[str, Any], list[dict[str, float]]]]:
    """Shape, case and what megatron-core's stages have; one process counts all of them."""
    cases = [(shape, {"tp": tp, "pp": pp}) for shape in FAMILIES.values() for tp, pp in LAYOUTS]
    cases += [(QWEN3_4B, {"tp": tp, "pp": pp}) for tp, pp in proposed()]
    cases += [(QWEN3_4B, {"tp": tp, "pp": pp, "first": first, "last": last}) for tp, pp, first, last in UNEVEN]
    cases += [(shape, {"tp": tp, "pp": pp, "critic": True}) for shape in FAMILIES.values() for tp, pp in LAYOUTS]
    cases += [(shape, {"tp": tp, "pp": pp, "dp": dp}) for shape in (QWEN3_4B, TINY) for tp, pp, dp in REPLICAS]
    given = json.dumps([{"shape": dataclasses.asdict(shape), **case} for shape, case in cases])
    script = Path(__file__).with_name("megatron_sizes.py")
    answer = subprocess.run([sys.executable, str(script), given], capture_output=True, text=True, check=True)
    sizes = json.loads(answer.stdout.strip().splitlines()[-1])
    return [(shape, case, stages) for (shape, case), stages in zip(cases, sizes, strict=True)]


def test_the_planner_proposes_many_splits() -> None:
    assert {(1, 1), (2, 1), (4, 1), (8, 1), (2, 2), (1, 4), (2, 4)} <= set(proposed())


def test_parameters_of_each_rank_are_megatrons_own() -> None:
    """Families, critics of them, every split that is proposed for Qwen3-4B, and stages of unequal length."""
    for shape, case, stages in counted():
        layers = stage_layers(shape, case["pp"], case.get("first"), case.get("last"))
        of_stage = shape.critic_stage if "critic" in case else shape.stage
        assert [of_stage(case["tp"], layers, at) for at in range(case["pp"])] == [s["parameters"] for s in stages]


def test_weights_gradients_and_optimizer_are_megatrons_own() -> None:
    """Buffers of bf16 weights and float32 gradients, and the distributed optimizer's part of rank 0, padding aside."""
    job = job_of(load_config("qwen3_4b_1node", ["medserl.notes.path=x"]))
    seen = 0
    for shape, case, stages in counted():
        if "dp" not in case:
            continue
        split = dataclasses.replace(
            job.training, tp=case["tp"], pp=case["pp"], nodes=1, gpus_per_node=case["tp"] * case["pp"] * case["dp"]
        )
        for at, found in enumerate(stages):
            wanted = stage_bytes(split, shape.stage(case["tp"], stage_layers(shape, case["pp"]), at))
            share = wanted["weights"] / 2
            padded = PADDING * (1 + share / 1e6)  # every small tensor starts on a multiple of 64
            for part, slack in (("weights", padded * case["dp"]), ("gradients", padded * case["dp"])):
                assert 0 <= found[part] - wanted[part] <= slack, (part, case, shape.name)
            assert abs(found["optimizer"] - wanted["optimizer"]) <= padded, (case, shape.name)
            seen += 1
    assert seen > 10
