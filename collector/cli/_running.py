"""Requests to the admin port of the service that runs a configuration."""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from config.model import Config

__all__ = ["ask_service"]

_CONNECT_S: Final = 2.0
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::", "[::]"})  # noqa: S104 - only compared


async def ask_service(config: Config, method: str, path: str, query: Mapping[str, str]) -> dict[str, Any] | None:
    """The answer of the service's admin port; None if there is no service that knows the path.

    Raises:
        ValueError: the service refuses the request; the message is its own.
        OSError: the connection was lost.
    """
    endpoint = config.service.telemetry.metrics.endpoint()
    if endpoint is None:
        return None
    host, port = endpoint
    url = f"http://{'127.0.0.1' if host in _EVERYWHERE else host}:{port}{path}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.request(method, url, params=query) as got:
            if got.status == 404:
                return None
            document: dict[str, Any] = await got.json()
    except aiohttp.ClientConnectorError:
        return None
    except (aiohttp.ClientError, ValueError) as exc:
        raise OSError(f"the service at {host}:{port} does not answer: {exc}") from exc
    if "error" in document and got.status >= 400:
        raise ValueError(f"the service refuses the request: {document['error']}")
    return document
