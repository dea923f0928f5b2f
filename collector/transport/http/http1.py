"""The server's side of an HTTP/1.1 connection, parsed by llhttp (httptools), as an asyncio protocol.

Pipelined requests are served concurrently and answered in order. Upgrades are ignored, also if the request has a body,
which llhttp takes for bytes of the other protocol. Input that is not valid HTTP/1.0 or 1.1 is answered 400, 431, 501 or
505, and the connection is closed.

All connections of a server read into one buffer: the input is parsed before the next connection reads.

Source: RFC 9112; RFC 9110 §10.1.1 (Expect).
"""

import asyncio
from collections import deque
from typing import Any, Final

import httptools

from collector.transport.http.headers import header_bytes
from collector.transport.http.http1_connections import HTTP1Connections
from collector.transport.http.request import Request
from collector.transport.http.response import Refused, Response

__all__ = ["HTTP1Connection"]

_MAX_FIELD_BYTES: Final = 16 * 1024  # of one header, or of the target; large enough for tokens
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_HEADERS: Final = 128
_MAX_PIPELINED: Final = 32  # with more unanswered requests, reading pauses
_MAX_DISCARD_BYTES: Final = 64 * 1024  # up to this much of an unwanted body is read, to keep the connection
_IDLE_S: Final = 3630.0  # for idle_timeout: 0; longer than proxies keep connections, so that they close first
# A head, a body or a client that does not read is given up after this long, whatever is configured.
_STALLED_S: Final = 60.0
# How long the rest of a refused body is read, so that the client receives the response and not a reset.
_LINGER_S: Final = 2.0

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"Connection: close\r\n\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n\r\n"
_END: Final = b"\r\n"
_NEVER: Final = float("inf")
_CLOSING_STATUSES: Final = frozenset({408, 413})
_BAD_REQUEST: Final = Response.text(400, "400 bad request")
_HEAD_TOO_LARGE: Final = Response.text(431, "431 request header fields too large")
_NOT_IMPLEMENTED: Final = Response.text(501, "501 unsupported transfer encoding")
_VERSION: Final = Response.text(505, "505 http version not supported")

# Why a connection does not read: a request waits, too many are unanswered, or the client reads no responses.
_HELD, _FULL, _UNREAD = 1, 2, 4
# What a connection's timer waits for.
_REQUEST, _HEAD, _BODY, _LINGER, _CLOSE_DONE = range(5)


class _HTTP1Request(Request):
    """A request, with what its connection keeps about it."""

    __slots__ = ("awaits_continue", "body_deadline_s", "is_http10", "is_last", "is_whole", "lingers", "response")
    response: Response | None
    awaits_continue: bool
    body_deadline_s: float
    is_http10: bool
    is_last: bool
    """The connection closes after its response."""
    is_whole: bool
    """All of it has arrived."""
    lingers: bool
    """More input may follow that is read only to be discarded."""


