"""The preflight's all-reduce, between real processes over the loopback interface."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.engine  # imports torch in each process
PROGRAM = """
import json, sys
from medserl.preflight.all_reduce import all_reduce_checks
port, rank, seconds, *nodes = sys.argv[1:]
checks = all_reduce_checks("127.0.0.1", int(port), int(rank), nodes, gpu=False, join_seconds=float(seconds))
print(json.dumps([vars(check) for check in checks]))
"""


def run(nodes: list[str], present: int, seconds: float) -> list[dict[str, str | None]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-c", PROGRAM, str(port)]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        subprocess.Popen([*words, str(rank), str(seconds), *nodes], env=environment, stdout=subprocess.PIPE, text=True)
        for rank in range(present)
    ]
    answers = [process.communicate(timeout=110)[0] for process in processes]
    return [json.loads(answer.splitlines()[-1])[0] for answer in answers]


def test_two_nodes_add_up(tmp_path: Path) -> None:
    for check in run(["a", "b"], 2, 60):
        assert check["problem"] is None
        assert str(check["value"]).endswith("GB/s")


def test_missing_node_is_named(tmp_path: Path) -> None:
    for check in run(["a", "b", "c"], 2, 15):
        assert check["problem"] == "waited for c in vain"
