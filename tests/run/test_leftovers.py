"""Whatever ends a run, none of its processes stays: really killed parts of small Ray clusters, all at the same time."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from medserl.run.leftovers import Guard, end_processes, processes_of, wait_for
from medserl.run.watch import part_name

SCRIPT = Path(__file__).with_name("ray_victim.py")
# What is killed, how the main process waits at that time.
FAULTS = {"gcs_server": "ray", "raylet": "deaf", "main": "ray"}


@dataclass
class Ended:
    """How one of the small runs ended."""

    facts: dict[str, Any]
    code: int
    output: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ended]]:
    """Three runs beside each other and beside a Ray cluster of the same user."""
    with tempfile.TemporaryDirectory(prefix="mf-", dir="/tmp") as short, foreign_cluster(Path(short)) as address:
        runs: dict[str, tuple[Path, subprocess.Popen[bytes]]] = {}
        try:
            for fault, way in FAULTS.items():
                folder = tmp_path_factory.mktemp(fault)
                runs[fault] = folder, _start(folder, way, address)
            yield {fault: _harm(fault, folder, process) for fault, (folder, process) in runs.items()}
        finally:
            for _, process in runs.values():
                process.kill()  # its guard ends the others
                process.wait()


def _start(folder: Path, way: str, address: str) -> "subprocess.Popen[bytes]":
    with (folder / "out").open("w") as out:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), way],
            stdout=out,
            stderr=out,
            env={**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )


def _harm(fault: str, folder: Path, process: "subprocess.Popen[bytes]") -> Ended:
    _wait_for(lambda: (folder / "facts.json").exists() or process.poll() is not None, 200)
    assert process.poll() is None, (folder / "out").read_text()
    facts = json.loads((folder / "facts.json").read_text())
    os.kill(facts[fault], signal.SIGKILL)
    code = process.wait(timeout=120)
    _wait_for(lambda: not processes_of(facts["token"]), 60)
    _wait_for(lambda: not Path(facts["ray_folder"]).exists(), 20)
    if fault == "main":  # the guard speaks last
        _wait_for(lambda: "main process" in (folder / "out").read_text(), 20)
    return Ended(facts, code, (folder / "out").read_text())


@contextlib.contextmanager
def foreign_cluster(folder: Path) -> Iterator[str]:
    """Another Ray of the same user on this machine; Ray's usual port is taken too. ``folder`` must have a short name:
    Ray's sockets in it may take 107 bytes."""
    code = (
        "import ray, sys\n"
        "context = ray.init(address='local', num_cpus=1, include_dashboard=False, object_store_memory=80000000,\n"
        f"    _temp_dir={str(folder)!r}, log_to_driver=False)\n"
        "print(context.address_info['gcs_address'], flush=True)\n"
        "sys.stdin.read()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with socket.socket() as holder:
        with contextlib.suppress(OSError):  # somebody else has it: as good
            holder.bind(("", 6379))
            holder.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, "the other cluster did not start"
            yield address
            assert process.poll() is None, "the other cluster is unharmed"
        finally:
            process.communicate("")


def _wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)


@pytest.mark.engine
@pytest.mark.timeout(500)
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_survives(ended: dict[str, Ended], fault: str) -> None:
    run = ended[fault]
    assert processes_of(run.facts["token"]) == []
    assert not Path(f"/proc/{run.facts['child']}").exists(), "a child of an actor, as vLLM's workers are"
    assert not Path(run.facts["ray_folder"]).exists()


@pytest.mark.engine
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("gcs_server", 1, "Ray's gcs_server died; the run cannot go on"),
        ("raylet", 1, "Ray's raylet died; the run cannot go on"),
        ("main", -signal.SIGKILL, "the run's main process ended without a message; its "),
    ],
)
def test_the_fault_is_named_and_the_run_ends(ended: dict[str, Ended], fault: str, code: int, sentence: str) -> None:
    run = ended[fault]
    assert sentence in run.output, run.output
    assert run.code == code


@pytest.mark.engine
@pytest.mark.timeout(500)
def test_another_cluster_of_the_same_user_is_not_joined(ended: dict[str, Ended]) -> None:
    """RAY_ADDRESS named it, and Ray's usual port was taken."""
    assert {fault: run.facts["nodes"] for fault, run in ended.items()} == dict.fromkeys(FAULTS, 1)


