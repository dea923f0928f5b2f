"""Requests to metadata services: small answers, short time-outs, no proxies."""

from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import orjson

__all__ = ["DetectionError", "Fetch"]

_MAX_BYTES: Final = 4 * 1024 * 1024  # a node of Kubernetes lists its images


class DetectionError(Exception):
    """A detector cannot tell now; the message says why."""

    def __init__(self, message: str, *, may_pass: bool = False) -> None:
        super().__init__(message)
        self.may_pass = may_pass
        """Whether the same request may succeed a moment later: there is a server, and it is busy or broken."""


class Fetch:
    """Makes requests; ``timeout_s`` bounds each of them."""

    def __init__(self, timeout_s: float, *, socket_path: str = "", ssl: Any = None) -> None:
        """``socket_path``: talk over this Unix socket. ``ssl``: an SSL context, for https."""
        self._timeout_s, self._socket_path, self._ssl = timeout_s, socket_path, ssl

    async def text(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> str:
        """The body of a 200 response.

        Raises:
            DetectionError: there is no answer, or another one.
        """
        connector: aiohttp.BaseConnector
        if self._socket_path:
            connector = aiohttp.UnixConnector(self._socket_path)
        else:
            connector = aiohttp.TCPConnector(ssl=self._ssl if self._ssl is not None else True)
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session,
                session.request(method, url, headers=headers, data=body, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    may_pass = response.status >= 500 or response.status == 429
                    raise DetectionError(f"{url} answered with status {response.status}", may_pass=may_pass)
                chunks: list[bytes] = []
                size_bytes = 0
                async for chunk in response.content.iter_any():
                    chunks.append(chunk)
                    size_bytes += len(chunk)
                    if size_bytes > _MAX_BYTES:
                        raise DetectionError(f"the answer of {url} is larger than {_MAX_BYTES} bytes")
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise DetectionError(f"{url}: {error or type(error).__name__}") from error
        return b"".join(chunks).decode("utf-8", "replace")

    async def json(self, url: str, *, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object in a 200 response.

        Raises:
            DetectionError: there is no answer, or another one.
        """
        return self.parsed(url, await self.text(url, headers=headers))

    @staticmethod
    def parsed(url: str, text: str) -> dict[str, Any]:
        """The JSON object that ``url`` has answered.

        Raises:
            DetectionError: It is something else.
        """
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise DetectionError(f"the answer of {url} is not JSON") from error
        if not isinstance(found, dict):
            raise DetectionError(f"the answer of {url} is not a JSON object")
        return found
