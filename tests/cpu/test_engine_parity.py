"""verl's Megatron engine on CPUs against plain Hugging Face, in every layout of TP × PP up to 2 × 2.

TP × PP processes per layout do everything (tests/cpu/engine_worker.py); the tests judge what they
wrote. In float32 the comparison is strict: the two sides do the same sums in another order.
In bfloat16, the precision that verl trains in, each rounding moves the result by up to 2^-9 of its size,
and two right implementations that round in different places end up as far from one another as each is
from float32. That distance is measured here too (Hugging Face in bfloat16 against Hugging Face in
float32), and the engine must not be farther from Hugging Face than `BF16_SLACK` times that.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medserl.cpu.environment import cpu_environment
from tests.cpu.family_models import NAMES as FAMILY_MODELS

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1100)]

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LAYOUTS = ((1, 1), (2, 1), (1, 2), (2, 2))
PRECISIONS = ("float32", "bfloat16")
RESHARDED_FROM = {(1, 2): (2, 1), (2, 2): (1, 2)}  # as in engine_worker.py: loads that one's checkpoint, made before
STEPS, SAVE_AFTER = 5, 3

# float32: relative to the size of what is compared. Unit round-off is 6e-8; sums of up to a few hundred
# terms through four layers, forward and backward, leave about 1e-6 (seen: 1.4e-6 gradients, 3e-6 state).
FP32_LOG_PROBS = 2e-5  # absolute; log-probabilities are around -6
FP32_GRADIENTS = 1e-5
FP32_STATE = 3e-5
# Adam divides by the root of the second moment: where a gradient is next to nothing, its relative error is
# the update's (seen: 5e-5 for one tensor).
FP32_UPDATE = 5e-4
# The export against the engine, in bfloat16 both: the engine's sums are split by TP (seen: 1.4 of the rounding).
EXPORT_SLACK = 2.0
RESHARDED_LOG_PROBS = 0.1  # absolute, of log-probabilities around -6, whose bf16 logits round at 2^-9 (seen: 0.03)
CRITICS_ROUNDING = 0.01  # of the values of a critic, in bf16 (seen: 0.0023)
BF16_SLACK = 1.5  # independent errors of one size differ by 1.4 of it (seen: 1.2, and less for the others)


def environment() -> dict[str, str]:
    return {**os.environ, **cpu_environment(), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}


def run(arguments: list[str], log: Path, seconds: float) -> None:
    """Runs a program beside this file; fails with the ends of all logs there if it fails."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment(), stdout=file, stderr=subprocess.STDOUT, cwd=HERE, start_new_session=True,
        )  # fmt: skip
    try:
        code = process.wait(timeout=seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if code:
        logs = [f"{path.name}:\n{path.read_text()[-4000:]}" for path in sorted(log.parent.glob("*.log"))]
        pytest.fail(f"{log.name} ended with {code}:\n" + "\n".join(logs))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and what became of it: by plain Hugging Face and torch.optim.AdamW in each precision, and
    by the engine in each layout and precision."""
    path = tmp_path_factory.mktemp("engine")
    run(["engine_reference.py", str(path)], path / "reference.log", 200)
    run(["engine_worker.py", str(path), *(f"{tp}x{pp}" for tp, pp in LAYOUTS)], path / "workers.log", 800)
    return path


def name_of(layout: tuple[int, int]) -> str:
    return f"tp{layout[0]}pp{layout[1]}"


@pytest.fixture(scope="module", params=LAYOUTS, ids=name_of)
def layout(request: pytest.FixtureRequest) -> tuple[int, int]:
    """(TP, PP)"""
    return request.param


def load(path: Path) -> Any:
    import torch

    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def engine(layout: tuple[int, int], directory: Path) -> dict[str, dict[str, Any]]:
    return {p: load(directory / f"engine_{p}_{layout[0]}x{layout[1]}.pt") for p in PRECISIONS}


@pytest.fixture(scope="module")
def plain(directory: Path) -> dict[str, dict[str, Any]]:
    return {p: load(directory / f"reference_{p}.pt") for p in PRECISIONS}


def relative(found: Any, wanted: Any) -> float:
    """|found - wanted| / |wanted|, in the Euclidean norm of all elements."""
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


def worst(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """The largest relative distance of any tensor; both sides must have the same names."""
    assert found.keys() == wanted.keys()
    return max(relative(found[name], wanted[name]) for name in wanted)


def log_prob_differences(found: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """At all positions but each sequence's last, which predicts nothing."""
    import torch

    pairs = zip(found["log_probs"], wanted["log_probs"], strict=True)
    return torch.cat([a[:-1] - b[:-1] for a, b in pairs])


def state(found: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: tensors[key] for name, tensors in found["state"].items()}


def updates(found: dict[str, Any]) -> dict[str, Any]:
    """What the five steps did to the master weights."""
    return {name: tensors["master"] - found["start"][name].float() for name, tensors in found["state"].items()}


def losses(curve: list[Any]) -> list[float]:
    """The engine's loss is a list with one number per micro-batch, which add up to the batch's."""
    return [sum(step["loss"]) for step in curve]


def test_weights_arrive_exactly(engine: dict[str, Any], plain: dict[str, Any]) -> None:
    for precision in PRECISIONS:
        wanted = plain[precision]["start"]
        assert engine[precision]["start"].keys() == wanted.keys()
        for name, tensor in engine[precision]["start"].items():
            assert tensor.float().equal(wanted[name]), f"{name} in {precision}"


def test_log_probs_and_loss_in_float32(engine: dict[str, Any], plain: dict[str, Any]) -> None:
    found, wanted = engine["float32"], plain["float32"]
    assert log_prob_differences(found, wanted).abs().max() < FP32_LOG_PROBS
    assert sum(found["loss"]) == pytest.approx(wanted["loss"], rel=1e-5)


def test_micro_batches_of_like_length(layout: tuple[int, int], engine: dict[str, Any], plain: dict[str, Any]) -> None:
    """No row is padded beyond the longest of its micro-batch, and the numbers are the same."""
    found, wanted = engine["float32"]["dynamic"], plain["float32"]
    assert log_prob_differences(found, wanted).abs().max() < FP32_LOG_PROBS
    assert sum(found["loss"]) == pytest.approx(wanted["loss"], rel=1e-5)
    assert worst(found["gradients"], wanted["gradients"]) < FP32_GRADIENTS
    up = layout[0]  # to a multiple of TP
    shapes = [(2, 30), (2, 23), (3, 16), (1, 5)]  # of rows of 30 28, 23 17, 16 12 9, 5 tokens
    if found["padded"]:
        assert sorted(found["padded"]) == sorted((rows, -(-length // up) * up) for rows, length in shapes)


def test_gradients_in_float32(engine: dict[str, Any], plain: dict[str, Any]) -> None:
    assert worst(engine["float32"]["gradients"], plain["float32"]["gradients"]) < FP32_GRADIENTS


def test_state_after_five_steps_in_float32(engine: dict[str, Any], plain: dict[str, Any]) -> None:
    found, wanted = engine["float32"], plain["float32"]
    assert losses(found["curve"]) == pytest.approx([loss for loss, _ in wanted["curve"]], rel=1e-5)
    assert [step["norm"] for step in found["curve"]] == pytest.approx([n for _, n in wanted["curve"]], rel=1e-5)
    for key in ("master", "exp_avg", "exp_avg_sq"):
        assert worst(state(found, key), state(wanted, key)) < FP32_STATE, key
    assert worst(updates(found), updates(wanted)) < FP32_UPDATE
    assert set(found["adam_steps"]) == {STEPS}


def test_log_probs_loss_and_gradients_in_bfloat16(engine: dict[str, Any], plain: dict[str, Any]) -> None:
    found, wanted, exact = engine["bfloat16"], plain["bfloat16"], plain["float32"]
    rounding = log_prob_differences(wanted, exact).norm()
    assert log_prob_differences(found, wanted).norm() < BF16_SLACK * rounding
    assert sum(found["loss"]) == pytest.approx(wanted["loss"], rel=2e-3)
    rounding = worst(wanted["gradients"], exact["gradients"])
    assert worst(found["gradients"], wanted["gradients"]) < BF16_SLACK * rounding


def test_state_after_five_steps_in_bfloat16(engine: dict[str, Any], plain: dict[str, Any]) -> None:
    found, wanted, exact = engine["bfloat16"], plain["bfloat16"], plain["float32"]
    assert losses(found["curve"]) == pytest.approx([loss for loss, _ in wanted["curve"]], rel=0.02)
    assert [step["norm"] for step in found["curve"]] == pytest.approx([n for _, n in wanted["curve"]], rel=0.02)
    for key in ("exp_avg", "exp_avg_sq"):
        rounding = worst(state(wanted, key), state(exact, key))
        assert worst(state(found, key), state(wanted, key)) < BF16_SLACK * rounding, key
    assert worst(updates(found), updates(wanted)) < BF16_SLACK * worst(updates(wanted), updates(exact))
    assert set(found["adam_steps"]) == {STEPS}


def test_schedule_is_megatrons(engine: dict[str, Any]) -> None:
    """Linear warm-up over two steps, cosine decay to a tenth at step 8: the reference uses these rates."""
    wanted = [2e-4, 1.1e-3, 2e-3, 1.8794229e-3, 1.55e-3]
    for precision in PRECISIONS:
        for step, rate in zip(engine[precision]["curve"], wanted, strict=True):
            assert step["rates"] == pytest.approx([rate] * len(step["rates"]))


def test_resuming_is_bit_identical(layout: tuple[int, int], directory: Path) -> None:
    """Steps 4 and 5 of a fresh engine that loads step 3's checkpoint are those of the uninterrupted one."""
    tp, pp = layout
    for rank in range(tp * pp):
        went_on, resumed = load(directory / f"resume_bfloat16_{tp}x{pp}_{rank}.pt")
        assert set(resumed["steps_at_load"]) == {SAVE_AFTER}
        assert resumed["same_numbers"], "the random state was not restored"
        assert resumed["curve"] == went_on["curve"], f"losses, norms or learning rates differ on rank {rank}"
        assert resumed["rates"] == went_on["rates"]
        assert len(resumed["state"]) == len(went_on["state"]) > 0
        for ours, theirs in zip(resumed["state"], went_on["state"], strict=True):
            for key, tensor in theirs.items():
                assert ours[key].equal(tensor), f"{key} differs on rank {rank}"


def test_the_exported_model_is_the_trained_one(
    layout: tuple[int, int], engine: dict[str, Any], plain: dict[str, Any], directory: Path
) -> None:
    """Log-probs of the export in plain Hugging Face are the engine's at the save, up to bfloat16's rounding.

    The weights are compared exactly: the engine computes with its float32 masters rounded to bfloat16.
    """
    from safetensors.torch import load_file

    tp, pp = layout
    exported = load_file(directory / f"exported_{tp}x{pp}" / "model.safetensors")
    saved = engine["bfloat16"]["saved"]
    masters = state(saved, "master")
    assert exported.keys() - {"lm_head.weight"} == masters.keys()  # tied: may be written twice
    for name, tensor in exported.items():
        master = masters["model.embed_tokens.weight" if name == "lm_head.weight" else name]
        assert tensor.equal(master.to(tensor.dtype)), name
    found = load(directory / f"exported_{tp}x{pp}.pt")
    there = {name: {"log_probs": log_probs} for name, log_probs in found.items()}
    rounding = log_prob_differences(there["bfloat16"], there["float32"]).norm()
    assert log_prob_differences(saved, there["bfloat16"]).norm() < EXPORT_SLACK * rounding
    before = log_prob_differences(saved, plain["bfloat16"]).norm()
    assert before > 5 * rounding, "three steps must have moved the model by more than the tolerance"


@pytest.mark.parametrize("layout", RESHARDED_FROM, indirect=True, scope="module", ids=name_of)
def test_another_layout_goes_on_from_a_checkpoint(
    layout: tuple[int, int], engine: dict[str, Any], directory: Path
) -> None:
    """Masters and Adam state arrive bit by bit; what is computed from them differs by bfloat16's rounding only."""
    tp, pp = RESHARDED_FROM[layout]
    theirs, ours = load(directory / f"engine_bfloat16_{tp}x{pp}.pt"), engine["bfloat16"]["resharded"]
    assert set(ours["steps_at_load"]) == {SAVE_AFTER}
    assert ours["state"].keys() == theirs["saved"]["state"].keys()
    for name, tensors in theirs["saved"]["state"].items():
        for key, tensor in tensors.items():
            assert ours["state"][name][key].equal(tensor), f"{key} of {name}"
    assert log_prob_differences(ours, theirs["saved"]).abs().max() < RESHARDED_LOG_PROBS
    went_on = theirs["curve"][SAVE_AFTER:]
    assert losses(ours["curve"]) == pytest.approx(losses(went_on), rel=2e-3)
    assert [step["norm"] for step in ours["curve"]] == pytest.approx([step["norm"] for step in went_on], rel=0.02)
    assert [step["rates"] for step in ours["curve"]] == [step["rates"] for step in went_on]


@pytest.mark.parametrize("family", FAMILY_MODELS)
def test_other_families(family: str, layout: tuple[int, int], directory: Path) -> None:
    """Weights, log-probabilities, loss and gradients are Hugging Face's."""
    found, wanted = (load(directory / f"family_{family}{end}.pt") for end in (f"_{layout[0]}x{layout[1]}", ""))
    assert found["start"].keys() == wanted["start"].keys()
    for name, tensor in found["start"].items():
        assert tensor.float().equal(wanted["start"][name]), name
    assert log_prob_differences(found, wanted).abs().max() < FP32_LOG_PROBS
    assert sum(found["loss"]) == pytest.approx(wanted["loss"], rel=1e-5)
    assert worst(found["gradients"], wanted["gradients"]) < FP32_GRADIENTS


@pytest.mark.parametrize("family", FAMILY_MODELS)
def test_other_families_are_exported_as_they_were(family: str, directory: Path) -> None:
    from safetensors.torch import load_file

    from medserl.run.weights import misfit, weight_shapes

    folder, wanted = directory / f"exported_{family}", load(directory / f"family_{family}.pt")["start"]
    assert misfit(weight_shapes(folder), json.loads((folder / "config.json").read_text())) is None
    files = sorted(folder.glob("*.safetensors"))
    exported = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert exported.keys() - {"lm_head.weight"} == wanted.keys() - {"lm_head.weight"}
    for name, tensor in exported.items():
        start = wanted.get(name, wanted["model.embed_tokens.weight"])
        assert tensor.equal(start.to(tensor.dtype)), name


@pytest.fixture(params=("llama_tied", "qwen2_untied"))  # as in engine_worker.py
def critic(request: pytest.FixtureRequest, layout: tuple[int, int], directory: Path) -> tuple[dict[str, Any], Path]:
    """What was found of a critic, and its checkpoint."""
    end = f"critic_{request.param}_{layout[0]}x{layout[1]}"
    return load(directory / f"{end}.pt"), directory / f"checkpoint_{end}"


def test_a_critic_begins_at_zero_and_learns(critic: tuple[dict[str, Any], Path]) -> None:
    found, _ = critic
    assert all(not values.any() for values in found["start"])
    losses = [sum(loss) for loss in found["losses"]]
    assert losses[0] == pytest.approx(0.5) and losses == sorted(losses, reverse=True) and losses[-1] < 0.46


def test_a_critics_values_are_its_heads_in_hugging_face(critic: tuple[dict[str, Any], Path]) -> None:
    """What is saved is the whole critic."""
    import torch

    found, checkpoint = critic
    assert relative(torch.cat(found["saved"]), torch.cat(load(checkpoint.with_suffix(".pt")))) < CRITICS_ROUNDING


def test_a_critic_goes_on_from_its_checkpoint(critic: tuple[dict[str, Any], Path], layout: tuple[int, int]) -> None:
    found, _ = critic
    for before, after in (("saved", "loaded"), ("end", "last")):
        assert all(ours.equal(theirs) for ours, theirs in zip(found[after], found[before], strict=True)), after
    assert found["again"] == found["more"]
    assert not any(ours.equal(theirs) for ours, theirs in zip(found["last"], found["loaded"], strict=True))


@pytest.mark.parametrize("layout", RESHARDED_FROM, indirect=True, scope="module", ids=name_of)
def test_another_layout_takes_over_a_critic(
    layout: tuple[int, int], critic: tuple[dict[str, Any], Path], directory: Path
) -> None:
    import torch

    tp, pp = RESHARDED_FROM[layout]
    found, checkpoint = critic
    kind = checkpoint.name.removeprefix("checkpoint_").rpartition("_")[0]
    theirs = load(directory / f"{kind}_{tp}x{pp}.pt")
    assert relative(torch.cat(found["moved"]), torch.cat(theirs["saved"])) < CRITICS_ROUNDING
