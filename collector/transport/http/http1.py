"""The server's side of an HTTP/1.1 connection, parsed by llhttp (httptools), as an asyncio protocol.

Pipelined requests are served side by side and answered in order. An Upgrade is ignored, also where the request has a
body, which llhttp takes for the other protocol's. What is no HTTP/1.0 or 1.1 is answered 400, 431, 501 or 505 and the
connection closed.

All connections of a server read into one buffer: what arrives is parsed before the next connection reads.

Source: RFC 9112; RFC 9110 §10.1.1 (Expect).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import httptools

from collector.transport.http.answer import Answer, Refused
from collector.transport.http.headers import header_bytes
from collector.transport.http.service import Request, Service

__all__ = ["Connections", "HTTP1Connection"]

_MAX_FIELD_BYTES: Final = 16 * 1024  # one header, or the target; tokens fit
_MAX_HEAD_BYTES: Final = 64 * 1024
_MAX_HEADERS: Final = 128
_MAX_PIPELINED: Final = 32  # with more requests unanswered, the connection is not read
_SWALLOW_BYTES: Final = 64 * 1024  # so much of a body that nobody wants is read to keep the connection
_IDLE_S: Final = 3630.0  # with idle_timeout: 0; longer than proxies keep theirs, so that they close first
# a head, body or reader of answers that takes this long gives up its place, whatever is configured
_STALLED_S: Final = 60.0
# how long the rest of a refused body is read, so that the sender sees the answer and not a reset
_LINGER_S: Final = 2.0

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE: Final = b"Connection: close\r\n\r\n"
_KEEP: Final = b"Connection: keep-alive\r\n\r\n"
_END: Final = b"\r\n"
_NEVER: Final = float("inf")
_CLOSED_AFTER: Final = frozenset({408, 413})
_BAD_REQUEST: Final = Answer.text(400, "400 bad request")
_HEAD_TOO_LARGE: Final = Answer.text(431, "431 request header fields too large")
_NOT_IMPLEMENTED: Final = Answer.text(501, "501 unsupported transfer encoding")
_VERSION: Final = Answer.text(505, "505 http version not supported")

# Why a connection does not read.
_HELD, _FULL, _UNREAD = 1, 2, 4
# What a connection's timer waits for.
_ARRIVAL, _HEAD, _BODY, _LINGER, _GONE = range(5)


class Connections:
    """The open connections of a server, and what they share. ``refused`` is told why a request was refused that no route has seen."""

    def __init__(self, service: Service, refused: Callable[[str], None]) -> None:
        self.service = service
        self.refused = refused
        self.for_bodies = memoryview(bytearray(256 * 1024))
        # between bodies less is read: one sender's many small requests wait their turn
        self.for_heads = self.for_bodies[: 64 * 1024]
        self._is_draining = False
        self._open: set[HTTP1Connection] = set()
        self._none_open = asyncio.Event()

    def opened(self, connection: "HTTP1Connection") -> None:
        """One more; while draining, one whose TLS handshake was under way: it comes too late."""
        self._open.add(connection)
        if self._is_draining:
            connection.drain()

    def closed(self, connection: "HTTP1Connection") -> None:
        """One less."""
        self._open.discard(connection)
        if not self._open:
            self._none_open.set()

    async def drain(self, grace_s: float) -> None:
        """Close all: those that are idle now, the others when they have answered, after ``grace_s`` whatever they do."""
        self._is_draining = True
        self._none_open.clear()
        for connection in list(self._open):
            connection.drain()
        if not await self._are_gone(grace_s):
            for connection in list(self._open):
                connection.abort()
            await self._are_gone(grace_s)

    async def _are_gone(self, timeout_s: float) -> bool:
        if self._open:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._none_open.wait()
        return not self._open


class _Exchange(Request):
    """A request, and what its connection knows of it."""

    __slots__ = ("answer", "awaits_continue", "body_deadline_s", "is_http10", "is_last", "is_whole", "lingers")
    answer: Answer | None
    awaits_continue: bool
    body_deadline_s: float
    is_http10: bool
    is_last: bool
    """The connection ends with its answer."""
    is_whole: bool
    """All of it arrived."""
    lingers: bool
    """More may come that is not worth reading."""


class HTTP1Connection(asyncio.BufferedProtocol):
    """One connection.

    A connection that another protocol accepted is handed over by ``connection_made`` and ``feed`` of what was read
    already.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._service = connections.service
        config = self._service.config
        self._keeps_alive = config.keep_alives_enabled
        self._idle_s = config.idle_timeout or config.read_timeout or _IDLE_S
        self._head_s = config.read_header_timeout or config.read_timeout or _STALLED_S
        self._body_s = config.read_timeout or _NEVER
        self._write_s = config.write_timeout or _STALLED_S
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[_Exchange] = deque()  # not answered yet, or answered before an earlier one
        self._current: _Exchange | None = None  # whose body is being read
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated: list[tuple[bytes, bytes]] = []
        self._in_head = False
        self._began = False  # a message, in this feed
        self._fed_bytes = 0  # of the present message, in this and earlier feeds
        self._is_upgrade = False
        self._is_replaying = False  # the head of a request that asked for an upgrade
        self._is_feeding = False
        self._takes_no_more = False  # the last request of the connection was begun
        self._is_draining = False
        self._is_ending = False  # answered the last, or going to be closed: what arrives is not looked at
        self._pauses = self._hold_count = 0
        self._deadline_s = _NEVER
        self._awaited = _ARRIVAL
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = _NEVER
        self.peer: str | None = None
        self.is_unix = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A sender connected."""
        self._transport = transport
        address = transport.get_extra_info("peername")
        self.peer = address[0] if isinstance(address, tuple) else None
        self.is_unix = not isinstance(address, tuple)
        now_s = self._loop.time()
        if self._service.config.read_header_timeout:  # of the first request it counts from here
            self._wait(_HEAD, now_s + self._head_s)
        else:
            self._wait(_ARRIVAL, now_s + self._idle_s)
        self._connections.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Where to read to."""
        return self._connections.for_heads if self._current is None else self._connections.for_bodies

    def buffer_updated(self, nbytes: int) -> None:
        """So many bytes were read."""
        self.feed(self._connections.for_bodies[:nbytes])

    def feed(self, data: memoryview | bytes) -> None:
        """Bytes arrived."""
        if self._is_ending or (self._takes_no_more and self._current is None):
            return
        self._is_feeding = True
        self._began = False
        self._fed_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as exc:  # ours
            self._service.log_error(exc.__context__ or exc)
            self._is_ending = True
            self._transport.abort()
            return
        except httptools.HttpParserError:
            self._malformed()
        if not self._in_head and self._current is None:
            self._fed_bytes = 0
        elif self._began:  # how much of this feed belongs to the new message is not known; it is bounded by the buffer
            self._fed_bytes = min(len(data), _MAX_FIELD_BYTES)
        else:
            self._bound_overhead()
        self._is_feeding = False
        queue = self._queue
        if queue and queue[0].answer is not None:
            self._flush()
        current = self._current
        if current is not None and current.awaits_continue and queue[0] is current:
            self._ask_for(current)
        if len(queue) > _MAX_PIPELINED:
            self._pause(_FULL)
        self._watch()

    def eof_received(self) -> bool:
        """The sender sends no more, but may still read: it gets its answers."""
        current = self._current
        if current is not None:  # half a request: there is no answer to that
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
        """The end."""
        self._connections.closed(self)
        self._is_ending = True
        if self._timer is not None:
            self._timer.cancel()
        for exchange in self._queue:
            exchange.abandon()
        if self._current is not None:
            self._current.abandon()
        self._queue.clear()
        self._current = None
        del self._parser  # it refers to this object

    def pause_writing(self) -> None:
        """The sender does not take its answers."""
        self._pause(_UNREAD)
        self._wait(_GONE, self._loop.time() + self._write_s)

    def resume_writing(self) -> None:
        """It does again."""
        self._resume(_UNREAD)
        self._deadline_s = _NEVER
        self._watch()

    def drain(self) -> None:
        """Finish what was begun, then close."""
        self._is_draining = self._takes_no_more = True
        if not self._queue and self._current is None:
            self._end()

    def abort(self) -> None:
        """Close at once."""
        self._is_ending = True
        self._transport.abort()

    # The requests' side: see Carrier.

    def respond(self, request: Request, answer: Answer) -> None:
        """Send the answer in its turn."""
        assert isinstance(request, _Exchange)  # made here
        request.answer = answer
        if not request.is_whole and self._closes_after(request, answer):
            request.is_last = self._takes_no_more = True
        if not self._is_feeding and self._queue and self._queue[0] is request:
            self._flush()
            self._watch()

    def hold(self) -> None:
        """Read no more for now."""
        self._hold_count += 1
        self._pause(_HELD)

    def release(self) -> None:
        """Go on reading, if all who asked to hold agree."""
        self._hold_count -= 1
        if not self._hold_count:
            self._resume(_HELD)

    def go_on(self, request: Request) -> None:
        """Ask for the body, when it is its turn and did not come without."""
        assert isinstance(request, _Exchange)
        request.awaits_continue = not request.is_http10
        if not self._is_feeding and self._queue[0] is request:
            self._ask_for(request)

    # llhttp's side.

    def on_message_begin(self) -> None:
        """The first byte of a request, or of what should be one."""
        if self._is_replaying or self._takes_no_more:
            return
        self._began = True
        self._in_head = True
        self._target = b""
        self._headers = {}
        self._repeated = []

    def on_url(self, part: bytes) -> None:
        """Some of the target."""
        if self._in_head:
            self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the body, a trailer, which nobody reads."""
        if not self._in_head:
            return
        name = name.lower()
        if name in self._headers:
            self._repeated.append((name, value))
        else:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is there."""
        if not self._in_head:
            return
        self._in_head = False
        self._awaited, self._deadline_s = _ARRIVAL, _NEVER
        parser, headers = self._parser, self._headers
        version = parser.get_http_version()
        if (self._fed_bytes > _MAX_FIELD_BYTES and self._is_too_large()) or len(headers) + len(
            self._repeated
        ) > _MAX_HEADERS:
            self._refuse(_HEAD_TOO_LARGE, "head_too_large")
            return
        length: int | None = int(headers.get(b"content-length", 0))  # digits, as llhttp has seen
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
        exchange = _Exchange(self._service, self, method, self._path(), headers, length, self._repeated)
        exchange.answer = None
        exchange.awaits_continue = exchange.is_whole = exchange.lingers = False
        exchange.is_http10 = version == "1.0"
        exchange.is_last = not (self._keeps_alive and parser.should_keep_alive()) or method == "CONNECT"
        exchange.body_deadline_s = self._loop.time() + self._body_s if self._body_s != _NEVER else _NEVER
        self._takes_no_more = exchange.is_last
        self._is_upgrade = parser.should_upgrade()
        self._current = exchange
        self._queue.append(exchange)
        exchange.begin()

    def on_body(self, part: bytes) -> None:
        """Some of the body, without its framing."""
        if self._current is not None:
            self._current.feed(part)

    def on_message_complete(self) -> None:
        """The request is whole."""
        current = self._current
        if current is None or self._is_upgrade:  # of an upgrade the body is still to come
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
                if self._current is None:  # a request that was refused
                    return
                data = data[exc.args[0] :]
                self._ignore_upgrade(self._current)
            else:
                return

    def _ignore_upgrade(self, exchange: _Exchange) -> None:
        """Parse on behind the head as if the request did not ask for an upgrade: with a new parser that saw the same framing."""
        self._is_upgrade = False
        self._parser = httptools.HttpRequestParser(self)
        framing = b"Transfer-Encoding: chunked" if exchange.length is None else b"Content-Length: %d" % exchange.length
        self._is_replaying = True
        # Its last byte ends the message where there is no body: that counts.
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
        """What is no body is bounded: a head, and the framing and trailers of chunks as Go bounds them (CVE-2023-39326)."""
        current = self._current
        if current is None:
            if self._fed_bytes > _MAX_HEAD_BYTES:
                self._refuse(_HEAD_TOO_LARGE, "head_too_large")
        elif current.length is None and self._fed_bytes > _MAX_HEAD_BYTES + 2 * current.size_bytes:
            self._malformed()

    def _malformed(self) -> None:
        """The bytes are no HTTP (any more)."""
        current = self._current
        if current is not None:
            self._break_off(current, Refused(400, "the body is not framed as its headers say", reason="framing"))
        elif not self._takes_no_more:  # what comes after the last request is not looked at
            self._refuse(_BAD_REQUEST, "bad_request")

    def _break_off(self, current: _Exchange, refused: Refused) -> None:
        """The rest of the body will not be understood, or not come."""
        self._takes_no_more = self._is_ending = current.is_last = current.lingers = True
        self._deadline_s = _NEVER
        if self._queue:
            current.reply(refused)
        else:  # it had its answer before
            self._end(lingers=True)

    def _refuse(self, answer: Answer, reason: str) -> None:
        """Answer what is no request that a route could see, after those before it, and close."""
        self._connections.refused(reason)
        self._in_head = False
        self._takes_no_more = True
        exchange = _Exchange(self._service, self, "", "", {}, 0)
        exchange.awaits_continue = exchange.is_http10 = False
        exchange.is_whole = exchange.is_last = exchange.lingers = True
        self._queue.append(exchange)
        exchange.answer = answer

    # Writing.

    def _flush(self) -> None:
        """Write the answers whose turn it is."""
        service, queue = self._service, self._queue
        parts = []
        stays = True
        while stays and queue and (answer := queue[0].answer) is not None:
            exchange = queue.popleft()
            stays = not exchange.is_last and not (
                self._is_draining and exchange.is_whole and not queue and self._current is None
            )
            parts.append(answer.http1_head)
            parts.append(service.stamp())
            if exchange.cors:
                parts.append(header_bytes(exchange.cors))
            parts.append((_KEEP if exchange.is_http10 else _END) if stays else _CLOSE)
            if exchange.method != "HEAD":
                parts.append(answer.body)
        self._transport.write(b"".join(parts))
        if not stays:
            self._end(lingers=exchange.lingers or not exchange.is_whole)
        elif queue:
            if queue[0].awaits_continue and not self._is_feeding:
                self._ask_for(queue[0])
        elif self._takes_no_more and self._current is None:
            self._end()
        if self._pauses & _FULL and len(queue) <= _MAX_PIPELINED // 2:
            self._resume(_FULL)

    def _closes_after(self, exchange: _Exchange, answer: Answer) -> bool:
        """Whether the body that is still to come is not worth reading to keep the connection."""
        if (
            exchange.length is None
            or exchange.length - exchange.size_bytes > _SWALLOW_BYTES
            or answer.status in _CLOSED_AFTER
        ):
            return True
        # A sender that waits to be asked sends no body after a refusal, or does: only closing is clear to both.
        return b"expect" in exchange.headers

    def _ask_for(self, exchange: _Exchange) -> None:
        if not exchange.is_whole and not exchange.size_bytes and exchange.answer is None and not self._is_ending:
            self._transport.write(_CONTINUE)
        exchange.awaits_continue = False

    def _end(self, *, lingers: bool = False) -> None:
        """Close; first read what is still on its way, so that the sender sees the answer and not a reset."""
        self._takes_no_more = self._is_ending = True
        for exchange in self._queue:
            exchange.abandon()
        self._queue.clear()
        self._resume(_FULL)
        if lingers and not self._transport.is_closing():
            self._wait(_LINGER, self._loop.time() + _LINGER_S)
            if self._transport.can_write_eof():
                self._transport.write_eof()
        else:
            self._wait(_GONE, self._loop.time() + self._write_s)
            self._transport.close()

    def _pause(self, why: int) -> None:
        if not self._pauses and not self._transport.is_closing():
            self._transport.pause_reading()
        self._pauses |= why

    def _resume(self, why: int) -> None:
        if self._pauses == why and not self._transport.is_closing():
            self._transport.resume_reading()
        self._pauses &= ~why

    # Time. The timer is set anew only when something is due earlier; when it comes too early it is set to what is due
    # then.

    def _watch(self) -> None:
        """Set what is waited for, by what the connection does now."""
        if self._is_ending or self._pauses & _UNREAD:
            return
        current = self._current
        if current is not None:
            # also while its sender is authenticated
            self._wait(_BODY, min(current.body_deadline_s, self._loop.time() + _STALLED_S))
        elif self._in_head:
            if self._awaited != _HEAD:
                self._wait(_HEAD, self._loop.time() + self._head_s)
        elif self._queue:
            self._wait(_ARRIVAL, _NEVER)
        elif self._deadline_s == _NEVER or self._awaited == _BODY:
            self._wait(_ARRIVAL, self._loop.time() + self._idle_s)

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
        if self._awaited == _GONE:
            self.abort()
        elif self._awaited == _LINGER:
            self._end()
        elif self._awaited == _BODY and current is not None:
            self._break_off(current, Refused(408, "the body did not arrive in time", reason="timeout"))
        elif self._queue:  # half a head behind requests that are being served
            self._takes_no_more = True
        else:
            self._end()
