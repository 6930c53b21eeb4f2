"""How much memory a command and all that it starts hold at most. Linux only, as all of MedSeRL is."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")
EVERY = 2.0
"""Seconds between two looks: reading the shares of a process of some GiB takes milliseconds."""


def tree(root: int, proc: Path = PROC) -> list[int]:
    """A process and its descendants, as far as they are there."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in proc.glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        children[int(stat.rpartition(")")[2].split()[1])].append(int(folder.name))
    found, ahead = [], [root]
    while ahead:
        found.append(ahead.pop())
        ahead += children[found[-1]]
    return found


def held(pids: list[int], proc: Path = PROC) -> int:
    """Bytes that processes hold, what they share counted once (proportional set sizes)."""
    total = 0
    for pid in pids:
        try:
            lines = (proc / str(pid) / "smaps_rollup").read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # it has ended
            continue
        total += next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
    return total


class Peak:
    """Watches a process and its descendants until it is stopped.

    Args:
        root: The process.
    """

    def __init__(self, root: int) -> None:
        self.bytes = 0
        """The most that was seen."""
        self._root, self._over = root, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Stop watching; the most that was seen, in bytes."""
        self._over.set()
        self._thread.join()
        return self.bytes

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            self.bytes = max(self.bytes, held(tree(self._root)))
