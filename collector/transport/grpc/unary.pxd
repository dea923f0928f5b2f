# See unary.pyx.

cimport cython
from libc.stdint cimport int32_t

from collector.transport.http2.events cimport StreamEvent
from collector.transport.http2.server_streams cimport BaseServerConnection, ServerStream


cdef class RequestHead:
    cdef readonly bytes block
    # As RFC 9113 §6.5.2 measures a header list.
    cdef public Py_ssize_t size_bytes
    cdef public object method
    cdef public object streaming
    cdef public str encoding
    cdef public object failure
    # The HTTP status of ``failure``.
    cdef public bytes status
    cdef dict calls

    cpdef call(self, is_local)


cdef class CallDispatcher:
    cdef object server
    cdef readonly dict heads
    # Callers are authenticated before their method is invoked.
    cdef public bint authenticates

    cdef UnaryCall _call(self, BaseServerConnection connection, int32_t stream_id, RequestHead head)


@cython.final
@cython.no_gc_clear
cdef class UnaryCall(ServerStream):
    cdef CallDispatcher dispatcher
    cdef RequestHead head
    cdef readonly bint is_done
