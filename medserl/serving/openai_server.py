"""What the judge and an injector beside the policy need of an OpenAI-compatible server. Imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

API_KEY_VARIABLE = "MEDSERL_JUDGE_API_KEY"
"""Environment variable with the key of a server that asks for one: keys belong in no configuration file."""


class ServerFailed(RuntimeError):
    """A server that does not answer as it should; the message names it, never what it was asked."""


def request_headers() -> dict[str, str]:
    """The key of the environment, where there is one."""
    key = os.environ.get(API_KEY_VARIABLE)
    return {"Authorization": f"Bearer {key}"} if key else {}


async def post[T](
    api: str, path: str, body: dict[str, Any], read: Callable[[Any], T], timeout: float, model: str | None
) -> tuple[T, str]:
    """What ``read`` finds in the answer to a request, and the name of the model that was asked.

    Args:
        api: The server's URL with ``/v1``.
        path: What is asked, e.g. ``chat/completions``.
        body: The request without its ``model``.
        read: Takes what is wanted out of the answer's JSON; a key or a place that is not there is the server's fault.
        timeout: Seconds.
        model: Name of the model; None: the first that the server offers.

    Raises:
        ServerFailed: no answer in time, or none of such a server.
    """
    import aiohttp

    try:
        limit = aiohttp.ClientTimeout(total=timeout)
        async with aiohttp.ClientSession(timeout=limit, headers=request_headers()) as session:
            if model is None:
                async with session.get(f"{api}/models") as response:
                    model = str((await _json(response, api))["data"][0]["id"])
            async with session.post(f"{api}/{path}", json={"model": model, **body}) as response:
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
