"""One run that is interrupted again and again, by another fault each time, ends as if nothing had happened.

docs/faults.md lists these faults and the ones that tests/training looks at without a whole run.
"""

import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from medserl.gamelog.parts import parts
from medserl.run import checkpoint
from tests.e2e.harm import NoNamespace, SmallDisk, kill_vllm_inside_a_transfer, kill_worker
from tests.e2e.runs import CLOSE, EXACT, START_LIMIT, TOLERANCE, Run, Started, optimizer_state, train, train_command

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]  # set-up on a loaded machine takes minutes
ROUNDS = 3
DISK = 14  # MiB: a checkpoint of the tiny model has 9, all other files of the run directory less than 2
ARGUMENTS = ("--max-rounds", str(ROUNDS), "trainer.save_freq=1", "trainer.val_before_train=false")


@dataclass
class Chain:
    """The starts of the interrupted run in their order."""

    path: Path
    starts: dict[str, Run] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    """What was in the folder of checkpoints after the disk was full."""
    no_disk: str | None = None
    """Why there is no small disk on this machine: the first start is ended otherwise then."""
    second: "subprocess.CompletedProcess[str] | None" = None
    """The second job on the run directory, started while the run was there."""

    @property
    def end(self) -> Run:
        return self.starts["finished"]

    def start(self, name: str, **how: Any) -> None:
        self.starts[name] = train(self.path, *ARGUMENTS, **how)

    def checkpoint(self, number: int) -> Path:
        return checkpoint.folder(self.path / "checkpoints", number)

    def second_job_then_kill_vllm(self, run: Started) -> None:
        """Another job comes while this one starts; vLLM is killed in the transfer after round 3."""
        if run.wait_for_text("starting Ray"):
            self.second = subprocess.run(
                train_command(self.path, *ARGUMENTS), capture_output=True, text=True, timeout=START_LIMIT, check=False
            )
        if run.wait_for_text(f"checkpoint {self.checkpoint(2)} ("):
            kill_vllm_inside_a_transfer(run)


def truncate(checkpoint: Path) -> None:
    largest = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


@pytest.fixture(scope="module")
def chain(home: Path) -> Chain:
    made = Chain(home / "interrupted")
    try:
        disk = SmallDisk(made.path, DISK)
    except NoNamespace as error:
        made.no_disk = str(error)
        made.start("worker killed", do=kill_worker(after=f"checkpoint {made.checkpoint(1)} ("))
    else:
        try:
            made.start("disk full", enter=disk.enter)
            disk.move_out()
        finally:
            disk.close()
    made.left = sorted(path.name for path in (made.path / "checkpoints").iterdir())
    made.start("vLLM killed", do=made.second_job_then_kill_vllm)
    truncate(made.checkpoint(2))
    made.start("finished")
    return made


def test_a_full_disk_loses_the_checkpoint_under_way_and_no_other(chain: Chain) -> None:
    """A file system that has room for one checkpoint and a half."""
    if chain.no_disk is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(chain.no_disk)
    run = chain.starts["disk full"]
    assert run.exit_code == 1, run.output
    sentence = (
        r"the checkpoint of round 2 could not be written to \S+ \(No space left on device\); the one of round 1 is"
    )
    assert re.search(sentence, run.output), run.output
    assert "the same command resumes after round 1" in run.output
    assert chain.left == ["global_step_1", checkpoint.TRACKER]
    assert "resuming after round 1" in chain.starts["vLLM killed"].output


def test_a_second_job_on_the_run_directory_is_refused(chain: Chain) -> None:
    assert chain.second is not None
    assert chain.second.returncode == 2, chain.second.stderr
    refusal = chain.second.stderr.strip().splitlines()[-1]
    assert re.search(rf"run directory {chain.path}: \S+, process \d+ is running in it; ", refusal), chain.second.stderr


def test_a_vllm_that_dies_inside_a_weight_transfer_ends_the_run(chain: Chain) -> None:
    """verl's sender would wait for it for ever."""
    run = chain.starts["vLLM killed"]
    assert run.exit_code == 1, run.output
    assert re.search(r"vLLM \(replica 0\).* died.*; the run cannot go on", run.output), run.output
    assert "the same command resumes after round 2" in run.output
    assert [row["round"] for row in run.metrics][:2] == [1, 2]


