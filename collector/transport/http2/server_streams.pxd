# See server_streams.pyx.

cimport cython
from libc.stdint cimport int32_t

from collector.transport.http2.events cimport Received
from collector.transport.http2.protocol cimport HTTP2Protocol


@cython.no_gc_clear  # its methods trust what it holds, also while a cycle is taken apart
cdef class Stream:
    cdef readonly ServerStreams connection
    cdef readonly int32_t id
    cdef readonly Py_ssize_t held_bytes
    # More of the request is owed: it is given up when nothing comes for a minute, or there is no memory for the rest.
    cdef public bint is_awaited
    cdef readonly double deadline_s

    cdef int begin(self, ServerStreams connection, int32_t stream_id) except -1
    cpdef received(self, Received event)
    cpdef lost(self)
    cpdef book(self, Py_ssize_t size_bytes)


@cython.no_gc_clear  # its methods trust what it holds, also while a cycle is taken apart
cdef class ServerStreams(HTTP2Protocol):
    cdef object accept
    # Requests that are not answered.
    cdef readonly dict streams
    # Of requests that are not whole, beside what the session holds of them.
    cdef readonly Py_ssize_t held_bytes
    # The client is on this machine; None: unknown.
    cdef public object is_local
    cdef public Py_ssize_t _booked_bytes
    cdef public double _idle_since_s, _next_deadline_s
    cdef public bint _ping_is_free
    cdef list resets

    cpdef forget(self, Stream stream)
    cpdef expire(self, Stream stream, double timeout_s)
    cpdef give_up(self, int32_t stream_id)
