from collections.abc import Callable
from typing import Final, Protocol

from collector.api import RetryableError
from collector.transport.grpc.method import Aborted, Call, Method, OpenStreaming, Reply
from collector.transport.http2.events import Received
from collector.transport.http2.fields import Fields
from collector.transport.http2.server_streams import ServerStreams, Stream

__all__ = ["ACCEPTED", "CONTENT_TYPE", "OK", "OK_HEAD", "Calls", "Head", "UnaryCall", "bad_timeout"]

ACCEPTED: Final[tuple[bytes, bytes]]
CONTENT_TYPE: Final[tuple[bytes, bytes]]
OK_HEAD: Final[Fields]
OK: Final[Fields]

class Head:
    block: Final[bytes]
    size_bytes: int
    method: Method | None
    streaming: OpenStreaming | None
    encoding: str
    failure: Aborted | None
    status: bytes
    def __init__(self, block: bytes) -> None: ...
    def call(self, is_local: bool | None) -> Call: ...

class _Server(Protocol):
    max_bytes: int
    def read_head(self, block: bytes, *, is_grpc: bool) -> Head: ...
    def accept_other(self, connection: ServerStreams, event: Received, head: Head) -> Stream | None: ...
    def invoke_authenticated(self, method: Method, call: Call, message: bytes, reply: Reply) -> None: ...
    def unpack(self, encoding: str, message: bytes, done: Callable[[bytes], None], reply: Reply) -> None: ...
    def failure(self, error: Exception, status: bytes = b"200") -> tuple[tuple[bytes, bytes], ...]: ...
    def over_budget(self, error: RetryableError) -> Aborted: ...

class Calls:
    heads: Final[dict[bytes, Head]]
    authenticates: bool
    def __init__(self, server: _Server) -> None: ...
    def accept(self, connection: ServerStreams, event: Received) -> Stream | None: ...
    def refuse(self, connection: ServerStreams, event: Received, head: Head) -> None: ...

class UnaryCall(Stream):
    is_done: Final[bool]
    def invoke(self, message: bytes) -> None: ...
    def reply(self, outcome: bytes | Exception) -> None: ...

def bad_timeout(value: bytes) -> Aborted: ...
