"""An HTTP/2 connection on asyncio, for either role: one shared read buffer, one write per loop turn, keepalive.

Subclasses decide what events mean and what they hold; nothing here knows requests. They also derive from
``asyncio.BufferedProtocol``, which a compiled class cannot. While a peer does not read our output we do not read its
input either, so that the output waiting for it stays bounded.

Compiled, because every byte received or sent passes here.

Source: RFC 9113; gRPC's "keepalive" for the pings.
"""

import asyncio
from weakref import WeakKeyDictionary

from collector.transport.http2.events import HTTP2Error

from collector.transport.http2.events cimport StreamEvent
from collector.transport.http2.session cimport Session

__all__ = ["READ_BYTES", "HTTP2Protocol"]

READ_BYTES = 256 * 1024

# Taken from the session at a time; what the transport cannot take waits in the session.
cdef Py_ssize_t WRITE_BYTES = 8 * 1024 * 1024
cdef double LINGER_S = 5.0
# Of all connections: it is filled and consumed within one step of the loop.
cdef object read_buffer = bytearray(READ_BYTES)
cdef object read_view = memoryview(read_buffer)
cdef object flush_queues = WeakKeyDictionary()  # loop → its FlushQueue


cdef class HTTP2Protocol:
    """One connection. All methods run on the loop's thread."""

    _handlers = {}

    def __init__(self, Session session not None):
        self.session = session
        self.loop = asyncio.get_running_loop()
        self.time = self.loop.time
        flush_queue = flush_queues.get(self.loop)
        if flush_queue is None:
            flush_queue = flush_queues[self.loop] = FlushQueue()
        self.flush_queue = flush_queue
        self.last_read_s = self.last_event_s = self.time()

    # asyncio.BufferedProtocol

    def connection_made(self, transport):
        """See asyncio; sends SETTINGS."""
        self.transport = transport
        self.flush()

    def get_buffer(self, sizehint):
        """See asyncio, whose TLS protocol writes into slices of the buffer."""
        return read_view

    def buffer_updated(self, Py_ssize_t nbytes):
        """See asyncio."""
        self.receive(read_buffer, nbytes)

    def eof_received(self):
        """See asyncio. Closes the connection: HTTP/2 has no half-closed connections."""
        return False

    def connection_lost(self, exc):
        """See asyncio. Subclasses end the streams they hold."""
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

    # What subclasses use or override.

    cpdef receive(self, data, Py_ssize_t size=-1):
        """Process what was read, or its first ``size`` bytes; also what was read before we got the connection."""
        if self._is_broken:
            return
        self.last_read_s = self.time()
        try:
            events = self.session.receive(data, self.last_read_s, size)
        except HTTP2Error as error:
            self._receive_before_error()
            self.protocol_error(error)
            return
        if events:
            self.last_event_s = self.last_read_s
            for event in events:
                self.dispatch(event)
                if self._is_broken:
                    return
        if not self.is_flush_due and self.session.has_output():
            self.flush()

    cdef int _receive_before_error(self) except -1:
        """Handle what arrived on streams before the peer broke the protocol, as if it had come in a read of its own."""
        for event in self.session.take_events():
            if type(event) is StreamEvent:
                self.received(<StreamEvent>event)
        return 0

    cpdef received(self, StreamEvent event):
        """Handle what arrived on a stream."""

    cpdef dispatch(self, event):
        """Pass an event to its handler: stream events to ``received``, others by ``_handlers`` (type → function)."""
        if type(event) is StreamEvent:
            self.received(<StreamEvent>event)
            return
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(self, event)

    def protocol_error(self, error):
        """The peer broke the protocol: cut the connection. Subclasses also count or report it."""
        self.abort()

    cpdef flush_soon(self):
        """Write the session's output at the end of this loop turn, so that the responses of one turn leave together."""
        if not self.is_flush_due:
            self.is_flush_due = True
            self.flush_queue.add(self)

    cpdef flush(self):
        """Write the session's output as long as the transport takes it; close when both sides are done."""
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
        except HTTP2Error as error:
            self.protocol_error(error)
            return
        if is_over:
            self.session_ended()
            self.close()

    def session_ended(self):
        """Called before closing, when both sides are done, or libnghttp2 ended the connection with a GOAWAY."""

    def close(self):
        """Close after the output that was written; cut off a peer that does not read it."""
        self._is_broken = True
        if self.transport is not None:
            self.transport.close()
            self.loop.call_later(LINGER_S, self.transport.abort)

    def abort(self):
        """Cut the connection and drop unsent output."""
        self._is_broken = True
        if self.transport is not None:
            self.transport.abort()

    @property
    def is_open(self):
        """Connected, and not about to be closed."""
        return self.transport is not None and not self._is_broken

    # Keepalive.

    def keep_alive(self, double after_s, double timeout_s, *, bint without_streams):
        """Ping after ``after_s`` without input (0: never); cut the connection if none follows within ``timeout_s``.

        ``without_streams``: also ping while ``has_streams`` is False.
        """
        self.ping_after_s, self.ping_timeout_s, self.pings_without_streams = after_s, timeout_s, without_streams
        if after_s and self.ping_timer is None:
            self.ping_timer = self.loop.call_later(after_s, self._check_alive)

    def has_streams(self):
        """Whether a request is in progress."""
        return False

    def ping_timed_out(self):
        """A ping was not acknowledged in time: cut the connection."""
        self.abort()

    def _check_alive(self):
        """The ping timer. It reschedules itself: moving it with each read would cost more than looking at the clock."""
        cdef double now_s, wait_s
        self.ping_timer = None
        if self.transport is None or self._is_broken:
            return
        now_s = self.time()
        if self.ping_sent_s:
            if self.last_read_s < self.ping_sent_s:
                self.ping_timed_out()
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


cdef class FlushQueue:
    """The connections to flush at the end of this loop turn, by one callback for all of them."""

    def __cinit__(self):
        self.due = []

    cdef int add(self, HTTP2Protocol connection) except -1:
        if not self.due:
            connection.loop.call_soon(self.flush)
        self.due.append(connection)
        return 0

    def flush(self):
        """Flush them; an error in one does not affect the others."""
        cdef HTTP2Protocol connection
        due, self.due = self.due, []
        for connection in due:
            try:
                connection.flush()
            except Exception as error:
                connection.abort()
                connection.loop.call_exception_handler(
                    {"message": "writing to an HTTP/2 connection failed", "exception": error}
                )
