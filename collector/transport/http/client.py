"""An HTTP client from a confighttp block: POST a body, get a bounded answer or an error the queue understands.

HTTP/1.1 alone: the block's HTTP/2 keys are read and have no effect, nor has ``max_idle_conns``, since there are never
more connections than senders. Redirects are not followed: a body must not wander to where nobody configured it to. A
proxy comes from ``proxy_url`` or, as in Go, from HTTPS_PROXY, HTTP_PROXY and NO_PROXY; never for the loopback.

Source: open-telemetry/opentelemetry-collector config/confighttp; RFC 9110 §10.2.3 (Retry-After).
"""

import asyncio
import re
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

from google.protobuf.message import DecodeError
from google.rpc import status_pb2  # type: ignore[import-untyped] # googleapis-common-protos has no py.typed

from collector.api import Clock, Host, PermanentError, RetryableError, TooLargeError
from collector.transport.client_auth import ClientAuthenticator, find_client_authenticator
from collector.transport.compression import BadEncoding, TooLarge, compress, decompress
from collector.transport.http.pool import DisconnectedError, Origin, Pool, RawAnswer, basic_credentials
from collector.transport.redaction import Redactor, without_credentials
from collector.transport.tls import ReloadingClientContext
from config.blocks import HTTPClientConfig

__all__ = ["RETRYABLE_STATUSES", "HTTPClient", "HTTPResponse", "parse_retry_after"]

RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})
"""OTLP specification, "Retryable Response Codes"."""

