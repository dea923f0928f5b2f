# See server_streams.pyx.

cimport cython
from libc.stdint cimport int32_t

from collector.transport.http2.events cimport StreamEvent
from collector.transport.http2.protocol cimport HTTP2Protocol


@cython.no_gc_clear  # its methods rely on these fields, also while a reference cycle is being collected
cdef class ServerStream:
    cdef readonly BaseServerConnection connection
    cdef readonly int32_t id
    cdef readonly Py_ssize_t held_bytes
    # The request is incomplete: it is given up when nothing arrives for a minute, or memory for the rest is missing.
    cdef public bint is_awaited
    cdef readonly double deadline_s

    cdef int attach(self, BaseServerConnection connection, int32_t stream_id) except -1
    cpdef received(self, StreamEvent event)
    cpdef lost(self)
    cpdef set_held_bytes(self, Py_ssize_t size_bytes)


@cython.no_gc_clear  # its methods rely on these fields, also while a reference cycle is being collected
cdef class BaseServerConnection(HTTP2Protocol):
    cdef object accept
    # Requests that are not answered: stream id → ServerStream.
    cdef readonly dict streams
    # Held by streams for incomplete requests, in addition to what the session holds of them.
    cdef readonly Py_ssize_t held_bytes
    # Whether the client is on this machine; None: unknown.
    cdef public object is_local
    cdef public Py_ssize_t _charged_bytes
    cdef public double _idle_since_s, _next_deadline_s
    cdef public bint _ping_is_free
    cdef list resets

    cpdef remove_stream(self, ServerStream stream)
    cpdef set_deadline(self, ServerStream stream, double timeout_s)
    cpdef reset_when_flushed(self, int32_t stream_id)
