"""An HTTP/2 connection on asyncio, either role: reads into one buffer shared by all, writes once a turn, keepalive.

Subclasses say what events mean and what they hold; nothing here knows requests. They derive from ``asyncio.BufferedProtocol``, too, which
a compiled class cannot. A peer that does not read its answers is not read from either, so that what waits for it stays bounded.

Compiled, as every byte that comes or goes passes here.

Source: RFC 9113; gRPC's "keepalive" for the pings.
"""

import asyncio
from weakref import WeakKeyDictionary

from collector.transport.http2.events import EngineError

from collector.transport.http2.events cimport Received
from collector.transport.http2.session cimport Session

__all__ = ["READ_BYTES", "HTTP2Protocol"]

READ_BYTES = 256 * 1024

cdef Py_ssize_t WRITE_BYTES = 8 * 1024 * 1024  # taken out of the session at a time: what the transport does not take waits in the session
cdef double LINGER_S = 5.0
cdef object read_buffer = bytearray(READ_BYTES)  # of every connection: it is filled and taken in one step of the loop, never across two
cdef object read_view = memoryview(read_buffer)
cdef object turns = WeakKeyDictionary()  # loop → its Turn


cdef class HTTP2Protocol:
    """One connection. All methods run on the loop's thread."""

    _on = {}

    def __init__(self, Session session not None):
        self.session = session
        self.loop = asyncio.get_running_loop()
        self.time = self.loop.time
        turn = turns.get(self.loop)
        if turn is None:
            turn = turns[self.loop] = Turn()
        self.turn = turn
        self.last_read_s = self.last_event_s = self.time()

    # asyncio.BufferedProtocol

    def connection_made(self, transport):
        """See asyncio; sends SETTINGS."""
        self.transport = transport
        self.flush()

    def get_buffer(self, sizehint):
        """See asyncio, whose TLS writes into slices of it."""
        return read_view

    def buffer_updated(self, Py_ssize_t nbytes):
        """See asyncio."""
        self.receive(read_buffer, nbytes)

    def eof_received(self):
        """See asyncio: HTTP/2 has no half-closed connections, it closes."""
        return False

    def connection_lost(self, exc):
        """See asyncio. Subclasses end what they hold."""
        self.transport = None
        self._is_broken = True
        self.session.close()
        if self.ping_timer is not None:
            self.ping_timer.cancel()
            self.ping_timer = None

    def pause_writing(self):
        """See asyncio."""
        self._is_paused = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self):
        """See asyncio."""
        self._is_paused = False
        if self.transport is not None:
            self.transport.resume_reading()
        self.flush()

    # What subclasses use.

    cpdef receive(self, data, Py_ssize_t size=-1):
        """Take what was read, or its first ``size`` bytes (also what somebody else had read before the connection was ours)."""
        if self._is_broken:
            return
        self.last_read_s = self.time()
        try:
            events = self.session.receive(data, self.last_read_s, size)
        except EngineError as error:
            self.broken(error)
            return
        if events:
            self.last_event_s = self.last_read_s
            for event in events:
                self.tell(event)
                if self._is_broken:
                    return
        if not self.is_flush_due and self.session.has_output():
            self.flush()

    cpdef received(self, Received event):
        """Something came on a stream."""

    cpdef tell(self, event):
        """Hand an event to who handles it: what came on a stream to ``received``, the others by ``_on`` (type → unbound method)."""
        if type(event) is Received:
            self.received(<Received>event)
            return
        on = self._on.get(type(event))
        if on is not None:
            on(self, event)

    def broken(self, error):
        """The peer broke the protocol: cut the connection. Subclasses count it."""
        self.abort()

    cpdef flush_soon(self):
        """Write at the end of this turn what the session has: answers of one turn leave together."""
        if not self.is_flush_due:
            self.is_flush_due = True
            self.turn.add(self)

    cpdef flush(self):
        """Write what the session has, as long as the transport takes it; close when both sides are through."""
        cdef list pieces
        self.is_flush_due = False
        if self.transport is None or self._is_broken:
            return
        try:
            while not self._is_paused:
                pieces = self.session.output(WRITE_BYTES)
                if len(pieces) == 1:
                    self.transport.write(pieces[0])
                elif pieces:
                    self.transport.writelines(pieces)
                else:
                    break
            is_over = self.session.has_ended()
        except EngineError as error:
            self.broken(error)
            return
        if is_over:
            self.ended()
            self.close()

    def ended(self):
        """Both sides are through, or libnghttp2 ended the connection with a GOAWAY that is sent by now; it is closed next."""

    def close(self):
        """Close after what was written; cut off a peer that does not read it."""
        self._is_broken = True
        if self.transport is not None:
            self.transport.close()
            self.loop.call_later(LINGER_S, self.transport.abort)

    def abort(self):
        """Cut the connection, unsent bytes included."""
        self._is_broken = True
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_open(self):
        """Connected, and not about to be closed."""
        return self.transport is not None and not self._is_broken

    # Keepalive.

    def keep_alive(self, double after_s, double timeout_s, *, bint without_streams):
        """Ping after ``after_s`` without a byte read (0: never), cut the connection when nothing comes within ``timeout_s``.

        ``without_streams``: also while ``has_streams`` is False.
        """
        self.ping_after_s, self.ping_timeout_s, self.pings_without_streams = after_s, timeout_s, without_streams
        if after_s and self.ping_timer is None:
            self.ping_timer = self.loop.call_later(after_s, self._check_alive)

    def has_streams(self):
        """Whether a request is under way."""
        return False

    def _check_alive(self):
        """The timer, set anew by itself: moving it with each read would cost more than looking at the clock once."""
        cdef double now_s, wait_s
        self.ping_timer = None
        if self.transport is None or self._is_broken:
            return
        now_s = self.time()
        if self.ping_sent_s:
            if self.last_read_s < self.ping_sent_s:
                self.timed_out()
                return
            self.ping_sent_s = 0
        wait_s = self.last_read_s + self.ping_after_s - now_s
        if wait_s <= 0:
            wait_s = self.ping_after_s
            if self.pings_without_streams or self.has_streams():
                self.session.ping(b"tailrace")
                self.ping_sent_s = now_s
                wait_s = self.ping_timeout_s
                self.flush()
        self.ping_timer = self.loop.call_later(max(wait_s, 0.001), self._check_alive)

    def timed_out(self):
        """A ping was not answered."""
        self.abort()


cdef class Turn:
    """Who writes at the end of this turn of the loop: one call for all connections."""

    def __cinit__(self):
        self.due = []

    cdef int add(self, HTTP2Protocol connection) except -1:
        if not self.due:
            connection.loop.call_soon(self.flush)
        self.due.append(connection)
        return 0

    def flush(self):
        """Their fault is theirs alone."""
        cdef HTTP2Protocol connection
        due, self.due = self.due, []
        for connection in due:
            try:
                connection.flush()
            except Exception as error:
                connection.abort()
                connection.loop.call_exception_handler({"message": "writing to an HTTP/2 connection failed", "exception": error})
