"""Addresses of servers that a configuration names. Imports nothing heavy."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from medserl.errors import ConfigError

LOCALHOST = "localhost"


def api_of(url: str | None, key: str) -> str | None:
    """A server's URL with its ``/v1``; None for None.

    Raises:
        ConfigError: it is no address that HTTP requests can be sent to, or holds a password, which would stand in
            every configuration file of the run. The sentence names ``key``, and the address only where it is safe to.
    """
    if url is None:
        return None
    text = str(url)
    if not text.startswith(("http://", "https://")):
        raise ConfigError(f"{key}: {text.split('@')[-1]!r} does not start with http:// or https://")
    try:
        parts = urlsplit(text)
        host, has_secret = parts.hostname, parts.username is not None or parts.password is not None
        parts.port  # noqa: B018 - raises where it is no number, or too large
    except ValueError as error:
        raise ConfigError(f"{key}: is not an address of a server ({error})") from None
    if has_secret:
        raise ConfigError(f"{key}: leave name and password out of the address; keys belong in the environment")
    if not host or not text.isascii() or not text.isprintable() or " " in text or "?" in text or "#" in text:
        raise ConfigError(f"{key}: {text!r} is not an address of a server, such as http://127.0.0.1:8000/v1")
    base = text.rstrip("/")
    return base if base.endswith("/v1") else f"{base}/v1"


def host_of(api: str) -> str:
    """Name or address of the host that a URL names, in lower case."""
    return urlsplit(api).hostname or ""


def is_this_machine(host: str) -> bool:
    """Whether a host is the loopback interface, by name or by address; other names are not looked up."""
    if host == LOCALHOST or host.endswith(f".{LOCALHOST}"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_readable_on_the_way(api: str) -> bool:
    """Whether what is sent there crosses a network without encryption."""
    return urlsplit(api).scheme == "http" and not is_this_machine(host_of(api))
