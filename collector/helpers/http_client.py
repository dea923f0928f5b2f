"""An HTTP client from a confighttp block: POST a body, get a bounded answer or an error the queue understands.

HTTP/1.1 by aiohttp: the block's HTTP/2 keys are read and have no effect, nor has ``max_idle_conns``, since there are never more
connections than senders. Redirects are not followed: a body must not wander to where nobody configured it to.
A proxy comes from ``proxy_url`` or, as in Go, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY; never for the loopback.

Source: open-telemetry/opentelemetry-collector config/confighttp; RFC 9110 §10.2.3 (Retry-After).
"""

import asyncio
import ssl
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from google.protobuf.message import DecodeError
from google.rpc import status_pb2  # type: ignore[import-untyped] # googleapis-common-protos has no py.typed

from collector.api import Clock, Host, PermanentError, RetryableError
from collector.helpers.client_auth import ClientAuthenticator, find_client_authenticator
from collector.helpers.compression import BadEncoding, TooLarge, compress, decompress
from collector.helpers.redact import Redactor, without_credentials
from collector.helpers.tls import ReloadingClientContext
from config.blocks import HTTPClientConfig

__all__ = ["RETRYABLE_STATUSES", "HTTPClient", "HTTPResponse", "parse_retry_after"]

RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
"""OTLP specification, "Retryable Response Codes"."""

_MAX_RESPONSE_BYTES: Final = 64 * 1024  # as the Collector's otlphttpexporter (maxHTTPResponseReadBytes)
_MAX_RETRY_AFTER_S: Final = 24 * 3600.0
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
_MAY_BE_STATUS: Final = frozenset({"application/x-protobuf", "application/octet-stream"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A 2xx answer. Header names are case-insensitive; ``body`` is decoded and cut at 64 KiB (then ``truncated``)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()


class HTTPClient:
    """One client for all requests of a component. ``key`` is the path of its configuration, for messages."""

    def __init__(
        self,
        config: HTTPClientConfig,
        *,
        key: str,
        clock: Clock,
        user_agent: str,
        retryable: frozenset[int] = RETRYABLE_STATUSES,
        fixed_headers: Mapping[str, str] | None = None,
    ) -> None:
        """``fixed_headers`` are the protocol's own and cannot be overridden by the user's ``headers``.

        Raises:
            ValueError: a value that cannot work; the message names its key.
        """
        self._config = config
        self._key = key
        self._clock = clock
        self._retryable = retryable
        self._level = config.compression_params.get("level")
        given = {name: value.get_secret_value() for name, value in config.headers.items()}
        for name, value in given.items():
            if any(ch in name + value for ch in "\r\n\0") or not name:
                raise ValueError(f"{key}::headers::{name!r}: names and values hold no line breaks")
        if unknown := set(config.compression_params) - {"level"}:
            raise ValueError(f"{key}::compression_params: unknown key {', '.join(sorted(unknown))}; allowed: level")
        merged: dict[str, tuple[str, str]] = {}
        for headers in ({"User-Agent": user_agent}, given, fixed_headers or {}):  # later ones win, whatever their case
            merged |= {name.lower(): (name, value) for name, value in headers.items()}
        self._headers = dict(merged.values())
        self.redactor = Redactor(given.values(), (config.endpoint, config.proxy_url))
        self._tls: ReloadingClientContext | None = None
        self._authenticator: ClientAuthenticator | None = None
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def open(self, host: Host) -> None:
        """Read certificates and make the pool; no connection yet.

        Raises:
            ValueError: certificates or the authenticator cannot be used; the message names the key.
        """
        config = self._config
        self._authenticator = find_client_authenticator(host, config.auth, self._key)
        try:
            self._tls = ReloadingClientContext(config.tls, self._clock.monotonic_s)
        except ValueError as exc:
            raise ValueError(f"{self._key}::{exc}") from exc
        pool: dict[str, Any] = {} if config.disable_keep_alives else {"keepalive_timeout": config.idle_conn_timeout or 24 * 3600.0}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                limit_per_host=config.max_conns_per_host,
                force_close=config.disable_keep_alives,
                enable_cleanup_closed=False,
                **pool,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=config.timeout or None),
            headers=self._headers,
            auto_decompress=False,  # the bound holds while decompressing, below
            trust_env=False,  # that would read ~/.netrc as well
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()

    async def post(
        self, url: str, body: bytes, *, content_type: str, encoding: str | None = None, headers: Mapping[str, str] | None = None
    ) -> HTTPResponse:
        """Send ``body``, compressed as configured; with ``encoding`` it is in that encoding already. The answer, if it is a 2xx.

        Raises:
            PermanentError: the server refused it (reason ``http_<status>``), or the URL cannot be used.
            RetryableError: not now (``http_<status>``, with ``retry_after_s``), no connection (``connect``), no answer (``timeout``).
        """
        sent = {"Content-Type": content_type, "Accept-Encoding": "identity", **(headers or {})}
        if encoding is None:
            encoding = self._config.compression
            if encoding in {"", "none"} or not body:
                encoding = ""
            elif len(body) < _LEAVE_LOOP_FROM_BYTES:
                body = compress(encoding, body, self._level)
            else:
                body = await asyncio.to_thread(compress, encoding, body, self._level)
        if encoding:
            sent["Content-Encoding"] = encoding
        if self._authenticator is not None:
            sent |= self._authenticator.client_headers()
        try:
            try:
                return await self._exchange(url, body, sent)
            except aiohttp.ServerDisconnectedError:
                # An idle connection that the server closed as we took it from the pool: no answer was begun, so once more.
                return await self._exchange(url, body, sent)
        except TimeoutError as exc:
            raise RetryableError(f"POST {without_credentials(url)}: no answer in time", reason="timeout") from exc
        except aiohttp.InvalidURL as exc:
            raise PermanentError(f"POST: {self._why(exc)}", reason="bad_url") from exc
        except (aiohttp.ClientError, ssl.SSLError, OSError) as exc:
            raise RetryableError(f"POST {without_credentials(url)}: {self._why(exc)}", reason="connect") from exc
        except ValueError as exc:
            raise PermanentError(f"POST: {self._why(exc)}", reason="bad_url") from exc

    async def _exchange(self, url: str, body: bytes, headers: Mapping[str, str]) -> HTTPResponse:
        if self._session is None or self._tls is None:
            raise RetryableError("the client is not open", reason="shutdown")
        async with self._session.post(
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            ssl=self._tls.get(),
            server_hostname=self._config.tls.server_name_override or None,
            proxy=self._proxy(url),
        ) as response:
            raw, truncated = await _read_bounded(response.content)
            if truncated:
                response.close()  # the rest is not worth reading; the connection cannot be used again
            answer, truncated = _decoded(response.headers.get("Content-Encoding", ""), raw, truncated=truncated)
            if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
                return HTTPResponse(response.status, response.headers, answer, truncated)
            raise self._error(without_credentials(url), response, answer)

    def _error(self, url: str, response: aiohttp.ClientResponse, body: bytes) -> Exception:
        status = response.status
        phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else self.redactor.excerpt(response.reason or "")
        said = self.redactor.excerpt(_message(body, response.content_type))
        message = f"POST {url}: {status} {phrase}" + (f": {said}" if said else "")
        reason = f"http_{status}"
        if status in self._retryable:
            after_s = parse_retry_after(response.headers.get("Retry-After", ""), self._clock.time_unix_nano() / 1e9)
            return RetryableError(message, reason=reason, retry_after_s=after_s)
        if status in range(300, 400):
            target = self.redactor.text(without_credentials(response.headers.get("Location", "")))
            message += f" (redirects are not followed; configure the final URL{': ' + target if target else ''})"
        return PermanentError(message, reason=reason)

    def _why(self, exc: BaseException) -> str:
        # aiohttp's connector errors end in the interesting part; others may hold the URL, so everything is redacted.
        return self.redactor.excerpt(f"{type(exc).__name__}: {exc}")

    def _proxy(self, url: str) -> str | None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.hostname}"
        if origin not in self._proxies:
            self._proxies[origin] = self._find_proxy(parts.scheme, parts.hostname or "")
        return self._proxies[origin]

    def _find_proxy(self, scheme: str, host: str) -> str | None:
        if self._config.proxy_url:
            return self._config.proxy_url
        if host in _LOOPBACK or urllib.request.proxy_bypass(host):
            return None
        return urllib.request.getproxies().get(scheme)


