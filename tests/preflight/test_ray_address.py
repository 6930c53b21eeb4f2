"""An address at which no Ray answers is told before a start."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from medserl.errors import ConfigError
from medserl.preflight import ray_address
from medserl.preflight.ray_address import KEY, check_ray_address


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "PATIENCE", 0.2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def joining(address: object) -> DictConfig:
    return OmegaConf.create({"ray_kwargs": {"ray_init": {"address": address}}})


def refused(address: object) -> str:
    with pytest.raises(ConfigError) as error:
        check_ray_address(joining(address))
    assert str(error.value).startswith(f"{KEY}: ") and "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


@pytest.fixture(scope="module")
def grpc_port() -> Iterator[int]:
    """A server of gRPC, as Ray's is."""
    grpc = pytest.importorskip("grpc")
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


@pytest.mark.parametrize("address", [None, ""])
def test_without_an_address_there_is_nothing_to_look_at(address: str | None) -> None:
    check_ray_address(joining(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_ray_that_answers_is_joined(host: str, grpc_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "PATIENCE", 5.0)
    check_ray_address(joining(f"{host}:{grpc_port}"))
    monkeypatch.setenv("RAY_ADDRESS", f"{host}:{grpc_port}")  # as a launcher sets it
    check_ray_address(joining("auto"))


def test_nobody_answers(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    port = listener.getsockname()[1]
    assert "no answer within 0.2 s" in refused(f"127.0.0.1:{port}")  # it listens, and says nothing
    listener.close()
    monkeypatch.setattr(ray_address, "PATIENCE", 5.0)
    assert f"no Ray answers at 127.0.0.1:{port} (Connection refused)" in refused(f"127.0.0.1:{port}")
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port} (auto) (Connection refused)" in refused("auto")


def test_something_else_answers(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        connection.close()

    monkeypatch.setattr(ray_address, "PATIENCE", 5.0)
    threading.Thread(target=serve, daemon=True).start()
    assert "something else answers there" in refused(f"127.0.0.1:{listener.getsockname()[1]}")


def test_a_name_that_is_never_found_does_not_hold_a_start_up(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()

    def waiting(*_: object) -> None:
        silent.wait(10)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", waiting)
    assert "no answer within 0.2 s" in refused("nowhere:1")
    silent.set()

    def unknown(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    assert "Name or service not known" in refused("nowhere:1")


def test_auto_without_a_ray_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    services = type("services", (), {"get_ray_address_from_environment": none})
    monkeypatch.setitem(__import__("sys").modules, "ray._private.services", services)
    monkeypatch.setitem(__import__("sys").modules, "ray._private", type("private", (), {"services": services}))
    monkeypatch.setitem(__import__("sys").modules, "ray", type("ray", (), {}))
    assert "auto, but no Ray is running here" in refused("auto")


@pytest.mark.parametrize(
    "address",
    [
        "nowhere",
        ":6379",
        "a:",
        "a:0",
        "a:65536",
        "a:b",
        "a b:1",
        "http://a:1",
        "1:2:3",
        "[::1]",
        "a/b:1",
        "u@h:1",
        6379,
    ],
)
def test_what_is_no_address(address: object) -> None:
    assert "is not an address of a Ray; give HOST:PORT" in refused(address)


def test_ways_that_were_not_tested() -> None:
    assert "leave it out" in refused("local") and "was not tested here" in refused("ray://head:10001")


@given(st.text(min_size=1))
def test_whatever_is_given_is_told_in_a_sentence(address: str) -> None:
    if ":" not in address and address not in ("auto",):
        refused(address)
