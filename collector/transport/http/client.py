"""An HTTP client from a confighttp block: POST a body, get a bounded response or an error that a queue understands.

It uses HTTP/1.1 only: the block's HTTP/2 keys are accepted without effect, and so is ``max_idle_conns``, since there
are never more connections than senders. Redirects are not followed, so that a body goes nowhere that is not
configured. The proxy is ``proxy_url`` or, as in Go, that of HTTPS_PROXY, HTTP_PROXY and NO_PROXY; never for loopback
addresses.

Source: open-telemetry/opentelemetry-collector config/confighttp; RFC 9110 §10.2.3 (Retry-After).
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit
from urllib.request import getproxies_environment

from google.protobuf.message import DecodeError
from google.rpc import status_pb2  # type: ignore[import-untyped] # googleapis-common-protos has no py.typed

from collector.api import Clock, Host, PermanentError, RetryableError, TooLargeError
from collector.transport.auth import ClientAuthenticator, HeaderChanger, find_client_authenticator
from collector.transport.compression import BadEncoding, TooLarge, compress, decompress
from collector.transport.http.client_connection import DisconnectedError, RawResponse
from collector.transport.http.pool import Origin, Pool, basic_credentials
from collector.transport.http2.client import is_reached_directly
from collector.transport.redaction import Redactor, without_credentials
from collector.transport.tls import ReloadingClientContext
from config.blocks import HTTPClientConfig
from config.blocks.http import proxy_with_scheme

__all__ = ["RETRYABLE_STATUSES", "HTTPClient", "HTTPResponse", "parse_retry_after"]

RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
"""OTLP specification, "Retryable Response Codes"."""

_MAX_RESPONSE_BYTES: Final = 64 * 1024  # decoded; connections truncate bodies at the same size
_MAX_RETRY_AFTER_S: Final = 24 * 3600.0
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
_STATUS_CONTENT_TYPES: Final = frozenset({"application/x-protobuf", "application/octet-stream"})
_MAX_TARGETS: Final = 64  # URLs come from the configuration; the cache is bounded all the same
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~-._"
_TOO_LARGE_STATUSES: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE}
)
_TOO_LARGE: Final = re.compile(
    # Only at the beginning, before any quoted name or label set: text from senders must not count as the server's.
    r"[^'{]{0,120}?(?:request body too large"  # Go's net/http, and so the Collector
    r"|message(?: size too large| larger) than max \(\d"  # Loki, Cortex; gRPC behind Loki and Thanos
    r"|decoded size exceeds the \d+ bytes limit"  # Prometheus
    r"|message size of \d+ bytes[^'{]{0,20} is larger than the allowed limit"  # Mimir
    r"|too big (?:packed|unpacked|data) (?:request|size))"  # VictoriaMetrics, VictoriaLogs
)


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A 2xx response; ``body`` is decoded, and truncated at 64 KiB or where it was cut off (then ``is_truncated``)."""

    status: int
    content_type: str
    """Without parameters, in lower case."""
    body: bytes
    is_truncated: bool = False
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    """Lower-case names, with their first value."""


@dataclass(frozen=True, slots=True)
class _Target:
    """The part of a request that its URL determines."""

    origin: Origin
    lines: dict[str, bytes]
    """The request line under the name "", then its headers: lower-case name → line."""


