"""HTTP requests for pages and lists of targets, with Prometheus' settings for authentication, TLS and proxies."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.tls import client_context
from receivers.prometheus.config import HTTPAccess

__all__ = ["Access", "AccessError", "Answer"]

_DECOMPRESS_ELSEWHERE_FROM_BYTES: Final = 64 * 1024
_READ_BUFFER_BYTES: Final = 512 * 1024  # pages are large; reading stops and goes on less often


class AccessError(Exception):
    """There is no usable response; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    body: bytes
    content_type: str


class Access:
    """Sends GET requests to the servers of one job or discovery."""

    def __init__(self, config: HTTPAccess, user_agent: str) -> None:
        self._config, self._user_agent = config, user_agent
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Make the client.

        Raises:
            ValueError: A certificate cannot be used.
        """
        connector = aiohttp.TCPConnector(limit=0, ssl=client_context(self._config.tls_config.client_config()))
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER_BYTES,
            headers={"User-Agent": self._user_agent},
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, url: str, headers: Mapping[str, str], timeout_s: float, max_bytes: int) -> Answer:
        """The response to a GET request.

        Raises:
            AccessError: The server cannot be reached, does not answer 200 in time, or the body is too large.
        """
        session, config = self._session, self._config
        if session is None:
            raise AccessError("the client is closed")
        try:
            async with asyncio.timeout(timeout_s):
                all_headers = {**headers, **await self._authorization()}
                async with session.get(
                    url,
                    headers=all_headers,
                    allow_redirects=config.follow_redirects,
                    proxy=config.proxy_url or None,
                    server_hostname=config.tls_config.server_name or None,
                ) as response:
                    if response.status != 200:
                        raise AccessError(f"the server answered {response.status} {(response.reason or '')[:100]}")
                    body = await _read(response, max_bytes)
                encoding = response.headers.get("Content-Encoding", "").lower()
                if encoding:
                    is_large = len(body) >= _DECOMPRESS_ELSEWHERE_FROM_BYTES
                    body = (
                        await asyncio.to_thread(decompress, encoding, body, max_bytes)
                        if is_large
                        else decompress(encoding, body, max_bytes)
                    )
        except TimeoutError as error:
            raise AccessError(f"no complete response within {timeout_s:g} seconds") from error
        except TooLarge as error:
            raise AccessError(f"the response is larger than body_size_limit ({max_bytes} bytes)") from error
        except (aiohttp.ClientError, BadEncoding, OSError, ValueError) as error:
            raise AccessError(str(error) or type(error).__name__) from error
        return Answer(body, response.headers.get("Content-Type", ""))

    async def _authorization(self) -> dict[str, str]:
        config = self._config
        if config.basic_auth is not None:
            basic = config.basic_auth
            user = await _secret(basic.username, basic.username_file)
            password = await _secret(basic.password.get_secret_value(), basic.password_file)
            return {"Authorization": aiohttp.BasicAuth(user, password, encoding="utf-8").encode()}
        scheme, token, path = "Bearer", config.bearer_token.get_secret_value(), config.bearer_token_file
        if config.authorization is not None:
            given = config.authorization
            scheme, token, path = given.type, given.credentials.get_secret_value(), given.credentials_file
        token = await _secret(token, path)
        return {"Authorization": f"{scheme} {token}"} if token else {}


async def _secret(text: str, path: str) -> str:
    return text if not path else (await asyncio.to_thread(Path(path).read_text, "utf-8")).strip()


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > max_bytes:
            raise TooLarge(max_bytes)
        parts.append(part)
    return b"".join(parts)
