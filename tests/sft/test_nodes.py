"""A warm start on several nodes: one of them holds the run directory, the others wait for it. For real:
tests/e2e/test_sft.py."""

import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from medserl.errors import ConfigError
from medserl.run.run_dir import RunDir
from medserl.sft.launcher import SftFailed
from medserl.sft.nodes import FirstNodeAbsent, Place, place_of
from medserl.sft.train import RESOLVED, SftRun


@pytest.fixture
def port() -> int:
    """One that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def told(monkeypatch: pytest.MonkeyPatch, rank: str, port: str = "29400", address: str = "127.0.0.1") -> None:
    for name, value in (("MASTER_ADDR", address), ("MASTER_PORT", port), ("NODE_RANK", rank)):
        monkeypatch.setenv(name, value)


def test_one_node_needs_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, "7")
    assert place_of(1) == Place() and Place().first and Place().launcher_options()[0] == "--standalone"


def test_each_node_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    told(monkeypatch, "1", " 29400 ")
    place = place_of(2)
    assert not place.first and place.launcher_options() == [
        "--nnodes=2", "--node-rank=1", "--master-addr=127.0.0.1", "--master-port=29400",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        *(
            ("NODE_RANK", value, "NODE_RANK: .* is not one of the ranks 0 to 1")
            for value in ("2", "-1", "one", "1.0", "²")
        ),
        *(("MASTER_PORT", value, "MASTER_PORT: .* is not a port") for value in ("0", "65536", "-5", "ssh", "1e3")),
        *((name, " ", "2 nodes need MASTER_ADDR, MASTER_PORT and NODE_RANK") for name in ("NODE_RANK", "MASTER_ADDR")),
    ],
)
def test_what_the_environment_says_must_be_possible(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, sentence: str
) -> None:
    told(monkeypatch, "0")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence):
        place_of(2)


def test_a_node_waits_until_the_first_one_listens(port: int) -> None:
    place = Place(2, 1, "127.0.0.1", port)

    def listen() -> None:
        time.sleep(0.1)
        with socket.create_server(("127.0.0.1", port)) as server:
            server.accept()[0].close()

    first = threading.Thread(target=listen)
    first.start()
    assert place.wait_for_first(lambda: False, patience=20, period=0.02)
    first.join()


def test_it_does_not_wait_where_nothing_is_left_to_do_nor_for_ever(port: int) -> None:
    place = Place(3, 2, "127.0.0.1", port)
    assert not place.wait_for_first(lambda: True)
    with pytest.raises(FirstNodeAbsent, match=r"node 2 of 3: the first node, 127.0.0.1:\d+ .* does not answer"):
        place.wait_for_first(lambda: False, patience=0.05, period=0.02)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int) -> list[str]:
    """A run on two nodes, as the second is told of it."""
    told(monkeypatch, "1", str(port))
    monkeypatch.setattr(SftRun, "_check_demonstrations", lambda *_: None)
    monkeypatch.setattr(SftRun, "_tokenizer", lambda *_: None)
    monkeypatch.setattr(Place, "wait_for_first", lambda *_: True)
    return ["medserl.steps=40", f"medserl.run_dir={tmp_path / 'run'}", "trainer.nnodes=2", "trainer.n_gpus_per_node=1"]


def test_the_second_node_takes_part_in_a_directory_that_the_first_holds(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = SftRun("sft_embedded", asked)
    first = RunDir(tmp_path / "run")
    first.open(second.config, "sft_embedded", asked)
    logs = first.new_log_dir()
    (tmp_path / "run" / RESOLVED).write_text("{}")
    seen: list[Any] = []

    def launch(place: Place, workers: int, resolved: Path, log: Path, *_: Any) -> None:
        seen.append((place.rank, workers, resolved.name, log, os.umask(0o077)))

    monkeypatch.setattr("medserl.sft.train.launch", launch)
    before = os.umask(0o022)
    try:
        SftRun("sft_embedded", asked).run()  # checked anew, with the first one at work
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
        first.close()
    assert seen == [(1, 1, RESOLVED, logs / "sft-node1.log", 0o077)]
    assert not (tmp_path / "run/checkpoints").exists(), "the first one publishes"


def test_nodes_that_share_no_directory_are_told_so(asked: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="node 1 does not see what the first one wrote .* that all nodes share"):
        SftRun("sft_embedded", asked).run()
    assert list(tmp_path.iterdir()) == []


def test_a_first_node_that_never_comes_is_a_failure(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any) -> bool:
        raise FirstNodeAbsent("the first node does not answer")

    monkeypatch.setattr(Place, "wait_for_first", absent)
    with pytest.raises(SftFailed, match="the first node does not answer"):
        SftRun("sft_embedded", asked).run()