class HTTPClient:
    """One client for all requests of a component. ``key``: path of its configuration block, for messages."""

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
        """``fixed_headers`` belong to the protocol; they are among the ``reserved_headers`` of the configuration.

        Raises:
            ValueError: the environment names a proxy that cannot be used.
        """
        self._config = config
        self._key = key
        self._clock = clock
        self._retryable = retryable
        self._level = config.compression_params.get("level")
        configured = {name: value.get_secret_value() for name, value in config.headers.items()}
        fixed = {name.lower(): (name, value) for name, value in (fixed_headers or {}).items()}
        self._headers = {"user-agent": ("User-Agent", user_agent)}
        self._headers |= {name.lower(): (name, value) for name, value in configured.items()}
        self._headers |= fixed
        if config.disable_keep_alives:
            self._headers["connection"] = ("Connection", "close")
        proxy_url = config.proxy_url if "://" in config.proxy_url else f"http://{config.proxy_url}"
        self.redactor = Redactor(configured.values(), (config.endpoint, proxy_url))
        self._tls: ReloadingClientContext | None = None
        self._authenticator: ClientAuthenticator | None = None
        self._pool: Pool | None = None
        self._targets: dict[str, _Target] = {}
        self._proxies: dict[str, str | None] = {}
        if config.endpoint:
            self._proxy(config.endpoint)  # refuses one of the environment that is not valid

    async def open(self, host: Host) -> None:
        """Read certificates and create the pool. It connects with the first request.

        Raises:
            ValueError: certificates or the authenticator cannot be used; the message names the key.
        """
        config = self._config
        self._authenticator = find_client_authenticator(host, config.auth, self._key)
        try:
            self._tls = ReloadingClientContext(config.tls, self._clock.monotonic_s)
        except ValueError as exc:
            raise ValueError(f"{self._key}::{exc}") from exc
        self._pool = Pool(
            self._tls.get,
            server_name=config.tls.server_name_override,
            max_per_origin=config.max_conns_per_host,
            idle_s=config.idle_conn_timeout,
            keeps_alive=not config.disable_keep_alives,
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._pool is not None:
            pool, self._pool = self._pool, None
            await pool.close()

    async def post(
        self,
        url: str,
        body: bytes,
        *,
        content_type: str,
        encoding: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> HTTPResponse:
        """Send ``body``, compressed as configured or already in ``encoding``, and return a 2xx response.

        A 2xx status is final: if the rest of the response is missing, invalid or late, it is truncated, not an error.

        Raises:
            PermanentError: the server refused it (``http_<status>``), or the URL is not valid. For its size (413,
                or a response that says so), a TooLargeError.
            RetryableError: try again later (``http_<status>``, with ``retry_after_s``), no connection (``connect``), or
                no response (``timeout``).
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
        changes: Mapping[str, str | None] = {}
        if isinstance(self._authenticator, HeaderChanger):
            changes = self._authenticator.header_changes({name.lower() for name in (*self._headers, *sent)})
        elif self._authenticator is not None:
            changes = self._authenticator.client_headers()
        pool = self._pool
        if pool is None:
            raise RetryableError("the client is not open", reason="shutdown")
        accepted: list[RawResponse] = []
        try:
            target = self._target(url)
            head = _head(target.lines, {**sent, **changes}, len(body))
            async with asyncio.timeout(self._config.timeout or None):
                try:
                    response = await pool.exchange(target.origin, head, body, accepted)
                except DisconnectedError as exc:
                    if not exc.is_stale:
                        raise
                    # The server closed an idle connection while we took it from the pool: send the request again.
                    response = await pool.exchange(target.origin, head, body, accepted)
        except TimeoutError as exc:
            if not accepted:
                raise RetryableError(
                    f"POST {without_credentials(url)}: no response within the timeout", reason="timeout"
                ) from exc
            response = accepted[0]
        except OSError as exc:
            raise RetryableError(f"POST {without_credentials(url)}: {self._describe(exc)}", reason="connect") from exc
        except ValueError as exc:
            raise PermanentError(f"POST: {self._describe(exc)}", reason="bad_url") from exc
        return self._checked(url, response)

    def _checked(self, url: str, response: RawResponse) -> HTTPResponse:
        """Return a 2xx response; raise the error for any other."""
        body, is_truncated = _decoded(
            _text(response, b"content-encoding"), response.body, is_truncated=response.is_truncated
        )
        content_type = _text(response, b"content-type").partition(";")[0].strip().lower()
        if HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            return HTTPResponse(response.status, content_type, body, is_truncated, response.headers)
        raise self._error(without_credentials(url), response, content_type, body)

    def _target(self, url: str) -> _Target:
        """Raise ValueError if ``url`` is not valid."""
        target = self._targets.get(url)
        if target is not None:
            return target
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host:
            raise ValueError(f"{without_credentials(url)!r} is not a valid URL: expected http:// or https://")
        if not host.isascii():
            host = host.encode("idna").decode()
        default_port = 443 if parts.scheme == "https" else 80
        origin = Origin(parts.scheme, host, parts.port or default_port, self._proxy(url) or "")
        authority = f"[{host}]" if ":" in host else host
        if origin.port != default_port:
            authority += f":{origin.port}"
        path = quote(parts.path or "/", safe=_PATH_CHARACTERS) + (
            "?" + quote(parts.query, safe=_PATH_CHARACTERS + "?") if parts.query else ""
        )
        headers = dict(self._headers)
        headers.setdefault("host", ("Host", authority))
        if credentials := basic_credentials(url):
            headers.setdefault("authorization", ("Authorization", credentials))
        if origin.proxy and parts.scheme == "http":
            path = f"http://{authority}{path}"
            if credentials := basic_credentials(origin.proxy):
                headers["proxy-authorization"] = ("Proxy-Authorization", credentials)
        lines = {"": f"POST {path} HTTP/1.1\r\n".encode()} | {name: _line(*header) for name, header in headers.items()}
        if len(self._targets) >= _MAX_TARGETS:
            self._targets.clear()
        self._targets[url] = target = _Target(origin, lines)
        return target

    def _error(self, url: str, response: RawResponse, content_type: str, body: bytes) -> Exception:
        status = response.status
        phrase = (
            HTTPStatus(status).phrase
            if status in HTTPStatus._value2member_map_
            else self.redactor.excerpt(response.reason)
        )
        server_message = self.redactor.excerpt(_message(body, content_type))
        message = f"POST {url}: {status} {phrase}" + (f": {server_message}" if server_message else "")
        reason = f"http_{status}"
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (
            status in _TOO_LARGE_STATUSES and _TOO_LARGE.match(server_message)
        ):
            return TooLargeError(message, reason=reason)
        if status in self._retryable:
            after_s = parse_retry_after(_text(response, b"retry-after"), self._clock.time_unix_nano() / 1e9)
            return RetryableError(message, reason=reason, retry_after_s=after_s)
        if status in range(300, 400):
            location = self.redactor.text(without_credentials(_text(response, b"location")))
            message += f" (redirects are not followed; configure the final URL{': ' + location if location else ''})"
        return PermanentError(message, reason=reason)

    def _describe(self, exc: BaseException) -> str:
        return self.redactor.excerpt(f"{type(exc).__name__}: {exc}")

    def _proxy(self, url: str) -> str | None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.hostname}"
        if origin not in self._proxies:
            self._proxies[origin] = self._find_proxy(parts.scheme, parts.hostname or "")
        return self._proxies[origin]

    def _find_proxy(self, scheme: str, host: str) -> str | None:
        if self._config.proxy_url:
            return proxy_with_scheme(self._config.proxy_url, "proxy_url")
        environment = getproxies_environment()
        url = environment.get(scheme, "")
        if not url or is_reached_directly(host, environment):
            return None
        return proxy_with_scheme(url, f"the environment variable {scheme.upper()}_PROXY")


def parse_retry_after(value: str, now_unix_s: float) -> float | None:
    """Return the seconds to wait, from delta-seconds or an HTTP-date: from 0 to a day; None if it is neither."""
    value = value.strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        # The number may have thousands of digits.
        return min(float(value[:12]), _MAX_RETRY_AFTER_S)
    try:
        time_unix_s = parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(time_unix_s - now_unix_s, 0.0), _MAX_RETRY_AFTER_S)


def _message(body: bytes, content_type: str) -> bytes | str:
    """Return the text of an error. OTLP servers send a google.rpc.Status (Loki labels it octet-stream)."""
    if content_type in _STATUS_CONTENT_TYPES:
        with suppress(DecodeError):
            return str(status_pb2.Status.FromString(body).message)
    return body


def _line(name: str, value: str) -> bytes:
    """Return a header's line; raise ValueError if the value would end it."""
    line = f"{name}: {value}".encode()
    if b"\r" in line or b"\n" in line or b"\0" in line:
        raise ValueError(f"header {name[:64]!r}: names and values must not contain line breaks")
    return line + b"\r\n"


def _head(lines: dict[str, bytes], headers: Mapping[str, str | None], length: int) -> bytes:
    """Return the head of a request; ``headers`` override those of its URL, and None removes one."""
    changed = {name.lower(): b"" if value is None else _line(name, value) for name, value in headers.items()}
    lines = lines | changed
    return b"".join((*lines.values(), b"Content-Length: %d\r\n\r\n" % length))


def _text(response: RawResponse, name: bytes) -> str:
    return response.headers.get(name, b"").decode("utf-8", "replace")


def _decoded(encoding: str, body: bytes, *, is_truncated: bool) -> tuple[bytes, bool]:
    """Return the decoded body: some servers compress although they were asked not to; and whether it is truncated."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"} or not body:
        return body, is_truncated
    try:
        return decompress(encoding, body, _MAX_RESPONSE_BYTES), is_truncated
    except (BadEncoding, TooLarge):
        return b"", True
