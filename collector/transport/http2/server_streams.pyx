"""What every request of a server's connection passes: the streams that are not answered, from their head to the answer's end.

Compiled. Time-outs, limits and ends of connections are ``server_connection``'s; what a request means is its user's.

Source: RFC 9113 §5, §8.1.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int32_t

from collector.transport.http2.events cimport Received
from collector.transport.http2.protocol cimport HTTP2Protocol
from collector.transport.http2.session cimport Session

__all__ = ["FREE_BYTES", "STREAM_BYTES", "ServerStreams", "Stream"]

cdef enum:
    _STREAM_BYTES = 2048
    _FREE_BYTES = 16 * 1024
    NO_ERROR = 0

STREAM_BYTES = _STREAM_BYTES
FREE_BYTES = _FREE_BYTES


cdef class Stream:
    """A request being read or answered. Subclasses are made by ``accept`` and call ``connection.forget(self)`` once it is answered."""

    def __init__(self, ServerStreams connection not None, int32_t stream_id):
        self.begin(connection, stream_id)

    cdef int begin(self, ServerStreams connection, int32_t stream_id) except -1:
        self.connection = connection
        self.id = stream_id
        self.is_awaited = True
        self.deadline_s = INFINITY
        return 0

    cpdef received(self, Received event):
        """More of the body, or its end."""
        raise NotImplementedError

    cpdef lost(self):
        """The client gave it up, or the connection is gone: nothing can be sent any more."""
        raise NotImplementedError

    def refused(self, error):
        """There is no memory for the rest of the request."""
        raise NotImplementedError

    def stalled(self):
        """Nothing came for a minute."""
        raise NotImplementedError

    def expired(self):
        """``deadline_s`` has passed."""
        raise NotImplementedError

    cpdef book(self, Py_ssize_t size_bytes):
        """Book what is kept of the request; 0: nothing any more."""
        self.connection.held_bytes += size_bytes - self.held_bytes
        self.held_bytes = size_bytes


cdef class ServerStreams(HTTP2Protocol):
    """A server's connection, as far as its streams go. ``accept(connection, event)`` makes a :class:`Stream` of a request, with what
    came of its body; None: it was answered at once."""

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
            (<Stream>stream).lost()
        self.held_bytes = 0
        self._book()

    cpdef receive(self, data, Py_ssize_t size=-1):
        """See the base; then books what is held of requests that are not whole."""
        HTTP2Protocol.receive(self, data, size)
        if self._booked_bytes or self.held_bytes + self.session.held_bytes + len(self.streams) * _STREAM_BYTES > _FREE_BYTES:
            self._book()

    cpdef received(self, Received event):
        """See the base."""
        cdef Stream stream = self.streams.get(event.stream_id)
        if stream is not None:
            if event.is_end or event.data:
                stream.received(event)
        elif event.head is not None:
            stream = self.accept(self, event)
            if stream is None:
                return
            self.streams[event.stream_id] = stream
        if event.is_closed and stream is not None and stream.id in self.streams:
            self.forget(stream)
            stream.lost()

    def has_streams(self):
        """Whether a request is not answered."""
        return bool(self.streams)

    # For streams

    cpdef forget(self, Stream stream):
        """The stream is answered, or never will be."""
        self.streams.pop(stream.id, None)
        self._ping_is_free = True
        if stream.held_bytes:
            stream.book(0)
        if not self.streams:
            self._idle_since_s = self.last_read_s
            if self._booked_bytes:
                self._book()

    cpdef expire(self, Stream stream, double timeout_s):
        """Call ``stream.expired`` after ``timeout_s``, unless it is forgotten by then. One timer for all streams."""
        stream.deadline_s = self.last_read_s + timeout_s
        if stream.deadline_s < self._next_deadline_s:
            self._expire_at(stream.deadline_s)

    cpdef give_up(self, int32_t stream_id):
        """What the client still sends of a request that was answered is of no use: RST_STREAM after the answer (RFC 9113 §8.1)."""
        self.resets.append(stream_id)

    cpdef flush(self):
        """See the base."""
        HTTP2Protocol.flush(self)
        if self.resets and self.is_open and not self._is_paused:  # not before: libnghttp2 would drop the answer
            resets, self.resets = self.resets, []
            for stream_id in resets:
                self.session.reset(stream_id, NO_ERROR)
            HTTP2Protocol.flush(self)

    # Subclasses'

    def _book(self):
        """Charge the budget with what is held."""
        raise NotImplementedError

    def _expire_at(self, double deadline_s):
        """Set the timer of the earliest deadline."""
        raise NotImplementedError
