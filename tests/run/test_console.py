"""What a terminal shows of a run, and what a pipe and train.log do not."""

from __future__ import annotations

import io
import logging
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.run.console import STEPS, WIDTH, RoundLine, duration, phase
from medserl.run.run_log import LOG_FILE, RunLog, set_up_logging

METRICS = {
    "vcf_acceptance_rate": 0.58,
    "mean_reward": -0.03,
    "assessor/balanced_accuracy": 0.74,
    "actor/reward_kl_penalty": 0.0027,
    "timing_s/step": 5.3,
}
HELD_OUT = "val/greedy/balanced_accuracy"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def test_a_round_fits_a_terminal_and_tells_the_held_out_change() -> None:
    line = RoundLine(HELD_OUT)
    line.see({HELD_OUT: 0.60})
    text = line(12, 30, {**METRICS, HELD_OUT: 0.79}, 95.0)
    assert text.startswith("round 12/30  held-out 0.79 (+0.19)")
    assert "accepted  58%  assessor 0.74  KL 0.0027  5.3 s  2 min left" in text
    without = line(13, 30, METRICS, 90.0)
    assert without.index("accepted") == text.index("accepted"), "columns stand below each other"


value = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.floats(-2, 2))


@given(values=st.lists(value, min_size=6, max_size=6), number=st.integers(1, 10**6), left=st.floats(0, 1e9))
def test_no_line_is_longer_than_a_terminal_is_wide(values: list[float], number: int, left: float) -> None:
    line = RoundLine(HELD_OUT, start=0.5)
    text = line(number, 10**6, dict(zip([*METRICS, HELD_OUT], values, strict=True)), left)
    assert len(text) <= WIDTH
    assert "nan" not in text and "inf" not in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (3599, "1 h 00 min"), (11100, "3 h 05 min"), (187200, "2 d 04 h")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_gets_the_short_line_and_the_log_file_the_greppable_one(tmp_path: Path, terminal: Terminal) -> None:
    undo = set_up_logging(tmp_path, terminal)
    log = RunLog(tmp_path, 0, 3)
    log.validation(0, {HELD_OUT: 0.5})
    log.round(1, 1, {**METRICS, HELD_OUT: 0.75})
    log.close()
    undo()
    kept = (tmp_path / LOG_FILE).read_text()
    assert "round 1/3 epoch 1 vcf_acceptance_rate=0.58 mean_reward=-0.03" in kept
    assert "held-out 0.75 (+0.25)" not in kept
    assert "held-out 0.75 (+0.25)" in terminal.getvalue()
    assert "vcf_acceptance_rate=" not in terminal.getvalue()


def test_a_pipe_gets_the_log_as_it_stands(tmp_path: Path) -> None:
    pipe = io.StringIO()
    undo = set_up_logging(tmp_path, pipe)
    phase(STEPS[1])
    logging.getLogger("medserl.round").info("round 1/3 vcf_acceptance_rate=0.5", extra={"short": "short"})
    undo()
    assert pipe.getvalue() == (tmp_path / LOG_FILE).read_text()
    assert pipe.getvalue().endswith(" I round 1/3 vcf_acceptance_rate=0.5\n")
    assert STEPS[1] not in pipe.getvalue()


def test_a_phase_is_shown_below_the_log_and_gone_at_the_end(tmp_path: Path, terminal: Terminal) -> None:
    undo = set_up_logging(tmp_path, terminal)
    phase(STEPS[3])
    handler = logging.getLogger("medserl").handlers[0]
    handler._live.refresh()  # type: ignore[attr-defined]
    logging.getLogger("medserl.run").warning("[red] a note's bracket is no markup")
    undo()
    shown = terminal.getvalue()
    assert "4/5 starting Megatron and vLLM … 0 s (usually 25 s)" in shown
    assert "[red] a note's bracket is no markup" in shown
    assert "\x1b[?25h" in shown.rpartition(STEPS[3])[2], "the cursor is back"
    assert STEPS[3] not in (tmp_path / LOG_FILE).read_text()


@pytest.mark.parametrize("term", ["", "dumb"])
def test_a_terminal_that_cannot_redraw_gets_plain_lines(
    tmp_path: Path, terminal: Terminal, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    monkeypatch.setenv("TERM", term)
    undo = set_up_logging(tmp_path, terminal)
    logging.getLogger("medserl.run").info("a line")
    undo()
    assert "\x1b" not in terminal.getvalue() and terminal.getvalue().endswith(" I a line\n")


def test_undefined_values_are_dashes() -> None:
    text = RoundLine(HELD_OUT)(1, 9, {"vcf_acceptance_rate": math.nan}, None)
    assert text == "round 1/9  held-out    -          accepted -  assessor -  KL -  - s"