def test_a_truncated_checkpoint_is_passed_over_with_a_sentence(chain: Chain) -> None:
    output = chain.end.output
    assert re.search(r"checkpoint \S+global_step_2 is damaged: \S+ has \d+ bytes instead of \d+; using an ear", output)
    assert "resuming after round 1" in output


def test_no_process_survives_its_run(chain: Chain, uninterrupted: Run) -> None:
    assert {name: run.left_behind for name, run in chain.starts.items()} == {name: [] for name in chain.starts}
    assert uninterrupted.left_behind == []


def test_its_rounds_are_those_of_the_uninterrupted_run(chain: Chain, uninterrupted: Run) -> None:
    assert chain.end.exit_code == 0, chain.end.output
    assert [row["round"] for row in chain.end.metrics] == list(range(1, ROUNDS + 1))
    for number, (one, other) in enumerate(zip(uninterrupted.metrics, chain.end.metrics, strict=True), start=1):
        assert texts(uninterrupted.games(number)) == texts(chain.end.games(number)), f"round {number}"
        assert one.keys() == other.keys()
        for name in EXACT:
            assert one[name] == other[name], f"round {number}: {name}"
        for name in CLOSE:
            assert one[name] == pytest.approx(other[name], abs=TOLERANCE, rel=TOLERANCE), f"round {number}: {name}"


def texts(games: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """Everything that was written in a round, by note."""
    return sorted(
        (f"{g['note_id']} {g['mode']} {g['truth']}", [t["reply"] for t in (*g["attempts"], g["assessor"]) if t])
        for g in games
    )


def test_it_saw_every_note_once(chain: Chain) -> None:
    seen = [g["note_id"] for n in range(1, ROUNDS + 1) for g in chain.end.games(n) if g["mode"] is not None]
    assert len(seen) == len(set(seen)) == ROUNDS * 32
    assert [path.name for path in parts(chain.path)] == [f"round-{n:06d}.parquet" for n in range(1, ROUNDS + 1)]


def test_its_curve_has_neither_gap_nor_repeated_round(chain: Chain) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(chain.path / "tensorboard"))
    events.Reload()
    for name in ("mean_reward", "verl/actor/grad_norm", "vcf_acceptance_rate"):
        assert [point.step for point in events.Scalars(name)] == list(range(1, ROUNDS + 1)), name
    for number, point in enumerate(events.Scalars("mean_reward")):
        assert point.value == pytest.approx(chain.end.metrics[number]["mean_reward"])


def test_its_last_checkpoint_is_that_of_the_uninterrupted_run(chain: Chain, uninterrupted: Run) -> None:
    """Notes, KL coefficient, Adam's step and schedule exactly; weights and moments as far as the gradients agree."""
    import torch

    one, other = (run.path / "checkpoints" / f"global_step_{ROUNDS}" for run in (uninterrupted, chain.end))
    assert torch.load(one / "data.pt", weights_only=False) == torch.load(other / "data.pt", weights_only=False)
    states = [json.loads((path / "medserl.json").read_text())["state"] for path in (one, other)]
    configured = yaml.safe_load((uninterrupted.path / "config.yaml").read_text())["algorithm"]["kl_ctrl"]["kl_coef"]
    assert [state["kl_coef"] for state in states] == [configured] * 2 and states[0]["layout"] == states[1]["layout"]
    common = [torch.load(path / "actor/optimizer/dist_ckpt/common.pt", weights_only=False) for path in (one, other)]
    assert common[0]["optimizer"] == common[1]["optimizer"], "Adam's step and learning rate"
    assert common[0]["lr_scheduler"] == common[1]["lr_scheduler"]
    mine, theirs = optimizer_state(one), optimizer_state(other)
    assert mine.keys() == theirs.keys() and any("exp_avg_sq" in name for name in mine)
    for name, tensor in mine.items():
        scale = tensor.abs().max().item()
        gap = (tensor - theirs[name]).abs().max().item()
        assert gap <= 0.05 * scale, f"{name}: {gap} of {scale}"
