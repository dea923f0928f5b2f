from typing import Final, TypeAlias

__all__ = [
    "EngineError",
    "Event",
    "Fields",
    "FloodError",
    "GoAwayReceived",
    "Over",
    "PingAcknowledged",
    "PingReceived",
    "Received",
    "Session",
    "SettingsReceived",
    "StreamGoneError",
    "headers_of",
    "seconds_of",
]

Pairs: TypeAlias = tuple[tuple[bytes, bytes], ...]

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

class Fields:
    pairs: Final[Pairs]
    def __init__(self, pairs: Pairs) -> None: ...

def headers_of(block: bytes) -> Pairs: ...
def seconds_of(timeout: bytes) -> float: ...

class Session:
    is_client: Final[bool]
    held_bytes: Final[int]
    queued_bytes: Final[int]
    def __init__(
        self,
        *,
        is_client: bool,
        settings: dict[int, int],
        max_message_bytes: int,
        max_header_bytes: int,
        max_header_count: int,
        max_sent_header_bytes: int,
        connection_window_bytes: int = 0,
    ) -> None: ...
    def receive(self, data: bytes | bytearray | memoryview, now_s: float, size: int = -1) -> list[Event] | tuple[()]: ...
    def take_events(self) -> list[Event] | tuple[()]: ...
    def raw(self, stream_id: int) -> bytes: ...
    def discard(self, stream_id: int) -> None: ...
    def seen_s(self, stream_id: int) -> float: ...
    def request(self, fields: Fields, *chunks: bytes, is_end: bool = True) -> int: ...
    def respond(self, stream_id: int, head: Fields, body: bytes = b"", trailers: Fields | None = None, *, is_end: bool = True) -> None: ...
    def inform(self, stream_id: int, head: Fields) -> None: ...
    def send(self, stream_id: int, data: bytes, trailers: Fields | None = None, *, is_end: bool = False) -> None: ...
    def reset(self, stream_id: int, error_code: int) -> None: ...
    def ping(self, opaque_data: bytes) -> None: ...
    def send_goaway(self, error_code: int = 0, debug_data: bytes = b"") -> None: ...
    def send_shutdown_notice(self) -> None: ...
    def terminate(self, error_code: int = 0) -> None: ...
    def output(self, max_bytes: int) -> list[bytes | memoryview] | tuple[()]: ...
    def close(self) -> None: ...
    @property
    def wants_flush(self) -> bool: ...
    @property
    def is_over(self) -> bool: ...
