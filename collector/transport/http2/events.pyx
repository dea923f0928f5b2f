"""What a session reports: what arrived on a stream, frames that concern the connection, and errors."""

cimport cython

__all__ = [
    "ConnectionEnded",
    "FloodError",
    "GoAwayReceived",
    "HTTP2Error",
    "PingAcknowledged",
    "PingReceived",
    "SettingsReceived",
    "StreamClosedError",
    "StreamEvent",
]


class HTTP2Error(Exception):
    """The peer broke the protocol or a limit. The connection cannot be used any more: close it."""


class FloodError(HTTP2Error):
    """The peer exceeded a limit that protects against hostile peers."""


class StreamClosedError(HTTP2Error):
    """Nothing can be sent on this stream any more; the connection remains usable."""


@cython.freelist(64)
cdef class StreamEvent:
    """What has arrived on one stream since the last event about it."""


cdef class SettingsReceived:
    """The peer's settings: id → value."""


cdef class PingReceived:
    """A ping; libnghttp2 acknowledges it by itself."""


cdef class PingAcknowledged:
    """The acknowledgement of a ping."""


cdef class GoAwayReceived:
    """The peer accepts no new streams."""


cdef class ConnectionEnded:
    """After a GOAWAY from either side, nothing is left to read or write."""
