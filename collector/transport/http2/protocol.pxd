# See protocol.pyx.

cimport cython

from collector.transport.http2.events cimport StreamEvent
from collector.transport.http2.session cimport Session


@cython.no_gc_clear  # its methods rely on these fields, also while a reference cycle is being collected
cdef class HTTP2Protocol:
    cdef readonly Session session
    cdef readonly object loop
    cdef readonly object transport
    cdef readonly double last_read_s, last_event_s
    cdef public bint _is_paused, _is_broken
    cdef bint is_flush_due
    cdef object time
    cdef FlushQueue flush_queue
    # Keepalive.
    cdef object ping_timer
    cdef double ping_sent_s, ping_after_s, ping_timeout_s
    cdef bint pings_without_streams

    cpdef receive(self, data, Py_ssize_t size=?)
    cdef int _receive_before_error(self) except -1
    cpdef received(self, StreamEvent event)
    cpdef dispatch(self, event)
    cpdef flush_soon(self)
    cpdef flush(self)


cdef class FlushQueue:
    cdef list due

    cdef int add(self, HTTP2Protocol connection) except -1
