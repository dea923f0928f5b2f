"""The streams of a server's connection that are not answered yet, from the header block to the end of the response.

Compiled, because every request passes here. Time-outs, limits and shutdown are in ``server_connection``; what a request
means is decided by the ``accept`` function.

Source: RFC 9113 §5, §8.1.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t

from collector.transport.http2.events cimport StreamEvent
from collector.transport.http2.protocol cimport HTTP2Protocol
from collector.transport.http2.session cimport Session

__all__ = ["FREE_BYTES", "STREAM_BYTES", "BaseServerConnection", "ServerStream"]

cdef enum:
    _STREAM_BYTES = 2048
    _FREE_BYTES = 16 * 1024
    NO_ERROR = 0

STREAM_BYTES = _STREAM_BYTES
FREE_BYTES = _FREE_BYTES


cdef class ServerStream:
    """A request being read or answered. ``accept`` makes subclasses, which remove themselves when answered."""

    def __init__(self, BaseServerConnection connection not None, int32_t stream_id):
        self.attach(connection, stream_id)

    cdef int attach(self, BaseServerConnection connection, int32_t stream_id) except -1:
        self.connection = connection
        self.id = stream_id
        self.is_awaited = True
        self.deadline_s = INFINITY
        return 0

    cpdef received(self, StreamEvent event):
        """Handle more of the body, or its end."""
        raise NotImplementedError

    cpdef lost(self):
        """The client cancelled the request or the connection is gone: nothing can be sent any more."""
        raise NotImplementedError

    def refused(self, error):
        """There is no memory for the rest of the request."""
        raise NotImplementedError

    def stalled(self):
        """Nothing was received for a minute."""
        raise NotImplementedError

    def expired(self):
        """``deadline_s`` has passed."""
        raise NotImplementedError

    cpdef set_held_bytes(self, Py_ssize_t size_bytes):
        """Account for the bytes kept of the request; 0 when they are dropped."""
        self.connection.held_bytes += size_bytes - self.held_bytes
        self.held_bytes = size_bytes


cdef class BaseServerConnection(HTTP2Protocol):
    """The part of a server's connection that concerns its streams.

    ``accept(connection, event)`` makes a :class:`ServerStream` of a request, given what has arrived of its body; it
    returns None if the request was answered at once.
    """

    def __init__(self, Session session not None, accept):
        super().__init__(session)
        self.accept = accept
        self.streams = {}
        self.resets = []
        self._idle_since_s = self.last_read_s
        self._next_deadline_s = INFINITY

    def connection_lost(self, exc):
        """See asyncio."""
        super().connection_lost(exc)
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            (<ServerStream>stream).lost()
        self.held_bytes = 0
        self._update_charge()

    cpdef receive(self, data, Py_ssize_t size=-1):
        """See the base; then updates the memory charge for incomplete requests."""
        HTTP2Protocol.receive(self, data, size)
        cdef Py_ssize_t held_bytes = self.held_bytes + self.session.held_bytes + len(self.streams) * _STREAM_BYTES
        if self._charged_bytes or held_bytes > _FREE_BYTES:
            self._update_charge()

    cpdef received(self, StreamEvent event):
        """See the base."""
        cdef ServerStream stream = self.streams.get(event.stream_id)
        if stream is not None:
            if event.is_end or event.data:
                stream.received(event)
        elif event.head is not None:
            stream = self.accept(self, event)
            if stream is None:
                return
            self.streams[event.stream_id] = stream
        if event.is_closed and stream is not None and stream.id in self.streams:
            self.remove_stream(stream)
            stream.lost()

    def has_streams(self):
        """See the base."""
        return bool(self.streams)

    # What streams use.

    cpdef remove_stream(self, ServerStream stream):
        """Drop a stream that is answered, or never will be."""
        self.streams.pop(stream.id, None)
        self._ping_is_free = True
        if stream.held_bytes:
            stream.set_held_bytes(0)
        if not self.streams:
            self._idle_since_s = self.last_read_s
            if self._charged_bytes:
                self._update_charge()

    cpdef set_deadline(self, ServerStream stream, double timeout_s):
        """Call ``stream.expired`` after ``timeout_s`` unless the stream is removed before. All share one timer."""
        stream.deadline_s = self.last_read_s + timeout_s
        if stream.deadline_s < self._next_deadline_s:
            self._schedule_deadline(stream.deadline_s)

    cpdef reset_when_flushed(self, int32_t stream_id):
        """Send RST_STREAM after the response: the rest of the request is not wanted (RFC 9113 §8.1)."""
        self.resets.append(stream_id)

    cpdef flush(self):
        """See the base."""
        HTTP2Protocol.flush(self)
        if self.resets and self.is_open and not self._is_paused:  # not earlier: libnghttp2 would drop the response
            resets, self.resets = self.resets, []
            for stream_id in resets:
                self.session.reset(stream_id, NO_ERROR)
            HTTP2Protocol.flush(self)

    # What subclasses implement.

    def _update_charge(self):
        """Charge the memory budget for what is held."""
        raise NotImplementedError

    def _schedule_deadline(self, double deadline_s):
        """Set the timer for the earliest deadline."""
        raise NotImplementedError
