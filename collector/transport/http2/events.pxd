# The attributes of the events; see events.pyx.

cimport cython
from libc.stdint cimport uint32_t


@cython.final
cdef class StreamEvent:
    cdef readonly int stream_id
    # The header block that opens the stream (see ``decode_header_block``), in the first event only. ``grpc-timeout`` is
    # left out, so that equal callers send equal blocks.
    cdef readonly bytes head
    # With ``head``: the value of ``grpc-timeout``; empty if there is none.
    cdef readonly bytes timeout
    # ``timeout`` in seconds: infinite if there is none, negative if it is malformed.
    cdef readonly double timeout_s
    # With ``head``: the content type is ``application/grpc``, with or without a message format or parameters.
    cdef readonly bint is_grpc
    # The single gRPC message of a stream that has ended; None if it has not ended or its body is not one message:
    # see ``data``.
    cdef readonly bytes message
    # The compressed flag of ``message``.
    cdef readonly bint is_compressed
    # Bytes of the body, as they arrived.
    cdef readonly bytes data
    # The header block that ended the stream; None without one.
    cdef readonly bytes trailers
    # The peer has sent END_STREAM; reported once.
    cdef readonly bint is_end
    # The stream is closed in both directions.
    cdef readonly bint is_closed
    # With ``is_closed``: the error code; 0 if both sides ended it normally.
    cdef readonly uint32_t error_code
    # With ``is_closed``: why our output could not be sent; empty otherwise.
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
cdef class ConnectionEnded:
    cdef readonly uint32_t error_code
    cdef readonly bytes debug_data