def parse_retry_after(value: str, now_unix_s: float) -> float | None:
    """Seconds to wait, from delta-seconds or an HTTP-date; None where there is neither. Never negative, a day at most."""
    value = value.strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        # A number of thousands of digits is no wait either.
        return min(float(value[:12]), _MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(at - now_unix_s, 0.0), _MAX_RETRY_AFTER_S)


def _message(body: bytes, content_type: str) -> bytes | str:
    """The text of an error: OTLP servers answer with a google.rpc.Status (Loki calls it octet-stream)."""
    if content_type in _MAY_BE_STATUS:
        with suppress(DecodeError):
            return str(status_pb2.Status.FromString(body).message)
    return body


async def _read_bounded(stream: aiohttp.StreamReader) -> tuple[bytes, bool]:
    """At most 64 KiB of the body; whether there was more."""
    parts: list[bytes] = []
    room = _MAX_RESPONSE_BYTES + 1
    while room > 0:
        part = await stream.read(room)
        if not part:
            break
        parts.append(part)
        room -= len(part)
    body = b"".join(parts)
    return body[:_MAX_RESPONSE_BYTES], len(body) > _MAX_RESPONSE_BYTES


def _decoded(encoding: str, body: bytes, *, truncated: bool) -> tuple[bytes, bool]:
    """The answer of a server that compresses although it was asked not to."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"} or not body:
        return body, truncated
    try:
        return decompress(encoding, body, _MAX_RESPONSE_BYTES), truncated
    except (BadEncoding, TooLarge):
        return b"", True
