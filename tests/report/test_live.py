"""``medserl watch``: what a run writes shows up by itself, on loopback, for those who know the address."""

import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medserl.cli.main import main
from medserl.errors import ConfigError
from medserl.gamelog.log import GameLog
from medserl.gamelog.parts import parts
from medserl.report import live
from medserl.report.live import LOOPBACK, Server, Site
from tests.gamelog.made import HOSTILE, game, made_log
from tests.report.browser import browser


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_log(tmp_path / "run", 2, 10, 2)


@pytest.fixture
def server(run: Path) -> Iterator[Server]:
    with Server(Site([run])) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def get(server: Server, path: str, host: str | None = None) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=20)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    answer = connection.getresponse()
    found = answer.status, answer.headers.get("Content-Type", ""), answer.read().decode()
    connection.close()
    return found


def test_only_who_knows_the_address_can_read(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    own = f"/{server.token}"
    assert get(server, f"{own}/")[0] == 200
    for path in ("/", "/data", f"{own}x/data", f"{own[:-1]}/data", f"{own}/../data", f"{own}/report/7", f"{own}/r"):
        assert get(server, path)[0] == 404, path
    assert get(server, f"{own}/", host="evil.example:80")[0] == 404
    assert get(server, f"{own}/", host=f"localhost:{server.server_port}")[0] == 200
    assert get(server, f"{own}/", host="127.0.0.1")[0] == 200  # as a browser says it for port 80


def test_each_start_has_another_secret(run: Path) -> None:
    with Server(Site([run])) as one, Server(Site([run])) as other:
        assert one.token != other.token
        with pytest.raises(ConfigError, match=f"--port {one.server_port}: cannot be used"):
            Server(Site([run]), one.server_port)


def test_a_new_round_changes_version_and_data(server: Server, run: Path) -> None:
    own = f"/{server.token}"
    before, data = get(server, f"{own}/version")[2], json.loads(get(server, f"{own}/data")[2])
    assert data["games"] == 24
    assert get(server, f"{own}/version")[2] == before
    GameLog(run).write(3, [game(3, place) for place in range(5)])
    assert get(server, f"{own}/version")[2] != before
    assert json.loads(get(server, f"{own}/data")[2])["games"] == 29


def test_a_report_comes_when_there_is_one(server: Server, run: Path) -> None:
    path = f"/{server.token}/report/0"
    assert get(server, path) == (
        200,
        "text/plain; charset=utf-8",
        "no round is over yet; this page looks again by itself",
    )
    (run / "metrics.jsonl").write_text("")
    assert "has no provenance.json" in get(server, path)[2]
    assert '<a href="report/0">report of run</a>' in get(server, f"/{server.token}/")[2]


def test_a_part_that_is_retired_meanwhile_and_a_browser_that_leaves_are_no_errors(
    server: Server, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = run / "games" / "round-000009.parquet"
    monkeypatch.setattr(live, "parts", lambda run_dir: [*parts(run_dir), gone])
    assert get(server, f"/{server.token}/version")[0] == 200
    with socket.create_connection((LOOPBACK, server.server_port)) as left:
        left.sendall(f"GET /{server.token}/data HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
        left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed with a reset
    assert get(server, f"/{server.token}/")[0] == 200
    assert capsys.readouterr().err == ""


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Site([tmp_path / "away"])


def test_a_folder_of_runs_is_none(run: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        Site([run, run.parent])


def test_ctrl_c_ends_it_and_says_nothing_bad(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    assert main(["watch", str(run)]) == 0
    said = capsys.readouterr()
    assert said.err == "" and said.out.startswith("games and reports: http://127.0.0.1:") and "ssh -L" in said.out
    assert main(["watch", str(run), "--port", "70000"]) == 2
    assert "is not a port" in capsys.readouterr().err


def test_the_page_follows_a_run(server: Server, run: Path) -> None:
    """Filters and the unfolded game stay when a round comes."""
    complaints: list[Any] = []
    with browser() as chromium:
        page = chromium.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        for part in (kept := parts(run)):
            part.rename(run / part.name)  # the run has not begun
        page.goto(f"{server.url}#mode=error&sort=oldest")
        page.get_by_text("0 games", exact=True).wait_for()
        for part in kept:
            (run / part.name).rename(part)
        page.get_by_text("10 of 24 games").wait_for()
        page.locator("article .head").nth(2).click()
        opened = page.locator("article.open .facts").inner_text()
        row = game(3, 1) | {"shown": HOSTILE, "note_id": HOSTILE}
        GameLog(run).write(3, [row, game(3, 3)])
        page.get_by_text("12 of 26 games").wait_for()
        assert page.locator("article.open .facts").inner_text() == opened
        assert page.locator("article .body").count() == 1
        assert page.evaluate("window.pwned") is None
    assert not complaints
