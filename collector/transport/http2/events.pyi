from typing import Final, TypeAlias

__all__ = [
    "EngineError",
    "Event",
    "FloodError",
    "GoAwayReceived",
    "Over",
    "PingAcknowledged",
    "PingReceived",
    "Received",
    "SettingsReceived",
    "StreamGoneError",
]

class EngineError(Exception): ...
class FloodError(EngineError): ...
class StreamGoneError(EngineError): ...

class Received:
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

class Over:
    error_code: Final[int]
    debug_data: Final[bytes]

Event: TypeAlias = Received | SettingsReceived | PingReceived | PingAcknowledged | GoAwayReceived | Over
