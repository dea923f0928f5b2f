"""The client's side of one HTTP/1.1 connection, parsed by llhttp (httptools): a request, then its bounded response.

Source: RFC 9112; RFC 9110 §15.2 (interim responses).
"""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httptools

__all__ = ["BadResponseError", "DisconnectedError", "HTTP1ClientConnection", "RawResponse"]

_MAX_BODY_BYTES: Final = 64 * 1024  # as the Collector's otlphttpexporter (maxHTTPResponseReadBytes)
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_RESPONSE_BYTES: Final = 1024 * 1024  # with interim responses and the framing of chunks
_JOIN_BELOW_BYTES: Final = 64 * 1024  # one write of head and body; above it a copy costs more than a second write


class DisconnectedError(ConnectionError):
    """The server closed before its response was complete.

    ``is_stale``: the connection was reused and not a byte of a response arrived, so the request may be sent again.
    """

    def __init__(self, message: str, *, is_stale: bool) -> None:
        super().__init__(message)
        self.is_stale = is_stale


class BadResponseError(ConnectionError):
    """The server sent something other than an HTTP/1 response, or one whose head is too large."""


@dataclass(frozen=True, slots=True)
class RawResponse:
    """A response as it arrived. Lower-case header names, with their first value; ``body`` is truncated at 64 KiB.

    A 2xx response is final once its head has arrived: if the rest of it does not arrive or is not valid, it is a
    truncated response, not an error, because the server has accepted the request and must not receive it again.
    """

    status: int
    reason: str
    headers: dict[bytes, bytes]
    body: bytes
    is_truncated: bool


class HTTP1ClientConnection(asyncio.Protocol):
    """One connection, with at most one request on it at a time. ``on_closed`` is called when it is closed."""

    context: ssl.SSLContext | None = None
    """The TLS context it was opened with, or None without TLS."""

    def __init__(self, on_closed: Callable[["HTTP1ClientConnection"], None]) -> None:
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self.transport: Any = None
        self.idle_since_s = 0.0
        self.is_closed = asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)
        self._response: asyncio.Future[RawResponse] | None = None
        self._use_count = 0
        self._is_usable = True
        self._is_tunnel = False
        self._reset()

    def _reset(self) -> None:
        self._received_bytes = self._body_bytes = 0
        self._status = 0
        self._reason = b""
        self._headers: dict[bytes, bytes] = {}
        self._parts: list[bytes] = []
        self._has_head = False

    async def exchange(
        self, head: bytes, body: bytes = b"", *, is_tunnel: bool = False, accepted: list[RawResponse] | None = None
    ) -> RawResponse:
        """Send a request and return the response. ``is_tunnel``: a CONNECT, whose response has no body.

        If it is cancelled while the body of a 2xx response arrives, ``accepted`` receives what has arrived of it.

        Raises:
            OSError: there is no response, or none that is valid HTTP.
        """
        self._reset()
        self._is_tunnel = is_tunnel
        self._use_count += 1
        if self.is_closed.is_set():
            raise DisconnectedError("the server closed the connection", is_stale=self._use_count > 1)
        self._response = self._loop.create_future()
        if len(body) < _JOIN_BELOW_BYTES:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        try:
            return await self._response
        except BaseException:
            self.abort()
            if accepted is not None and self._is_accepted():
                accepted.append(self._received(is_truncated=True))
            raise
        finally:
            self._response = None

    def use_tunnel(self, transport: asyncio.Transport) -> None:
        """Continue with the server behind the proxy, over ``transport``."""
        self.transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._is_usable = True
        self._use_count = 0

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._is_usable and not self.transport.is_closing()

    def close(self) -> None:
        """Close it gracefully."""
        self.transport.close()

    def abort(self) -> None:
        """Close it at once."""
        self._is_usable = False
        self.transport.abort()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._response is None or self._response.done():  # unsolicited
            self.abort()
            return
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._fail(BadResponseError(f"the response is not valid HTTP ({exc.__context__ or exc})"))
        else:
            if self._received_bytes > (_MAX_RESPONSE_BYTES if self._has_head else _MAX_HEAD_BYTES):
                self._fail(BadResponseError("the response's headers or chunk framing are too large"))

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio. The end of the connection may also be the end of a response."""
        headers = self._headers
        ends_here = (
            b"content-length" not in headers and b"chunked" not in headers.get(b"transfer-encoding", b"").lower()
        )
        self._is_usable = False
        if exc is None and self._has_head and ends_here:
            self._finish()
        else:
            is_stale = self._use_count > 1 and not self._received_bytes
            self._fail(DisconnectedError(str(exc) if exc else "the server closed the connection", is_stale=is_stale))
        self.is_closed.set()
        self._on_closed(self)

    # Called by llhttp.

    def on_message_begin(self) -> None:
        """A response begins."""
        if self._response is None or self._response.done():  # behind the expected one
            self._is_usable = False

    def on_status(self, part: bytes) -> None:
        """Part of the reason phrase."""
        self._reason += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer, which is ignored."""
        if not self._has_head:
            self._headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._has_head = True
            if self._is_tunnel:
                self._finish()

    def on_body(self, part: bytes) -> None:
        """Part of the body, without its framing."""
        if self._response is None or self._response.done():
            return
        self._parts.append(part)
        self._body_bytes += len(part)
        if self._body_bytes > _MAX_BODY_BYTES:
            self._is_usable = False  # the rest is not worth reading
            self._finish(is_truncated=True)

    def on_message_complete(self) -> None:
        """The response is complete. An interim one (1xx) is ignored: the final one follows."""
        if not self._has_head:
            self._reason, self._headers = b"", {}
        elif self._response is not None and not self._response.done():
            # Unsent bytes of this request would be read as the next request.
            self._is_usable = (
                self._is_usable and self._parser.should_keep_alive() and not self.transport.get_write_buffer_size()
            )
            self._finish()

    def _is_accepted(self) -> bool:
        """Whether the head of a 2xx response has arrived."""
        return self._has_head and 200 <= self._status < 300 and not self._is_tunnel

    def _received(self, *, is_truncated: bool) -> RawResponse:
        body = b"".join(self._parts)[:_MAX_BODY_BYTES]
        return RawResponse(self._status, self._reason.decode("latin-1"), self._headers, body, is_truncated)

    def _finish(self, *, is_truncated: bool = False) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_result(self._received(is_truncated=is_truncated))

    def _fail(self, error: Exception) -> None:
        self._is_usable = False
        if self._is_accepted():
            self._finish(is_truncated=True)
        elif self._response is not None and not self._response.done():
            self._response.set_exception(error)