_MAX_RESPONSE_BYTES: Final = 64 * 1024  # decoded; the pool cuts what comes at the same length
_MAX_RETRY_AFTER_S: Final = 24 * 3600.0
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
_MAY_BE_STATUS: Final = frozenset({"application/x-protobuf", "application/octet-stream"})
_MAX_TARGETS: Final = 64  # URLs come from the configuration; what is made of them is kept
_PATH_CHARACTERS: Final = "/%:@!$&'()*+,;=~-._"
_MAY_SAY_TOO_LARGE: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE}
)
_TOO_LARGE: Final = re.compile(
    # At the beginning and before any quoted name or label set: what senders wrote must not be taken for the server's
    # words.
    r"[^'{]{0,120}?(?:request body too large"  # Go's net/http, and so the Collector
    r"|message(?: size too large| larger) than max \(\d"  # Loki, Cortex; gRPC behind Loki and Thanos
    r"|decoded size exceeds the \d+ bytes limit"  # Prometheus
    r"|message size of \d+ bytes[^'{]{0,20} is larger than the allowed limit"  # Mimir
    r"|too big (?:packed|unpacked|data) (?:request|size))"  # VictoriaMetrics, VictoriaLogs
)
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "proxy-authorization"})  # ours to write
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class HTTPResponse:
    """A 2xx answer; ``body`` is decoded and cut at 64 KiB (then ``truncated``)."""

    status: int
    content_type: str
    """Without parameters, in lower case."""
    body: bytes
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL makes of a request."""

    origin: Origin
    lines: dict[str, bytes]
    """The request line under the name "", then its headers: lower-case name → line."""


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
        self._headers = {name: header for name, header in merged.items() if name not in _FRAMING}
        if config.disable_keep_alives:
            self._headers["connection"] = ("Connection", "close")
        self.redactor = Redactor(given.values(), (config.endpoint, config.proxy_url))
        self._tls: ReloadingClientContext | None = None
        self._authenticator: ClientAuthenticator | None = None
        self._pool: Pool | None = None
        self._targets: dict[str, _Target] = {}
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
        """Send ``body``, compressed as configured; with ``encoding`` it is in that encoding already. The answer, if it is a 2xx.

        Raises:
            PermanentError: the server refused it (reason ``http_<status>``), or the URL cannot be used. For its size
                (413, or an
                answer that says so): a TooLargeError.
            RetryableError: not now (``http_<status>``, with ``retry_after_s``), no connection (``connect``), no answer
                (``timeout``).
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
        pool = self._pool
        if pool is None:
            raise RetryableError("the client is not open", reason="shutdown")
        try:
            target = self._target(url)
            head = _head(target.lines, sent, len(body))
            async with asyncio.timeout(self._config.timeout or None):
                try:
                    answer = await pool.exchange(target.origin, head, body)
                except DisconnectedError as exc:
                    if not exc.is_stale:
                        raise
                    # The server closed an idle connection as we took it from the pool: no answer was begun, so once
                    # more.
                    answer = await pool.exchange(target.origin, head, body)
        except TimeoutError as exc:
            raise RetryableError(f"POST {without_credentials(url)}: no answer in time", reason="timeout") from exc
        except OSError as exc:
            raise RetryableError(f"POST {without_credentials(url)}: {self._why(exc)}", reason="connect") from exc
        except ValueError as exc:
            raise PermanentError(f"POST: {self._why(exc)}", reason="bad_url") from exc
        return self._response(url, answer)

    def _response(self, url: str, answer: RawAnswer) -> HTTPResponse:
        """The answer, if it is a 2xx; raises what the others mean."""
        body, is_truncated = _decoded(_text(answer, b"content-encoding"), answer.body, truncated=answer.is_truncated)
        content_type = _text(answer, b"content-type").partition(";")[0].strip().lower()
        if HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES:
            return HTTPResponse(answer.status, content_type, body, is_truncated)
        raise self._error(without_credentials(url), answer, content_type, body)

    def _target(self, url: str) -> _Target:
        """Raises ValueError where ``url`` cannot be used."""
        found = self._targets.get(url)
        if found is not None:
            return found
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme not in {"http", "https"} or not host:
            raise ValueError(f"{without_credentials(url)} is no http:// or https:// URL")
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
        self._targets[url] = found = _Target(origin, lines)
        return found

    def _error(self, url: str, answer: RawAnswer, content_type: str, body: bytes) -> Exception:
        status = answer.status
        phrase = (
            HTTPStatus(status).phrase
            if status in HTTPStatus._value2member_map_
            else self.redactor.excerpt(answer.reason)
        )
        said = self.redactor.excerpt(_message(body, content_type))
        message = f"POST {url}: {status} {phrase}" + (f": {said}" if said else "")
        reason = f"http_{status}"
        if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or (status in _MAY_SAY_TOO_LARGE and _TOO_LARGE.match(said)):
            return TooLargeError(message, reason=reason)
        if status in self._retryable:
            after_s = parse_retry_after(_text(answer, b"retry-after"), self._clock.time_unix_nano() / 1e9)
            return RetryableError(message, reason=reason, retry_after_s=after_s)
        if status in range(300, 400):
            target = self.redactor.text(without_credentials(_text(answer, b"location")))
            message += f" (redirects are not followed; configure the final URL{': ' + target if target else ''})"
        return PermanentError(message, reason=reason)

    def _why(self, exc: BaseException) -> str:
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


def _line(name: str, value: str) -> bytes:
    """Raises ValueError where the value would end its line."""
    line = f"{name}: {value}".encode()
    if b"\r" in line or b"\n" in line or b"\0" in line:
        raise ValueError(f"header {name[:64]!r}: names and values hold no line breaks")
    return line + b"\r\n"


def _head(lines: dict[str, bytes], headers: Mapping[str, str], length: int) -> bytes:
    """The head of a request; ``headers`` override those of its URL."""
    lines = lines | {name.lower(): _line(name, value) for name, value in headers.items()}
    return b"".join((*lines.values(), b"Content-Length: %d\r\n\r\n" % length))


def _text(answer: RawAnswer, name: bytes) -> str:
    return answer.headers.get(name, b"").decode("utf-8", "replace")


def _decoded(encoding: str, body: bytes, *, truncated: bool) -> tuple[bytes, bool]:
    """The answer of a server that compresses although it was asked not to."""
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"} or not body:
        return body, truncated
    try:
        return decompress(encoding, body, _MAX_RESPONSE_BYTES), truncated
    except (BadEncoding, TooLarge):
        return b"", True
