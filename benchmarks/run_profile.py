"""Where the time and memory of a whole run go: start-up, the phases of a round, peak memory.

usage: python benchmarks/run_profile.py [--rounds N] [overrides of `medserl train` ...]

Prints a Markdown table. Memory is the proportional set size (pages shared by processes count once) summed
over the process tree, sampled every two seconds; on Linux only.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

from medserl.run.run_log import read_metrics

PHASES = ("gen", "old_log_prob", "ref", "adv", "update_actor", "update_weights", "step")


def tree(root: int) -> list[int]:
    """Process ids of a process and its descendants; Ray's processes keep the session of who started them."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def memory(root: int) -> tuple[float, int]:
    """Proportional set size of a process tree in GiB, and its number of Python processes over 100 MiB."""
    total, large = 0.0, 0
    for pid in tree(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        match = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
        kib = int(match[1]) if match else 0
        total += kib / 2**20
        large += kib > 100 * 1024
    return total, large


def outside(row: dict[str, Any]) -> float:
    """Seconds of a round in none of the phases that do its work."""
    worked = ("gen", "old_log_prob", "ref", "update_actor")
    return float(row["timing_s/step"] - sum(row.get(f"timing_s/{phase}", 0.0) for phase in worked))


def played(metrics: Path) -> list[dict[str, Any]]:
    """Rows of rounds; those of a validation before the first one, or after the last, are none."""
    rows = read_metrics(metrics) if metrics.exists() else []
    return [row for row in rows if not row.get("validation")]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    options, rest = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="medserl-profile-") as folder:
        run = Path(folder) / "run"
        command = [
            sys.executable,
            "-m",
            "medserl",
            "train",
            "--run-dir",
            str(run),
            "--max-rounds",
            str(options.rounds),
        ]
        began = time.perf_counter()
        process = subprocess.Popen([*command, *rest], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        peak, processes, first = 0.0, 0, 0.0
        while process.poll() is None:
            used, large = memory(process.pid)
            peak, processes = max(peak, used), max(processes, large)
            metrics = run / "metrics.jsonl"
            if not first and played(metrics):
                first = time.perf_counter() - began
            time.sleep(2.0)  # reading the memory maps of a dozen processes is slow
        total = time.perf_counter() - began
        log = process.stderr.read() if process.stderr else ""
        if process.returncode:
            print(log, file=sys.stderr)
            return process.returncode
        rows = played(run / "metrics.jsonl")
        start = json.loads((run / "provenance.json").read_text())["starts"][0]
        ready = re.search(r"ready after (\d+) s", log)
    print("| what | value |\n| --- | --- |")
    print(f"| configuration | {' '.join([start['config'], *rest])} |")
    print(f"| commit | {start['git_commit'] or 'no checkout'} |")
    print(f"| command to first round finished | {first:.0f} s |")
    print(f"| of which until Ray, Megatron and vLLM are ready | {ready[1] if ready else '?'} s |")
    print(f"| whole run of {options.rounds} rounds | {total:.0f} s |")
    print(f"| peak memory of the process tree (PSS) | {peak:.1f} GiB |")
    print(f"| processes over 100 MiB | {processes} |")
    for phase in PHASES:
        seconds = [row[f"timing_s/{phase}"] for row in rows[1:] if f"timing_s/{phase}" in row]
        if seconds:
            print(f"| round 2 onwards, {phase} | {mean(seconds):.2f} s |")
    if len(rows) > 1:
        shares = [outside(row) / row["timing_s/step"] for row in rows[1:]]
        print(f"| round 2 onwards, share outside rollout, log-probs and update, median | {median(shares):.1%} |")
        print(f"| tokens generated per round | {mean(row['perf/generated_tokens'] for row in rows[1:]):.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