def spawn(token: str, code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code + "; print(flush=True); import time; time.sleep(600)"],
        env={**os.environ, "MEDSERL_RUN_TOKEN": token},
        stdout=subprocess.PIPE,
    )


def test_only_the_runs_own_processes_end_and_stubborn_ones_too() -> None:
    token = f"quick{os.getpid()}"
    ignores = "import signal; signal.signal(15, signal.SIG_IGN)"
    mine, stubborn, other = spawn(token, "pass"), spawn(token, ignores), spawn(f"{token}x", "pass")
    try:
        for process in (mine, stubborn, other):
            assert process.stdout is not None
            process.stdout.readline()
        assert processes_of(token) == sorted([mine.pid, stubborn.pid])
        assert end_processes(token, grace=1.0) == 2
        assert (mine.wait(5), stubborn.wait(5), other.poll()) == (-signal.SIGTERM, -signal.SIGKILL, None)
    finally:
        for process in (mine, stubborn, other):
            process.kill()
            process.communicate()


def test_children_that_hide_their_environment_end_too_even_where_their_parent_ends_first() -> None:
    """As Ray's agents do, whose parent is the raylet."""
    token = f"hidden{os.getpid()}"
    child = (
        "[sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True);"
        " time.sleep(600)']"
    )
    code = (
        f"import subprocess, sys; child = subprocess.Popen({child}, env={{}}, stdout=subprocess.PIPE);"
        "child.stdout.readline(); print(child.pid, end='')"
    )
    parent = spawn(token, code)
    assert parent.stdout is not None
    hidden = int(parent.stdout.readline())
    try:
        assert processes_of(token) == sorted([parent.pid, hidden])
        assert end_processes(token, grace=1.0) == 2
        assert parent.wait(5) == -signal.SIGTERM
        assert wait_for(lambda: not Path(f"/proc/{hidden}/cmdline").exists(), 5)
    finally:
        parent.kill()
        parent.communicate()
        with contextlib.suppress(ProcessLookupError):
            os.kill(hidden, signal.SIGKILL)


def test_a_guard_that_is_dismissed_does_nothing(tmp_path: Path) -> None:
    token = f"dismissed{os.getpid()}"
    process = spawn(token, "pass")
    try:
        with (tmp_path / "console").open("w") as console:
            Guard(token, None, tmp_path, console).dismiss()
        assert process.poll() is None
        assert (tmp_path / "console").read_text() == ""
    finally:
        process.kill()
        process.communicate()


def test_a_guard_whose_main_process_is_killed_ends_the_run(tmp_path: Path) -> None:
    token = f"guarded{os.getpid()}"
    folder = tmp_path / "ray" / "session_20260101" / "logs"
    folder.mkdir(parents=True)
    (folder / "worker-1.out").write_text("said")
    code = (
        "import sys, time; from pathlib import Path; from medserl.run.leftovers import Guard;"
        f"Guard({token!r}, Path({str(tmp_path / 'ray')!r}), Path({str(tmp_path / 'logs')!r})); print(flush=True);"
        "time.sleep(600)"
    )
    part = spawn(token, "pass")
    main = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert main.stdout is not None and main.stderr is not None
        main.stdout.readline()
        main.kill()
        said = main.stderr.read()  # until the guard has ended too
        assert "main process ended without a message; its 1 other processes were ended" in said
        assert part.wait(5) == -signal.SIGTERM
        assert not (tmp_path / "ray").exists() and (tmp_path / "logs/worker-1.out").read_text() == "said"
    finally:
        for process in (part, main):
            process.kill()
            process.communicate()


@pytest.mark.parametrize(
    ("actor", "name"),
    [
        ("aZ09WorkerDict_0:1", "Megatron worker 1"),
        ("aZ09WorkerDict_2:1", "Megatron worker 2:1"),
        ("vllm_server_0_0", "vLLM (replica 0)"),
        ("vllm_server_reward_1_0", "vLLM (replica 1)"),
        ("TransferQueueController", "the process TransferQueueController"),
    ],
)
def test_actors_have_names_for_people(actor: str, name: str) -> None:
    assert part_name(actor) == name
