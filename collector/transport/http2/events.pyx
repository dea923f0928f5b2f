"""What a session tells of: what came on a stream, and the frames of the connection; and how it fails."""

cimport cython

__all__ = [
    "EngineError",
    "FloodError",
    "GoAwayReceived",
    "Over",
    "PingAcknowledged",
    "PingReceived",
    "Received",
    "SettingsReceived",
    "StreamGoneError",
]


class EngineError(Exception):
    """The peer broke the protocol or a limit, and the connection is of no further use: close it."""


class FloodError(EngineError):
    """A limit against hostile peers was passed."""


class StreamGoneError(EngineError):
    """Nothing can be sent on this stream any more; the connection goes on."""


@cython.freelist(64)
cdef class Received:
    """What came on one stream since it was told of last."""


cdef class SettingsReceived:
    """The peer's settings: id → value."""


cdef class PingReceived:
    """A ping, which is answered by itself."""


cdef class PingAcknowledged:
    """The answer to a ping."""


cdef class GoAwayReceived:
    """The peer takes no new streams."""


cdef class Over:
    """After a GOAWAY of either side nothing is left to read or write."""
