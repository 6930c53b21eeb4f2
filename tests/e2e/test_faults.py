"""One run that is interrupted again and again, by another fault each time, ends as if nothing had happened.

docs/faults.md lists these faults and the ones that tests/training looks at without a whole run.
"""

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.runs import START_LIMIT, Run, kill_part, processes, send, train

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]  # set-up on a loaded machine takes minutes
ROUNDS = 3


@dataclass
class Chain:
    """The starts of the interrupted run in their order."""

    path: Path
    starts: dict[str, Run] = field(default_factory=dict)

    @property
    def end(self) -> Run:
        return self.starts["finished"]

    def start(self, name: str, **how: Any) -> None:
        self.starts[name] = train(self.path, "--max-rounds", str(ROUNDS), "trainer.save_freq=1", **how)

    def checkpoint(self, number: int) -> Path:
        return self.path / "checkpoints" / f"global_step_{number}"


def kill_vllm_inside_a_transfer(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to vLLM's second worker as soon as the sender of new weights has opened the socket for it."""
    servers = [pid for pid, title in processes().items() if "vLLMHttpServer" in title]
    # Ray's actor, its child the engine, and the engine's children: a worker for each rank
    pid = max(pid for pid in servers if parent(pid) in servers and parent(parent(pid)) in servers)
    token = re.search(rb"MEDSERL_RUN_TOKEN=(\w+)", Path(f"/proc/{pid}/environ").read_bytes())
    assert token is not None
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        if any(Path("/tmp").glob(f"rl-colocate-zmq-{token[1].decode()}-*-rank-1.sock")):
            os.kill(pid, signal.SIGKILL)
            return
        time.sleep(0.001)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def truncate(checkpoint: Path) -> None:
    largest = max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)


def remember_a_validation_of_a_day(run_dir: Path) -> None:
    """The last round is validated, the one before is not: the run has time for one of them only."""
    path = run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["timing_s/validate"] = 86400.0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def chain(home: Path) -> Chain:
    made = Chain(home / "interrupted")
    made.start("worker killed", after=f"checkpoint {made.checkpoint(1)}", do=kill_part("WorkerDict"))
    made.start("USR1", after="resuming after round 1", do=send(signal.SIGUSR1))
    truncate(made.checkpoint(2))
    made.start("vLLM killed", after="resuming after round 1", do=kill_vllm_inside_a_transfer)
    remember_a_validation_of_a_day(made.path)
    made.start("deadline", environment={"MEDSERL_DEADLINE": str(time.time() + 7200)})
    made.start("finished")
    return made


def test_a_killed_worker_ends_the_run_and_is_named(chain: Chain) -> None:
    run = chain.starts["worker killed"]
    assert run.exit_code == 1, run.output
    assert re.search(r"Megatron worker [01] died \(pid \d+.*\); the run cannot go on", run.output), run.output
    assert "the same command resumes after round 1" in run.output


def test_usr1_ends_it_after_the_round_with_a_checkpoint(chain: Chain) -> None:
    run = chain.starts["USR1"]
    assert run.exit_code == 128 + signal.SIGUSR1, run.output
    assert "stopped by signal 10 after round 2; the same command resumes" in run.output
    assert f"checkpoint {chain.checkpoint(2)} (" in run.output


def test_a_truncated_checkpoint_is_passed_over_with_a_sentence(chain: Chain) -> None:
    output = chain.starts["vLLM killed"].output
    assert re.search(r"checkpoint \S+global_step_2 is damaged: \S+ has \d+ bytes instead of \d+; using an ear", output)
    assert "resuming after round 1" in output


def test_a_vllm_that_dies_inside_a_weight_transfer_ends_the_run(chain: Chain) -> None:
    """verl's sender would wait for it for ever."""
    run = chain.starts["vLLM killed"]
    assert run.exit_code == 1, run.output
    assert re.search(r"vLLM \(replica 0\).* died.*; the run cannot go on", run.output), run.output
    assert "the same command resumes after round 1" in run.output