class HTTP1Connection(asyncio.BufferedProtocol):
    """One connection.

    To hand over a connection that another protocol accepted, call ``connection_made``, then ``feed`` with what was
    read.
    """

    def __init__(self, connections: HTTP1Connections) -> None:
        self._connections = connections
        self._routes = connections.routes
        config = self._routes.config
        self._keeps_alive = config.keep_alives_enabled
        self._idle_s = config.idle_timeout or config.read_timeout or _IDLE_S
        self._head_s = config.read_header_timeout or config.read_timeout or _STALLED_S
        self._body_s = config.read_timeout or _NEVER
        self._write_s = config.write_timeout or _STALLED_S
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[_HTTP1Request] = deque()  # not answered yet, or answered before an earlier request
        self._current: _HTTP1Request | None = None  # the request whose body is being read
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated: list[tuple[bytes, bytes]] = []
        self._in_head = False
        self._has_begun = False  # a message has begun in this feed
        self._fed_bytes = 0  # of the current message, in this and earlier feeds
        self._is_upgrade = False
        self._is_replaying = False  # parsing the head of a request with an upgrade once more
        self._is_feeding = False
        self._takes_no_more = False  # the last request of the connection has begun
        self._is_draining = False
        self._is_ending = False  # answered the last request, or about to close: input is ignored
        self._pauses = self._pause_count = 0
        self._deadline_s = _NEVER
        self._awaited = _REQUEST
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = _NEVER
        self.peer: str | None = None
        self.is_unix = False

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) else None
        self.is_unix = not isinstance(address, tuple)
        now_s = self._loop.time()
        if self._routes.config.read_header_timeout:  # for the first request it counts from here
            self._wait(_HEAD, now_s + self._head_s)
        else:
            self._wait(_REQUEST, now_s + self._idle_s)
        self._connections.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """See asyncio."""
        return self._connections.head_buffer if self._current is None else self._connections.body_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self.feed(self._connections.body_buffer[:nbytes])

    def feed(self, data: memoryview | bytes) -> None:
        """Process input."""
        if self._is_ending or (self._takes_no_more and self._current is None):
            return
        self._is_feeding = True
        self._has_begun = False
        self._fed_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as exc:  # a bug of ours
            self._routes.log_error(exc.__context__ or exc)
            self._is_ending = True
            self._transport.abort()
            return
        except httptools.HttpParserError:
            self._malformed()
        if not self._in_head and self._current is None:
            self._fed_bytes = 0
        elif self._has_begun:  # how much of this feed belongs to the new message is unknown, but bounded by the buffer
            self._fed_bytes = min(len(data), _MAX_FIELD_BYTES)
        else:
            self._bound_overhead()
        self._is_feeding = False
        queue = self._queue
        if queue and queue[0].response is not None:
            self._flush()
        current = self._current
        if current is not None and current.awaits_continue and queue[0] is current:
            self._send_continue(current)
        if len(queue) > _MAX_PIPELINED:
            self._pause(_FULL)
        self._watch()

    def eof_received(self) -> bool:
        """See asyncio. The client sends no more but may still read, so it gets its responses."""
        current = self._current
        if current is not None:  # an incomplete request gets no response
            self._current = None
            if self._queue and self._queue[-1] is current:
                self._queue.pop()
            current.abandon()
        self._takes_no_more = True
        stays = bool(self._queue) and not self._is_ending and self._transport.get_extra_info("sslcontext") is None
        if not stays:
            self._is_ending = True
        return stays

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """See asyncio."""
        self._connections.remove(self)
        self._is_ending = True
        if self._timer is not None:
            self._timer.cancel()
        for request in self._queue:
            request.abandon()
        if self._current is not None:
            self._current.abandon()
        self._queue.clear()
        self._current = None
        del self._parser  # it refers to this object

    def pause_writing(self) -> None:
        """See asyncio: the client does not read its responses."""
        self._pause(_UNREAD)
        self._wait(_CLOSE_DONE, self._loop.time() + self._write_s)

    def resume_writing(self) -> None:
        """See asyncio."""
        self._resume(_UNREAD)
        self._deadline_s = _NEVER
        self._watch()

    def drain(self) -> None:
        """Answer the requests that have begun, then close."""
        self._is_draining = self._takes_no_more = True
        if not self._queue and self._current is None:
            self._end()

    def close_after_next(self) -> None:
        """Close after the responses to the requests that have begun, or to the next one if there are none."""
        if self._queue or self._current is not None:
            self.drain()
        else:
            self._keeps_alive = False

    def abort(self) -> None:
        """Close at once."""
        self._is_ending = True
        self._transport.abort()

    # Called by requests: see RequestTransport.

    def respond(self, request: Request, response: Response) -> None:
        """Send the response when it is its turn."""
        assert isinstance(request, _HTTP1Request)  # created here
        request.response = response
        if not request.is_whole and self._closes_after(request, response):
            request.is_last = self._takes_no_more = True
        if not self._is_feeding and self._queue and self._queue[0] is request:
            self._flush()
            self._watch()

    def pause_body(self) -> None:
        """See :class:`RequestTransport`."""
        self._pause_count += 1
        self._pause(_HELD)

    def resume_body(self) -> None:
        """See :class:`RequestTransport`. Reading continues when no request wants it paused."""
        self._pause_count -= 1
        if not self._pause_count:
            self._resume(_HELD)

    def send_continue(self, request: Request) -> None:
        """See :class:`RequestTransport`. Waits for the request's turn, and does nothing if the body arrives unasked."""
        assert isinstance(request, _HTTP1Request)
        request.awaits_continue = not request.is_http10
        if not self._is_feeding and self._queue[0] is request:
            self._send_continue(request)

    # Called by llhttp.

    def on_message_begin(self) -> None:
        """The first byte of a request has arrived, or of something else."""
        if self._is_replaying or self._takes_no_more:
            return
        self._has_begun = True
        self._in_head = True
        self._target = b""
        self._headers = {}
        self._repeated = []

    def on_url(self, part: bytes) -> None:
        """Part of the target."""
        if self._in_head:
            self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the body, a trailer, which is ignored."""
        if not self._in_head:
            return
        name = name.lower()
        if name in self._headers:
            self._repeated.append((name, value))
        else:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if not self._in_head:
            return
        self._in_head = False
        self._awaited, self._deadline_s = _REQUEST, _NEVER
        parser, headers = self._parser, self._headers
        version = parser.get_http_version()
        if (self._fed_bytes > _MAX_FIELD_BYTES and self._is_too_large()) or len(headers) + len(
            self._repeated
        ) > _MAX_HEADERS:
            self._refuse(_HEAD_TOO_LARGE, "head_too_large")
            return
        length: int | None = int(headers.get(b"content-length", 0))  # llhttp has checked that these are digits
        if b"transfer-encoding" in headers:
            length = None
        if version != "1.1":
            if version != "1.0" or length is None:
                self._refuse(*((_VERSION, "version") if version != "1.0" else (_BAD_REQUEST, "bad_request")))
                return
        elif b"host" not in headers or (self._repeated and any(name == b"host" for name, _ in self._repeated)):
            self._refuse(_BAD_REQUEST, "bad_request")
            return
        if length is None and headers[b"transfer-encoding"].lower() != b"chunked":
            self._refuse(_NOT_IMPLEMENTED, "transfer_encoding")
            return
        method = parser.get_method().decode()
        request = _HTTP1Request(self._routes, self, method, self._path(), headers, length, self._repeated)
        if b"?" in self._target:
            request.query = self._target.partition(b"?")[2].decode("latin-1")
        request.response = None
        request.awaits_continue = request.is_whole = request.lingers = False
        request.is_http10 = version == "1.0"
        request.is_last = not (self._keeps_alive and parser.should_keep_alive()) or method == "CONNECT"
        request.body_deadline_s = self._loop.time() + self._body_s if self._body_s != _NEVER else _NEVER
        self._takes_no_more = request.is_last
        self._is_upgrade = parser.should_upgrade()
        self._current = request
        self._queue.append(request)
        request.start()

    def on_body(self, part: bytes) -> None:
        """Part of the body, without its framing."""
        if self._current is not None:
            self._current.feed(part)

    def on_message_complete(self) -> None:
        """The request is complete."""
        current = self._current
        if current is None or self._is_upgrade:  # after an upgrade, the body is still to come
            return
        self._current = None
        current.is_whole = True
        current.complete()

    # Reading.

    def _parse(self, data: memoryview | bytes) -> None:
        while True:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                if self._current is None:  # the request was refused
                    return
                data = data[exc.args[0] :]
                self._ignore_upgrade(self._current)
            else:
                return

    def _ignore_upgrade(self, request: _HTTP1Request) -> None:
        """Continue behind the head as if there were no upgrade, with a new parser that has seen the same framing."""
        self._is_upgrade = False
        self._parser = httptools.HttpRequestParser(self)
        framing = b"Transfer-Encoding: chunked" if request.length is None else b"Content-Length: %d" % request.length
        self._is_replaying = True
        # Without a body, the last byte ends the message: that one counts.
        self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n\r")
        self._is_replaying = False
        self._parser.feed_data(b"\n")

    def _path(self) -> str:
        target = self._target
        if not target.startswith(b"/") and b"://" in target:  # absolute form, as to a proxy
            try:
                target = httptools.parse_url(target).path or b"/"
            except httptools.HttpParserInvalidURLError:
                target = b""
        return target.partition(b"?")[0].decode("latin-1")

    def _is_too_large(self) -> bool:
        fields = [*self._headers.items(), *self._repeated]
        sizes = [len(name) + len(value) for name, value in fields]
        return (
            len(self._target) > _MAX_FIELD_BYTES
            or max(sizes, default=0) > _MAX_FIELD_BYTES
            or sum(sizes) > _MAX_HEAD_BYTES
        )

    def _bound_overhead(self) -> None:
        """Bound the head, and the framing and trailers of chunked bodies, as Go does (CVE-2023-39326)."""
        current = self._current
        if current is None:
            if self._fed_bytes > _MAX_HEAD_BYTES:
                self._refuse(_HEAD_TOO_LARGE, "head_too_large")
        elif current.length is None and self._fed_bytes > _MAX_HEAD_BYTES + 2 * current.size_bytes:
            self._malformed()

    def _malformed(self) -> None:
        """Handle input that is not valid HTTP."""
        current = self._current
        if current is not None:
            self._break_off(
                current, Refused(400, "the framing of the body does not match its headers", reason="framing")
            )
        elif not self._takes_no_more:  # input after the last request is ignored
            self._refuse(_BAD_REQUEST, "bad_request")

    def _break_off(self, current: _HTTP1Request, refused: Refused) -> None:
        """Refuse a request whose remaining body cannot be parsed or does not arrive, and close."""
        self._takes_no_more = self._is_ending = current.is_last = current.lingers = True
        self._deadline_s = _NEVER
        if self._queue:
            current.reply(refused)
        else:  # it was answered before
            self._end(lingers=True)

    def _refuse(self, response: Response, reason: str) -> None:
        """Answer input that is not a request for a route, after the requests before it, and close."""
        self._connections.on_refused(reason)
        self._in_head = False
        self._takes_no_more = True
        request = _HTTP1Request(self._routes, self, "", "", {}, 0)
        request.awaits_continue = request.is_http10 = False
        request.is_whole = request.is_last = request.lingers = True
        self._queue.append(request)
        request.response = response

    # Writing.

    def _flush(self) -> None:
        """Write the responses whose turn it is."""
        routes, queue = self._routes, self._queue
        parts = []
        stays = True
        while stays and queue and (response := queue[0].response) is not None:
            request = queue.popleft()
            stays = not request.is_last and not (
                self._is_draining and request.is_whole and not queue and self._current is None
            )
            parts.append(response.http1_head)
            parts.append(routes.common_headers())
            if request.cors:
                parts.append(header_bytes(request.cors))
            parts.append((_KEEP if request.is_http10 else _END) if stays else _CLOSE)
            if request.method != "HEAD":
                parts.append(response.body)
        self._transport.write(b"".join(parts))
        if not stays:
            self._end(lingers=request.lingers or not request.is_whole)
        elif queue:
            if queue[0].awaits_continue and not self._is_feeding:
                self._send_continue(queue[0])
        elif self._takes_no_more and self._current is None:
            self._end()
        if self._pauses & _FULL and len(queue) <= _MAX_PIPELINED // 2:
            self._resume(_FULL)

    def _closes_after(self, request: _HTTP1Request, response: Response) -> bool:
        """Whether to close the connection rather than read the rest of an unwanted body."""
        if (
            request.length is None
            or request.length - request.size_bytes > _MAX_DISCARD_BYTES
            or response.status in _CLOSING_STATUSES
        ):
            return True
        # A client that waits for 100 Continue may or may not send the body after a refusal: only closing is clear.
        return b"expect" in request.headers

    def _send_continue(self, request: _HTTP1Request) -> None:
        if not request.is_whole and not request.size_bytes and request.response is None and not self._is_ending:
            self._transport.write(_CONTINUE)
        request.awaits_continue = False

    def _end(self, *, lingers: bool = False) -> None:
        """Close. With ``lingers``, first read what is on its way: the client must see the response, not a reset."""
        self._takes_no_more = self._is_ending = True
        for request in self._queue:
            request.abandon()
        self._queue.clear()
        self._resume(_FULL)
        if lingers and not self._transport.is_closing():
            self._wait(_LINGER, self._loop.time() + _LINGER_S)
            if self._transport.can_write_eof():
                self._transport.write_eof()
        else:
            self._wait(_CLOSE_DONE, self._loop.time() + self._write_s)
            self._transport.close()

    def _pause(self, why: int) -> None:
        if not self._pauses and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses |= why

    def _resume(self, why: int) -> None:
        if self._pauses == why and not self._transport.is_closing():
            self._transport.resume_reading()
        self._pauses &= ~why

    # Time-outs. The timer is replaced only by an earlier deadline; if it fires too early, it is set to the current one.

    def _watch(self) -> None:
        """Set the deadline for what the connection is doing now."""
        if self._is_ending or self._pauses & _UNREAD:
            return
        current = self._current
        if current is not None:
            # also while its caller is being authenticated
            self._wait(_BODY, min(current.body_deadline_s, self._loop.time() + _STALLED_S))
        elif self._in_head:
            if self._awaited != _HEAD:
                self._wait(_HEAD, self._loop.time() + self._head_s)
        elif self._queue:
            self._wait(_REQUEST, _NEVER)
        elif self._deadline_s == _NEVER or self._awaited == _BODY:
            self._wait(_REQUEST, self._loop.time() + self._idle_s)

    def _wait(self, what: int, deadline_s: float) -> None:
        self._awaited = what
        self._deadline_s = deadline_s
        if deadline_s < self._timer_at_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at_s = deadline_s
            self._timer = self._loop.call_at(deadline_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at_s = _NEVER
        if self._loop.time() < self._deadline_s:
            if self._deadline_s != _NEVER:
                self._wait(self._awaited, self._deadline_s)
            return
        current = self._current
        if self._awaited == _CLOSE_DONE:
            self.abort()
        elif self._awaited == _LINGER:
            self._end()
        elif self._awaited == _BODY and current is not None:
            self._break_off(current, Refused(408, "the body did not arrive in time", reason="timeout"))
        elif self._queue:  # an incomplete head behind requests that are being served
            self._takes_no_more = True
        else:
            self._end()
