"""Servers that are the user's own: asked before anything starts, and named, because notes are sent to them."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medserl.config.judge import judge_options
from medserl.config.servers import api_of, host_of, is_readable_on_the_way
from medserl.config.settings import JUDGE, GameSettings
from medserl.errors import ConfigError, all_told
from medserl.serving.openai_server import INJECTOR_KEY, JUDGE_KEY, request_headers

_PROBE_SECONDS = 10.0
PLAIN_HTTP = "medserl.allow_plain_http"


@dataclass(frozen=True)
class Server:
    """A server of the user's own that a run sends notes to."""

    role: str
    key: str
    """The configuration key that names it."""
    api: str
    """Its URL with ``/v1``."""
    key_variable: str
    model: str | None = None
    """The model that it must serve; None: any."""


def servers_of(settings: GameSettings) -> Iterator[Server]:
    """The servers that a configuration names, in the order in which a game asks them."""
    injector = api_of(settings.injector_url, "medserl.injector_url")
    if injector is not None:
        yield Server("injector", "medserl.injector_url", injector, INJECTOR_KEY)
    for key, referee in (("referee", settings.referee), ("second_referee", settings.second_referee)):
        if referee.name != JUDGE:
            continue
        options = judge_options(referee.options)
        if options.api is not None:
            yield Server("judge", f"medserl.{key}.options.url", options.api, JUDGE_KEY, options.model)


def check_servers(settings: GameSettings) -> None:
    """Ask every server that is the user's own for its models, before anything starts.

    Raises:
        ConfigError: notes would cross a network unencrypted though ``medserl.allow_plain_http`` is not set; a server
            does not answer, or does not serve the model.
    """
    with all_told() as found:
        for server in servers_of(settings):
            with found.noted():
                _check_server(server, settings.allow_plain_http)


def _check_server(server: Server, plain: bool) -> None:
    if is_readable_on_the_way(server.api) and not plain:
        raise ConfigError(
            f"{server.key}: http to {host_of(server.api)} would send notes, and a key, readable over the network; "
            f"give https://, a server on this machine, or allow it with {PLAIN_HTTP}=true"
        )
    names = _models(server)
    if server.model is not None and server.model not in names:
        where = server.key.removesuffix("url") + "model"
        raise ConfigError(f"{where}: {server.api} serves {', '.join(names)}, not {server.model}")


def where_notes_go(settings: GameSettings) -> str:
    """One phrase for people: the hosts that notes are sent to, and as what; empty where they stay with the run."""
    return ", ".join(f"{host_of(server.api)} ({server.role})" for server in servers_of(settings))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A server that sends a request elsewhere would take the key and the note along."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _models(server: Server) -> list[str]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())
    request = urllib.request.Request(f"{server.api}/models", headers=request_headers(server.key_variable))
    try:
        with opener.open(request, timeout=_PROBE_SECONDS) as response:
            return [str(model["id"]) for model in json.load(response)["data"]]
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException) as error:
        why = getattr(error, "reason", None) or error
        raise ConfigError(
            f"{server.key}: {server.api} is not an OpenAI-compatible server that answers ({why}); start one "
            "(`vllm serve MODEL`) or leave url out"
        ) from None
