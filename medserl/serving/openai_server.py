"""What the judge and an injector beside the policy need of an OpenAI-compatible server. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from medserl.errors import ConfigError

JUDGE_KEY = "MEDSERL_JUDGE_API_KEY"
INJECTOR_KEY = "MEDSERL_INJECTOR_API_KEY"
"""Environment variables with the key of one server each: keys belong in no configuration file, and a key goes to the
server that it was given for and to no other."""


class ServerFailed(RuntimeError):
    """A server that does not answer as it should; the message names it, never what it was asked."""


def request_headers(key_variable: str) -> dict[str, str]:
    """The key in ``key_variable``, where there is one.

    Raises:
        ConfigError: it cannot be sent in a header; the sentence names the variable, never the key.
    """
    key = os.environ.get(key_variable)
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{key_variable}: holds a space, a line break or a character that a key cannot have; set it again"
        )
    return {"Authorization": f"Bearer {key}"}


async def post[T](
    api: str,
    path: str,
    body: dict[str, Any],
    read: Callable[[Any], T],
    timeout: float,
    model: str | None,
    key_variable: str,
) -> tuple[T, str]:
    """What ``read`` finds in the answer to a request, and the name of the model that was asked.

    Args:
        api: The server's URL with ``/v1``.
        path: What is asked, e.g. ``chat/completions``.
        body: The request without its ``model``.
        read: Takes what is wanted out of the answer's JSON; a key or a place that is not there is the server's fault.
        timeout: Seconds.
        model: Name of the model; None: the first that the server offers.
        key_variable: Environment variable with this server's key.

    Raises:
        ServerFailed: no answer in time, or none of such a server.
    """
    import aiohttp

    headers = request_headers(key_variable)
    try:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(timeout=limit, headers=headers) as session:
            if model is None:
                async with session.get(f"{api}/models", allow_redirects=False) as response:
                    model = str((await _json(response, api))["data"][0]["id"])
            async with session.post(f"{api}/{path}", json={"model": model, **body}, allow_redirects=False) as response:
                return read(await _json(response, api)), model
    except TimeoutError:
        raise ServerFailed(f"{api}: no answer within {timeout:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ServerFailed(f"{api}: {type(error).__name__}") from error
    except (ValueError, LookupError, TypeError):
        raise ServerFailed(f"{api}: its answer is not that of an OpenAI-compatible server") from None


async def _json(response: Any, api: str) -> Any:
    if response.status != 200:
        raise ServerFailed(f"{api}: HTTP status {response.status}")
    return await response.json(content_type=None)
