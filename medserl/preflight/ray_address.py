"""Whether a Ray answers where a configuration says that one is: Ray itself would try for half a minute, late."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from medserl.errors import ConfigError

KEY = "ray_kwargs.ray_init.address"
PATIENCE = 3.0
"""Seconds in which a Ray must answer; names are looked up in that time, too."""
AUTO, LOCAL, CLIENT = "auto", "local", "ray://"
VARIABLE = "RAY_ADDRESS"
# What a client of HTTP/2, which gRPC speaks, begins with, and the kind of frame that its server answers with first
# (RFC 9113, 3.4 and 6.5).
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS, _HEAD = 4, 9


def check_ray_address(config: DictConfig) -> None:
    """A Ray that a run is to join must be up. Nothing is started, and nothing asked of it.

    Args:
        config: The run's configuration; one without an address is for a Ray of the run's own.

    Raises:
        ConfigError: the address is none, or nobody, or something else, answers there.
    """
    given = OmegaConf.select(config, KEY)
    if not given:
        return
    address, whence = str(given), ""
    if address == AUTO:
        address, whence = _running(), f" ({AUTO})"
    host, port = _parts(address)
    if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
        answered = _within(PATIENCE, lambda: _connects(host, port))  # what is said then is encrypted
    else:
        answered = _within(PATIENCE, lambda: _greets(host, port))
    if isinstance(answered, bool) and answered:
        return
    why = answered.strerror or "no answer" if isinstance(answered, OSError) else "something else answers there"
    if answered is None:
        why = f"no answer within {PATIENCE:g} s"
    raise ConfigError(
        f"{KEY}: no Ray answers at {address}{whence} ({why}); start one there (ray start --head), or leave the address "
        "out for a Ray of the run's own"
    )


def _running() -> str:
    """The Ray that Ray itself takes for ``auto``."""
    if named := os.environ.get(VARIABLE):
        return named
    from ray._private.services import get_ray_address_from_environment

    try:
        return str(get_ray_address_from_environment(AUTO, None))
    except ConnectionError:
        raise ConfigError(
            f"{KEY}: {AUTO}, but no Ray is running here and {VARIABLE} is not set; start one (ray start --head), or "
            "leave the address out for a Ray of the run's own"
        ) from None


def _parts(address: str) -> tuple[str, int]:
    """Host and port of an address; ConfigError where it is none."""
    if address == LOCAL:
        raise ConfigError(f"{KEY}: {LOCAL}: without an address a run starts a Ray of its own; leave it out")
    if address.startswith(CLIENT):
        raise ConfigError(f"{KEY}: {address}: Ray's client was not tested here; give HOST:PORT of the head node")
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    sound = bool(colon and host) and host.isascii() and host.isprintable() and not set(host) & set(" /@?#[]")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else 0
    if not sound or not 0 < number < 2**16:
        raise ConfigError(
            f"{KEY}: {address[:60]!r} is not an address of a Ray; give HOST:PORT of its head node, such as "
            f"10.0.0.1:6379, or {AUTO}"
        )
    return host, number


def _connects(host: str, port: int) -> bool:
    with socket.create_connection((host, port), PATIENCE):
        return True


def _greets(host: str, port: int) -> bool:
    """Whether a server of gRPC, as Ray's is, listens there."""
    with socket.create_connection((host, port), PATIENCE) as connection:
        connection.sendall(_HELLO)
        head = b""
        while len(head) < _HEAD and (part := connection.recv(_HEAD - len(head))):
            head += part
        return len(head) == _HEAD and head[3] == _SETTINGS


def _within(seconds: float, ask: Callable[[], bool]) -> bool | OSError | None:
    """What a question is answered with, or fails with; None where that takes longer: a name server may be silent."""
    answers: queue.SimpleQueue[bool | OSError] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(ask())
        except TimeoutError:
            return
        except (OSError, UnicodeError) as error:
            answers.put(error if isinstance(error, OSError) else OSError(0, "no such name"))

    threading.Thread(target=run, daemon=True, name="ray-address").start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return None
