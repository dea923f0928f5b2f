# The events' attributes; see events.pyx.

cimport cython
from libc.stdint cimport uint32_t


@cython.final
cdef class Received:
    cdef readonly int stream_id
    # The header block that begins it (see ``headers_of``), the first time; without ``grpc-timeout``, so that equal callers' are equal.
    cdef readonly bytes head
    # The value of ``grpc-timeout``, with ``head``; empty without.
    cdef readonly bytes timeout
    # What it says; infinite without, negative where it is malformed.
    cdef readonly double timeout_s
    # With ``head``: its content-type is ``application/grpc``, with a message format or parameters after it or without.
    cdef readonly bint is_grpc
    # The one gRPC message of a stream that is through; None where it is not, or the body is no such message: see ``data``.
    cdef readonly bytes message
    # The flag of ``message``.
    cdef readonly bint is_compressed
    # Bytes of the body, as they came.
    cdef readonly bytes data
    # The header block that ended it; None without one.
    cdef readonly bytes trailers
    # The peer sends no more (END_STREAM); told once.
    cdef readonly bint is_end
    # The stream is no more, in either direction.
    cdef readonly bint is_closed
    # With ``is_closed``: why; 0 where both sides ended it.
    cdef readonly uint32_t error_code
    # With ``is_closed``: why what was to be sent could not be; empty otherwise.
    cdef readonly str failure

@cython.final
cdef class SettingsReceived:
    cdef readonly dict values

@cython.final
cdef class PingReceived:
    cdef readonly bytes opaque_data

@cython.final
cdef class PingAcknowledged:
    cdef readonly bytes opaque_data

@cython.final
cdef class GoAwayReceived:
    cdef readonly int last_stream_id
    cdef readonly uint32_t error_code
    cdef readonly bytes debug_data

@cython.final
cdef class Over:
    cdef readonly uint32_t error_code
    cdef readonly bytes debug_data
