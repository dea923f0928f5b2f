"""An HTTP/2 connection on asyncio, either role: reads into one buffer shared by all, writes once a turn, keepalive.

Subclasses say what events mean (``_on``) and what they hold; nothing here knows requests. A peer that does not read its answers is not
read from either, so that what waits for it stays bounded.

Source: RFC 9113; gRPC's "keepalive" for the pings.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from collector.helpers.http2.events import EngineError
from collector.helpers.http2.session import Session

__all__ = ["READ_BYTES", "HTTP2Protocol"]

READ_BYTES: Final = 256 * 1024
_WRITE_BYTES: Final = 8 * 1024 * 1024  # taken out of the session at a time: what the transport does not take waits in the session
_LINGER_S: Final = 5.0
_read_buffer: Final = bytearray(READ_BYTES)  # of every connection: it is filled and taken in one step of the loop, never across two
_read_view: Final = memoryview(_read_buffer)


class HTTP2Protocol(asyncio.BufferedProtocol):
    """One connection. All methods run on the loop's thread."""

    __slots__ = (
        "_is_broken",
        "_is_flush_due",
        "_is_paused",
        "_keepalive",
        "_ping_sent_s",
        "_ping_timer",
        "last_event_s",
        "last_read_s",
        "loop",
        "session",
        "transport",
    )

    _on: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {}
    """Type of event → unbound method ``(self, event)``; events of other types are ignored."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        """None before the connection is made and after it is lost."""
        self.last_read_s = self.last_event_s = self.loop.time()
        """When bytes came last, and when they made an event."""
        self._is_flush_due = False
        self._is_paused = False
        self._is_broken = False
        self._ping_timer: asyncio.TimerHandle | None = None
        self._ping_sent_s = 0.0  # 0: none is unanswered
        self._keepalive = (0.0, 0.0, False)

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio; sends SETTINGS."""
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment] # uvloop's transports derive from nothing
        self.flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio, whose TLS writes into slices of it."""
        del sizehint
        return _read_view

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self.receive(_read_buffer, nbytes)

    def eof_received(self) -> bool:
        """See asyncio: HTTP/2 has no half-closed connections, it closes."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio. Subclasses end what they hold."""
        del exc
        self.transport = None
        self._is_broken = True
        self.session.close()
        if self._ping_timer is not None:
            self._ping_timer.cancel()
            self._ping_timer = None

    def pause_writing(self) -> None:
        """See asyncio."""
        self._is_paused = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._is_paused = False
        if self.transport is not None:
            self.transport.resume_reading()
        self.flush()

    # What subclasses use.

    def receive(self, data: bytes | bytearray, size: int = -1) -> None:
        """Take what was read, or its first ``size`` bytes (also what somebody else had read before the connection was ours)."""
        if self._is_broken:
            return
        self.last_read_s = now_s = self.loop.time()
        try:
            events = self.session.receive(data, now_s, size)
        except EngineError as error:
            self.broken(error)
            return
        if events:
            self.last_event_s = now_s
            handlers = self._on
            for event in events:
                handler = handlers.get(type(event))
                if handler is not None:
                    handler(self, event)
                    if self._is_broken:
                        return
        if self.session.wants_flush and not self._is_flush_due:
            self.flush()

    def broken(self, error: EngineError) -> None:
        """The peer broke the protocol: cut the connection. Subclasses count it."""
        del error
        self.abort()

    def flush_soon(self) -> None:
        """Write at the end of this turn what the session has: answers of one turn leave together."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what the session has, as long as the transport takes it; close when both sides are through."""
        self._is_flush_due = False
        transport = self.transport
        if transport is None or self._is_broken:
            return
        session = self.session
        try:
            while not self._is_paused:
                pieces = session.output(_WRITE_BYTES)
                if len(pieces) == 1:
                    transport.write(pieces[0])
                elif pieces:
                    transport.writelines(pieces)
                else:
                    break
            is_over = session.is_over
        except EngineError as error:
            self.broken(error)
            return
        if is_over:
            self.ended()
            self.close()

    def ended(self) -> None:
        """Both sides are through, or libnghttp2 ended the connection with a GOAWAY that is sent by now; it is closed next."""

    def close(self) -> None:
        """Close after what was written; cut off a peer that does not read it."""
        self._is_broken = True
        if self.transport is not None:
            self.transport.close()
            self.loop.call_later(_LINGER_S, self.transport.abort)

    def abort(self) -> None:
        """Cut the connection, unsent bytes included."""
        self._is_broken = True
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_open(self) -> bool:
        """Connected, and not about to be closed."""
        return self.transport is not None and not self._is_broken

    # Keepalive.

    def keep_alive(self, after_s: float, timeout_s: float, *, without_streams: bool) -> None:
        """Ping after ``after_s`` without a byte read (0: never), cut the connection when nothing comes within ``timeout_s``.

        ``without_streams``: also while ``has_streams`` is False.
        """
        self._keepalive = (after_s, timeout_s, without_streams)
        if after_s and self._ping_timer is None:
            self._ping_timer = self.loop.call_later(after_s, self._check_alive)

    def has_streams(self) -> bool:
        """Whether a request is under way."""
        return False

    def _check_alive(self) -> None:
        """The timer, set anew by itself: moving it with each read would cost more than looking at the clock once."""
        self._ping_timer = None
        if not self.is_open:
            return
        after_s, timeout_s, without_streams = self._keepalive
        now_s = self.loop.time()
        if self._ping_sent_s:
            if self.last_read_s < self._ping_sent_s:
                self.timed_out()
                return
            self._ping_sent_s = 0.0
        wait_s = self.last_read_s + after_s - now_s
        if wait_s <= 0:
            wait_s = after_s
            if without_streams or self.has_streams():
                self.session.ping(b"tailrace")
                self._ping_sent_s = now_s
                wait_s = timeout_s
                self.flush()
        self._ping_timer = self.loop.call_later(max(wait_s, 0.001), self._check_alive)

    def timed_out(self) -> None:
        """A ping was not answered."""
        self.abort()
