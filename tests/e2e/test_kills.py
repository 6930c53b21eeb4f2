"""A run that is killed 30 times (kill -9), at random moments of every phase, loses nothing that was saved.

Nightly: a kill costs a start, 50 s and more on two cores. MEDSERL_KILLS and MEDSERL_KILLS_SEED say how many, and repeat
what was found; both are printed (`-s` shows them while it runs). tests/e2e/test_faults.py has single faults, at every
change.
"""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from medserl.run import checkpoint
from medserl.run.run_log import METRICS_FILE, read_metrics
from tests.e2e.kills import MORE, PHASES, RUN_LIMIT, Chain, kills, paced
from tests.e2e.runs import CLOSE, EXACT, TOLERANCE, optimizer_state

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(4 * 3600)]
COUNT = int(os.environ.get("MEDSERL_KILLS", "30"))
SEED = int(os.environ.get("MEDSERL_KILLS_SEED", str(random.randrange(10**6))))

PACED = 4  # rounds of the undisturbed run by which moments are chosen


def test_a_run_that_is_killed_again_and_again_loses_nothing_that_was_saved(home: Path) -> None:
    print(f"MEDSERL_KILLS={COUNT} MEDSERL_KILLS_SEED={SEED}")
    undisturbed = home / "undisturbed"
    pace = paced(undisturbed, PACED)
    print(pace)
    chain = Chain(home / "killed")
    for number, kill in enumerate(kills(SEED, COUNT, pace), 1):
        print(f"{number}. {chain.suffer(kill, rounds=COUNT + 10)}", flush=True)
    print(dict(chain.counted))
    assert not chain.complaints
    assert chain.counted == Counter(PHASES[i % len(PHASES)] for i in range(COUNT))
    rounds = max(chain.saved + MORE, PACED)  # few kills may leave fewer rounds than the undisturbed run has
    done = subprocess.run(
        [sys.executable, "-m", "medserl", *chain.command(rounds)], capture_output=True, text=True, timeout=RUN_LIMIT,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not chain.look(done.stderr)
    paced(undisturbed, rounds)  # goes on, as the other one did for the last time
    one, other = (read_metrics(path / METRICS_FILE) for path in (undisturbed, chain.path))
    assert [row["round"] for row in other] == list(range(1, rounds + 1))
    for mine, theirs in zip(one, other, strict=True):
        assert {name: mine[name] for name in EXACT} == {name: theirs[name] for name in EXACT}, f"round {mine['round']}"
        for name in CLOSE:
            assert mine[name] == pytest.approx(theirs[name], abs=TOLERANCE, rel=TOLERANCE), f"round {mine['round']}"
    states = [optimizer_state(checkpoint.folder(path / "checkpoints", rounds)) for path in (undisturbed, chain.path)]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        gap, scale = (tensor - states[1][name]).abs().max().item(), tensor.abs().max().item()
        assert gap <= 0.05 * scale, f"{name}: {gap} of {scale}"
