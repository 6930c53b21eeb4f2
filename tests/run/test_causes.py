"""The sentence of a failed worker is the innermost cause, not the names of Ray's processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from medserl.run import checkpoint
from medserl.run.causes import how_to_go_on, innermost

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


def test_how_to_go_on_counts_what_is_lost(tmp_path: Path) -> None:
    assert "no checkpoint yet: 3 finished rounds are lost" in how_to_go_on(tmp_path, 3)
    (checkpoint.staging_dir(tmp_path) / "global_step_5").mkdir()
    checkpoint.publish(tmp_path, 5, {}, None)
    assert how_to_go_on(tmp_path, 5) == "no finished round is lost; the same command resumes after round 5"
    assert how_to_go_on(tmp_path, 6).startswith("one finished round is lost; ")
    assert how_to_go_on(tmp_path, 8).startswith("3 finished rounds are lost; ")
