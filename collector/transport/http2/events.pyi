from typing import Final, TypeAlias

__all__ = [
    "ConnectionEnded",
    "Event",
    "FloodError",
    "GoAwayReceived",
    "HTTP2Error",
    "PingAcknowledged",
    "PingReceived",
    "SettingsReceived",
    "StreamClosedError",
    "StreamEvent",
]

class HTTP2Error(Exception): ...
class FloodError(HTTP2Error): ...
class StreamClosedError(HTTP2Error): ...

class StreamEvent:
    stream_id: Final[int]
    head: Final[bytes | None]
    timeout: Final[bytes]
    timeout_s: Final[float]
    is_grpc: Final[bool]
    message: Final[bytes | None]
    is_compressed: Final[bool]
    data: Final[bytes]
    trailers: Final[bytes | None]
    is_end: Final[bool]
    is_closed: Final[bool]
    error_code: Final[int]
    failure: Final[str]

class SettingsReceived:
    values: Final[dict[int, int]]

class PingReceived:
    opaque_data: Final[bytes]

class PingAcknowledged:
    opaque_data: Final[bytes]

class GoAwayReceived:
    last_stream_id: Final[int]
    error_code: Final[int]
    debug_data: Final[bytes]

class ConnectionEnded:
    error_code: Final[int]
    debug_data: Final[bytes]

Event: TypeAlias = StreamEvent | SettingsReceived | PingReceived | PingAcknowledged | GoAwayReceived | ConnectionEnded
