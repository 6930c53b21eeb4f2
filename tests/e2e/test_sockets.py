"""Where a run listens: every socket on loopback, and every process that has one in docs/security.md."""

from __future__ import annotations

import ipaddress
import re
import sys
from pathlib import Path

import pytest

from medserl.training.rendezvous import FIRST, port_range
from tests.e2e.runs import Run, start

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
PAGE = Path(__file__).parents[2] / "docs" / "security.md"


def told() -> list[str]:
    """The names of processes in the page's first table."""
    table = PAGE.read_text(encoding="utf-8").split("## Who can connect")[1].split("\n\n")[2]
    return [name.rstrip("…") for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_a_run_on_one_node_listens_on_loopback_only(uninterrupted: Run) -> None:
    assert any("raylet" in title for title, *_ in uninterrupted.listening)  # they were seen at all
    elsewhere = {
        (title, address)
        for title, address, _ in uninterrupted.listening
        if not (ipaddress.ip_address(address.removeprefix("::ffff:")).is_loopback)
    }
    assert not elsewhere


def test_every_process_that_listens_is_in_the_page(uninterrupted: Run) -> None:
    names = [*told(), "-m medserl train"]
    unknown = {title for title, *_ in uninterrupted.listening if not any(name in title for name in names)}
    assert not unknown, sorted(title for title, *_ in uninterrupted.listening)


def test_every_process_of_the_page_is_there(uninterrupted: Run) -> None:
    titles = sorted({title for title, *_ in uninterrupted.listening})
    assert [name for name in told() if name not in " ".join([*titles, "medserl train"])] == [], titles


COMMANDS = {
    "a warm start": [
        *("sft", "--run-dir", "sft", "--steps", "2", "optim.lr_warmup_steps=1", "medserl.notes.count=60"),
        "medserl.max_demonstrations=112",
    ],
    "an evaluation on two workers": [
        *("evaluate", "--model", "builtin:ward", "--data", "ward:test", "--count", "2", "--out", "found"),
        *("--config", "embedded"),
    ],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_start_workers_listen_on_loopback_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = start([sys.executable, "-m", "medserl", *COMMANDS[name]], tmp_path / "run", period=0.3)
    assert run.exit_code == 0, run.output
    assert run.listening  # they were seen at all
    assert {address for _, address, _ in run.listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, run.listening


def test_the_workers_meet_where_no_other_connection_takes_their_port(uninterrupted: Run) -> None:
    if (ports := port_range()) is None:
        return  # this machine gives such ports to outgoing connections, too; verl's choice stands
    workers = {port for title, _, port in uninterrupted.listening if title.startswith("ray::")}
    assert [port for port in workers if FIRST <= port < ports[1]]