def test_a_deadline_ends_it_before_a_round_that_does_not_fit(chain: Chain) -> None:
    run = chain.starts["deadline"]
    assert run.exit_code == 75, run.output
    assert re.search(r"stopped before the deadline after round 2: \d+ s are left and one more round", run.output)
    assert chain.checkpoint(2).is_dir()
    starts = json.loads((run.path / "provenance.json").read_text())["starts"]
    assert [start.get("ended", {}).get("stopped_by") for start in starts] == [
        None, "signal 10", None, "MEDSERL_DEADLINE", None,
    ]  # fmt: skip


def test_no_process_survives_its_run(chain: Chain, uninterrupted: Run) -> None:
    assert {name: run.left_behind for name, run in chain.starts.items()} == {name: [] for name in chain.starts}
    assert uninterrupted.left_behind == []


# The sampled tokens are the same; what is computed from log-probabilities may differ in the last bits,
# because vLLM's batches hold other requests when other games end first.
TOLERANCE = 1e-3
EXACT = ("vcf_acceptance_rate", "mean_reward", "injector/win_rate", "perf/generated_tokens", "trajectories")
CLOSE = ("actor/entropy", "actor/grad_norm", "actor/reward_kl_penalty", "actor/pg_loss", "actor/ppo_kl", "actor/lr")


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
        (f"{g['note_id']} {g['mode']} {g['truth']}", [t["reply"]["text"] for t in g["trajectories"]]) for g in games
    )


def test_it_saw_every_note_once(chain: Chain) -> None:
    seen = [g["note_id"] for n in range(1, ROUNDS + 1) for g in chain.end.games(n) if g["mode"] is not None]
    assert len(seen) == len(set(seen)) == ROUNDS * 32
    assert len(list((chain.path / "games").iterdir())) == ROUNDS


def test_its_curve_has_neither_gap_nor_repeated_round(chain: Chain) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(chain.path / "tensorboard"))
    events.Reload()
    for name in ("mean_reward", "actor/grad_norm", "vcf_acceptance_rate"):
        assert [point.step for point in events.Scalars(name)] == list(range(1, ROUNDS + 1)), name
    for number, point in enumerate(events.Scalars("mean_reward")):
        assert point.value == pytest.approx(chain.end.metrics[number]["mean_reward"])


def optimizer_state(checkpoint: Path) -> dict[str, Any]:
    """Adam's moments and the float32 weights by name, gathered from all ranks' files."""
    import torch
    import torch.distributed.checkpoint as dcp

    reader = dcp.FileSystemReader(checkpoint / "actor/optimizer/dist_ckpt")
    described = reader.read_metadata().state_dict_metadata
    state = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in described.items()
        if hasattr(entry, "size")
    }
    dcp.load(state, storage_reader=reader, no_dist=True)
    return state


def test_its_last_checkpoint_is_that_of_the_uninterrupted_run(chain: Chain, uninterrupted: Run) -> None:
    """Notes, KL coefficient, Adam's step and schedule exactly; weights and moments as far as the gradients agree."""
    import torch

    one, other = (run.path / "checkpoints" / f"global_step_{ROUNDS}" for run in (uninterrupted, chain.end))
    assert torch.load(one / "data.pt", weights_only=False) == torch.load(other / "data.pt", weights_only=False)
    states = [json.loads((path / "medserl.json").read_text())["state"] for path in (one, other)]
    assert [state["kl_coef"] for state in states] == [0.005, 0.005] and states[0]["layout"] == states[1]["layout"]
    common = [torch.load(path / "actor/optimizer/dist_ckpt/common.pt", weights_only=False) for path in (one, other)]
    assert common[0]["optimizer"] == common[1]["optimizer"], "Adam's step and learning rate"
    assert common[0]["lr_scheduler"] == common[1]["lr_scheduler"]
    mine, theirs = optimizer_state(one), optimizer_state(other)
    assert mine.keys() == theirs.keys() and any("exp_avg_sq" in name for name in mine)
    for name, tensor in mine.items():
        scale = tensor.abs().max().item()
        gap = (tensor - theirs[name]).abs().max().item()
        assert gap <= 0.05 * scale, f"{name}: {gap} of {scale}"
