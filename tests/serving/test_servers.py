"""Servers of the user's own: each gets its own key, none is asked over plain http without leave, all before a start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.cli.main import main
from medserl.config.load import game_settings, load_config
from medserl.config.servers import api_of, host_of, is_readable_on_the_way, is_this_machine
from medserl.config.settings import GameSettings
from medserl.errors import ConfigError
from medserl.serving.openai_server import INJECTOR_KEY, JUDGE_KEY, ServerFailed, request_headers
from medserl.serving.opponent import RemoteInjector
from medserl.serving.servers import check_servers, where_notes_go
from tests.serving.http import Answer, Asked, serving

ASSESSOR = "medserl.train_roles=assessor"
SMALL = ("medserl.notes.count=64", "medserl.validation.count=4")


class Seen(list[tuple[str, str | None]]):
    """Method and key of each request; ``elsewhere`` is where the server sends them on to, if anywhere."""

    elsewhere: str | None = None

    def __call__(self, asked: Asked) -> Answer:
        self.append((asked.method, asked.key))
        content = {"data": [{"id": "m"}]} if asked.method == "GET" else {"choices": [{"text": "x"}]}
        if self.elsewhere:
            return Answer(content, 307, {"Location": self.elsewhere + asked.path})
        return Answer(content)


def settings_with(*overrides: str) -> GameSettings:
    return game_settings(load_config("embedded", overrides))


def ask(url: str) -> str:
    return asyncio.run(RemoteInjector(url)([1, 2, 3], {}, 5))


def test_a_key_goes_to_its_own_server_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGE_KEY, "key-of-the-judge")
    seen = Seen()
    with serving(seen) as url:
        assert ask(url) == "x"
        check_servers(settings_with(f"medserl.injector_url={url}", ASSESSOR))
        monkeypatch.setenv(INJECTOR_KEY, "key-of-the-injector")
        ask(url)
        judge = ["medserl.referee.name=judge", f"+medserl.referee.options.url={url}"]
        check_servers(settings_with(*judge))
    assert [key for _, key in seen] == [
        None, None, None, "Bearer key-of-the-injector", "Bearer key-of-the-injector", "Bearer key-of-the-judge"
    ]  # fmt: skip


def test_a_key_and_a_note_do_not_follow_a_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INJECTOR_KEY, "secret")
    first, second = Seen(), Seen()
    with serving(second) as target, serving(first) as url:
        first.elsewhere = target
        with pytest.raises(ServerFailed, match="HTTP status 307"):
            ask(url)
        with pytest.raises(ConfigError, match="not an OpenAI-compatible server"):
            check_servers(settings_with(f"medserl.injector_url={url}", ASSESSOR))
    assert len(first) == 2 and not second


@pytest.mark.parametrize("key", ["k\ney", "k ey", "schlüssel", "k\x00ey", "key\t"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_printed(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\x00" not in key:
        monkeypatch.setenv(JUDGE_KEY, key)
    else:
        monkeypatch.setattr("os.environ", {JUDGE_KEY: key})
    with pytest.raises(ConfigError, match=JUDGE_KEY) as told:
        request_headers(JUDGE_KEY)
    assert key not in str(told.value)


def test_the_injectors_server_is_asked_before_a_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "r"
    command = ["train", "--dry-run", "--run-dir", str(run), *SMALL, ASSESSOR]
    assert main([*command, "medserl.injector_url=http://127.0.0.1:1"]) == 2
    assert "medserl.injector_url: http://127.0.0.1:1/v1 is not an OpenAI-compatible server" in capsys.readouterr().err
    assert not run.exists()
    with serving(Seen()) as url:
        assert main([*command, f"medserl.injector_url={url}"]) == 0
    assert "notes to   127.0.0.1 (injector)" in capsys.readouterr().out


@pytest.mark.parametrize("host", ["10.0.0.7", "judge.example.org", "[2001:db8::1]", "127.0.0.1.example.org"])
def test_notes_over_plain_http_need_leave(host: str) -> None:
    override = f"medserl.injector_url='http://{host}:8000'"
    with pytest.raises(ConfigError, match="medserl.allow_plain_http=true"):
        check_servers(settings_with(override, ASSESSOR))
    assert where_notes_go(settings_with(override, ASSESSOR)) == f"{host.strip('[]')} (injector)"
    assert is_readable_on_the_way(f"http://{host}:8000/v1") and not is_readable_on_the_way(f"https://{host}:8000/v1")


def test_without_servers_notes_stay() -> None:
    assert where_notes_go(settings_with()) == ""


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost", "a.localhost")),
        *((host, False) for host in ("0.0.0.0", "node7", "localhost.example.org", "128.0.0.1", "")),
    ],
)
def test_which_host_is_this_machine(host: str, own: bool) -> None:
    assert is_this_machine(host) is own


@pytest.mark.parametrize(
    "url",
    [
        *[
            "garbage",
            "ftp://x",
            "http://",
            "https:///v1",
            "http://h:99999",
            "http://h:port",
            "http://[::1",
            "http://h/?key=1",
            "http://h#x",
        ],
        "http://127.0.0.1:9/a b",
        "http://h/\n",
        "http://hö.example",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="some.key"):
        api_of(url, "some.key")


@given(st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1), st.text(min_size=1))
def test_a_password_in_an_address_is_refused_and_not_printed(password: str, scheme: str) -> None:
    secret = f"pw{password}pw"
    for url in (f"http://user:{secret}@host:1/v1", f"{scheme}user:{secret}@host"):
        with pytest.raises(ConfigError) as told:
            api_of(url, "k")
        assert secret not in str(told.value)


@given(st.sampled_from(["", "/", "/v1", "/v1/", "/v1//"]), st.sampled_from(["http", "https"]))
def test_an_address_has_one_v1(end: str, scheme: str) -> None:
    api = api_of(f"{scheme}://Host:80{end}", "k")
    assert api == f"{scheme}://Host:80/v1" and host_of(api) == "host"
