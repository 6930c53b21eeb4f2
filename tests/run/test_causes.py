"""The sentence of a failed worker is the innermost cause, not the names of Ray's processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from medserl.run import checkpoint
from medserl.run.causes import first_raised, first_signal, how_to_go_on, innermost

RAY = """\x1b[36mray::WorkerDict.actor_rollout_init_model()\x1b[39m (pid=71, ip=10.0.0.1, repr=<WorkerDict object>)
  File "/x/verl/workers/engine.py", line 7, in init_model
    self.bridge.load_weights(path)
  File "/x/mbridge/core/bridge.py", line 9, in load_weights
    raise ValueError(f"Weights {missing} not found")
ValueError: Weights {'lm_head.weight'} not found in /models/tied"""
CHAIN = """KeyError: 'w'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/x.py", line 1, in f
"""
CHAINED = RAY.replace("ValueError: W", f"{CHAIN}ValueError: W")
MEMORY = "torch.OutOfMemoryError: CUDA out of memory."


@pytest.mark.parametrize("text", [RAY, CHAINED, RAY + "\n", RAY.replace("\x1b[36m", "")])
def test_the_cause_of_a_workers_error_is_its_last_line(text: str) -> None:
    assert innermost(RuntimeError(text)) == "ValueError: Weights {'lm_head.weight'} not found in /models/tied"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("too many rows\nand a second line"), "ValueError: too many rows"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("x" * 900), "RuntimeError: " + "x" * 486),
        (
            RuntimeError("ray::f() (pid=1)\ntorch.OutOfMemoryError: CUDA out of memory."),
            "torch.OutOfMemoryError: CUDA out of memory.",
        ),
        (RuntimeError("ray::f() (pid=1)\nkilled"), "killed"),
    ],
)
def test_other_errors_keep_their_first_line(error: Exception, told: str) -> None:
    assert innermost(error) == told


def test_an_error_without_words_gives_those_of_what_began_it() -> None:
    try:
        raise RuntimeError from OSError("no room")
    except RuntimeError as error:
        assert innermost(error) == "OSError: no room"


LOW = "4 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 127.0.0.1) was 22 GB used"
REMARKS = "OOM kill reason: 95.0% of the limit\n2304\tray::WorkerDict\nRefer to the documentation on how to address it."


@pytest.mark.parametrize("before", ["", "ray::task() (pid=7)\n  File x, line 1\nray.exceptions.OutOfMemoryError: "])
def test_a_machine_without_memory_is_told_by_the_line_that_says_so(before: str) -> None:
    told = innermost(MemoryError(f"{before}{LOW}\n{REMARKS}"))
    assert told == ("ray.exceptions.OutOfMemoryError: " if before else "MemoryError: ") + LOW


LAUNCHED = """W1127 torch/distributed/run.py] Setting OMP_NUM_THREADS
Epoch 1/2:   0%|          | 0/4\r[rank1]: Traceback (most recent call last):
[rank1]:   File "worker.py", line 51, in main
[rank1]:     trainer.fit()
[rank1]: ValueError: demonstration 3 has 300 tokens, data.max_length is 256
[rank0]: Traceback (most recent call last):
[rank0]:   File "worker.py", line 51, in main
[rank0]: RuntimeError: Connection closed by peer
Traceback (most recent call last):
  File "torch/distributed/run.py", line 9, in main
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
"""


def test_of_all_tracebacks_of_a_launcher_the_first_is_the_cause() -> None:
    assert first_raised(LAUNCHED) == "ValueError: demonstration 3 has 300 tokens, data.max_length is 256"
    assert first_raised("Epoch 1/2\nKilled\n") is None and first_raised("") is None


SIGNALLED = """torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
medserl.sft.worker FAILED
Root Cause (first observed failure):
[0]:
  rank      : 0 (local_rank: 0)
  exitcode  : {code} (pid: 24208)
  traceback : Signal 11 (SIGSEGV) received by PID 24208
"""


@pytest.mark.parametrize(
    ("code", "told"),
    [(-11, "SIGSEGV"), (-9, "SIGKILL, which Linux sends where memory runs out"), (-99, "signal 99"), (1, None)],
)
def test_a_process_that_a_signal_ended_is_told_by_its_name(code: int, told: str | None) -> None:
    assert first_signal(SIGNALLED.format(code=code)) == told
    assert first_signal("") is None


def publish(root: Path, step: int) -> Path:
    place = checkpoint.staging_dir(root) / f"global_step_{step}"
    place.mkdir()
    (place / "weights").write_text(f"weights of {step}")
    return checkpoint.publish(root, step, {}, None)


def test_how_to_go_on_counts_what_is_lost(tmp_path: Path) -> None:
    assert "no checkpoint yet: 3 finished rounds are lost" in how_to_go_on(tmp_path, 3)
    publish(tmp_path, 5)
    assert how_to_go_on(tmp_path, 5) == "no finished round is lost; the same command resumes after round 5"
    assert how_to_go_on(tmp_path, 6).startswith("one finished round is lost; ")
    assert how_to_go_on(tmp_path, 8).startswith("3 finished rounds are lost; ")


@pytest.mark.parametrize("newest", [0, 1, 2, 7])
def test_a_start_that_came_to_no_round_has_lost_none(tmp_path: Path, newest: int) -> None:
    if not newest:
        assert how_to_go_on(tmp_path, None) == (
            "there is no checkpoint yet: no finished round is lost, and the same command begins anew"
        )
        return
    publish(tmp_path, newest)
    told = f"no finished round is lost; the same command resumes after round {newest}"
    assert how_to_go_on(tmp_path, None) == told == how_to_go_on(tmp_path, newest, newest)


def test_whatever_is_there_and_was_finished_the_count_is_that_of_the_rounds_to_be_played_again(tmp_path: Path) -> None:
    """Checkpoints of rounds 2, 3 and 5, that of 3 damaged in its content: a start that passed it over began at 2."""
    for step in (2, 3, 5):
        publish(tmp_path, step)
    (tmp_path / "global_step_3" / "weights").write_text("WEIGHTS of 3")
    for finished in range(2, 9):
        last = 5 if finished >= 5 else 2
        said = how_to_go_on(tmp_path, finished, saved=2)
        lost = {0: "no finished round is", 1: "one finished round is"}.get(
            finished - last, f"{finished - last} finished rounds are"
        )
        assert said == f"{lost} lost; the same command resumes after round {last}"
