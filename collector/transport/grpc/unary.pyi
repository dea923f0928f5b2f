from collections.abc import Callable
from typing import Final, Protocol

from collector.api import RetryableError
from collector.transport.grpc.method import Aborted, Call, Method, OpenStreaming, Reply
from collector.transport.http2.events import StreamEvent
from collector.transport.http2.header_fields import HeaderFields
from collector.transport.http2.server_streams import BaseServerConnection, ServerStream

__all__ = [
    "ACCEPT_ENCODING",
    "CONTENT_TYPE",
    "OK",
    "OK_HEAD",
    "CallDispatcher",
    "RequestHead",
    "UnaryCall",
    "invalid_timeout",
]

ACCEPT_ENCODING: Final[tuple[bytes, bytes]]
CONTENT_TYPE: Final[tuple[bytes, bytes]]
OK_HEAD: Final[HeaderFields]
OK: Final[HeaderFields]

class RequestHead:
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
    def parse_head(self, block: bytes, *, is_grpc: bool) -> RequestHead: ...
    def accept_non_unary(
        self, connection: BaseServerConnection, event: StreamEvent, head: RequestHead
    ) -> ServerStream | None: ...
    def invoke_authenticated(self, method: Method, call: Call, message: bytes, reply: Reply) -> None: ...
    def decompress(self, encoding: str, message: bytes, on_done: Callable[[bytes], None], reply: Reply) -> None: ...
    def failure_headers(self, error: Exception, status: bytes = b"200") -> tuple[tuple[bytes, bytes], ...]: ...
    def over_budget(self, error: RetryableError) -> Aborted: ...

class CallDispatcher:
    heads: Final[dict[bytes, RequestHead]]
    authenticates: bool
    def __init__(self, server: _Server) -> None: ...
    def accept(self, connection: BaseServerConnection, event: StreamEvent) -> ServerStream | None: ...
    def refuse(self, connection: BaseServerConnection, event: StreamEvent, head: RequestHead) -> None: ...

class UnaryCall(ServerStream):
    is_done: Final[bool]
    def invoke(self, message: bytes) -> None: ...
    def reply(self, outcome: bytes | Exception) -> None: ...

def invalid_timeout(value: bytes) -> Aborted: ...
