"""Stand-ins for what runs on the emulated cluster."""

import sys
from pathlib import Path

import pytest

from tests.cluster.slurm import ROOT, Slurm
from tests.images.machine import head_start  # noqa: F401

# A driver that finds out who is there, one task on each node, and then does what DRIVER says.
RAY_DRIVER = """
import os, signal, socket, sys, time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

stopped = []
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False)
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
name = ray.remote(num_cpus=1)(lambda: socket.gethostname())
nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
names = ray.get([name.options(scheduling_strategy=On(node, soft=False)).remote() for node in nodes])
print("driver sees", *sorted(names), "on", socket.gethostname(), "with", *sys.argv[1:], flush=True)
if os.environ["DRIVER"].isdigit():
    sys.exit(int(os.environ["DRIVER"]))
print("driver waits", flush=True)
while not stopped:
    time.sleep(0.2)
print("driver saved with", len([n for n in ray.nodes() if n["Alive"]]), "nodes up", flush=True)
sys.exit(138)
"""
# A driver that plays one round at each attempt and then does the attempt's word of DRIVER: exit with that code, or wait
# for USR1. Rounds are saved as medserl saves them: written when they are done, read when a run goes on.
QUICK_DRIVER = """
while [[ $1 != --run-dir ]]; do shift; done
run=$2 attempt=${SLURM_RESTART_COUNT:-0}
tracker=$run/checkpoints/latest_checkpointed_iteration.txt
round=$(cat "$tracker" 2>/dev/null || echo 0)
echo "attempt $attempt begins after round $round with $((MEDSERL_DEADLINE - $(date +%s) > 0)) deadline"
mkdir -p "$run/checkpoints"
words=($DRIVER)
word=${words[$attempt]:-0}
saved() { echo "$((++round))" > "$tracker"; echo "saved round $round" | tee -a "$run/rounds"; }
[[ $word == usr1 ]] || { saved; exit "$word"; }
trap 'saved; exit 138' USR1
saved
echo "driver waits"
while true; do sleep 0.1; done
"""
QUICK_RAY = """
[[ $1 == start ]] || exit 0
echo "Ray runtime started."
trap 'exit 1' TERM
while true; do sleep 0.1; done
"""


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def on_ray(slurm: Slurm) -> dict[str, str]:
    """An environment with this one's Ray, in which `medserl train` is RAY_DRIVER and the rest is as it is."""
    programs, here = slurm.submit_dir / "on-ray" / "bin", Path(sys.executable).parent
    write_program(programs / "ray", f'#!/bin/sh\nexec {here}/ray "$@"\n')
    write_program(programs / "driver", f"#!{here}/python\n{RAY_DRIVER}")
    planned = '[ "$1 $2 $3" != "slurm step plan" ] || exit 0'  # its configuration is not of this cluster's size
    steps = f'[ "$1" != slurm ] || exec {here}/python -m medserl "$@"'
    write_program(programs / "medserl", f'#!/bin/sh\n{planned}\n{steps}\nexec {programs}/driver "$@"\n')
    return {
        "MEDSERL_VENV": str(programs.parent),
        "MEDSERL_GPUS_PER_NODE": "1",
        "MEDSERL_RAY_CPUS": "8",
        "MEDSERL_PREFLIGHT": "none",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def quick(slurm: Slurm) -> dict[str, str]:
    """An environment with nothing real but the launcher and Slurm."""
    programs, here = slurm.submit_dir / "quick" / "bin", Path(sys.executable).parent
    steps = f'case "$*" in *free-port*) exec {here}/python -m medserl "$@" ;; "slurm step"*) exit 0 ;; esac'
    write_program(programs / "medserl", f"#!/usr/bin/env bash\n{steps}\n{QUICK_DRIVER}")
    write_program(programs / "ray", f"#!/usr/bin/env bash\n{QUICK_RAY}")
    return {
        "MEDSERL_VENV": str(programs.parent),
        "MEDSERL_GPUS_PER_NODE": "1",
        "MEDSERL_PREFLIGHT": "none",
        "PYTHONPATH": str(ROOT),
    }
