"""A gRPC server over our own HTTP/2: unary methods with bytes in and bytes out, without a task or future per request.

It does what the Collector's ``configgrpc.ServerConfig`` configures. What repeats from request to request (path,
encoding, metadata, caller) is parsed once and found again by the header block. The streaming methods are few and small:
health and reflection.

Source: gRPC's doc/PROTOCOL-HTTP2.md, doc/compression.md and doc/statuscodes.md; grpc-go
    internal/transport/http2_server.go and rpc_util.go for texts and for what the specification leaves open.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import descriptor_pb2

from collector.api import Clock, Host, RetryableError
from collector.transport.auth import Authenticate, AuthenticationError
from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.endpoint import LocalAddresses
from collector.transport.grpc.framing import FramingError, decode_binary, encode_binary, encode_percent
from collector.transport.grpc.health import HEALTH_FILE, HEALTH_SERVICE, Health
from collector.transport.grpc.method import Aborted, Call, Method, OpenStreaming, Reply
from collector.transport.grpc.reflection import Reflection
from collector.transport.grpc.server_base import (
    LEAVE_LOOP_FROM_BYTES,
    ON_LOOP_MAX_BYTES,
    RESERVE_FROM_BYTES,
    BaseGRPCServer,
)
from collector.transport.grpc.streaming import StreamingCall
from collector.transport.grpc.unary import (
    ACCEPT_ENCODING,
    CONTENT_TYPE,
    CallDispatcher,
    RequestHead,
    invalid_timeout,
)
from collector.transport.http import HTTPServer
from collector.transport.http2.events import StreamEvent
from collector.transport.http2.header_fields import decode_header_block
from collector.transport.http2.server import HTTP2Server
from collector.transport.http2.server_connection import MAX_HEADER_BYTES
from collector.transport.http2.server_streams import BaseServerConnection, ServerStream
from collector.transport.http2.sessions import require_http2
from config.blocks import GRPCServerConfig

__all__ = ["GRPCServer"]

_NEVER: Final = float("inf")
_FIELD_OVERHEAD_BYTES: Final = 32  # RFC 9113 §6.5.2
# grpc-encoding → the name in collector.transport.compression. gRPC's snappy is the framed format:
# mostynb/go-grpc-compression, which the Collector uses.
_ENCODINGS: Final = {b"": "", b"identity": "", b"gzip": "gzip", b"zstd": "zstd", b"snappy": "x-snappy-framed"}
_SUPPORTED: Final = f"supported: [{', '.join(sorted(name.decode() for name in _ENCODINGS if name))}]"
_UNSUPPORTED: Final = b"415"

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class GRPCServer(BaseGRPCServer):
    """Serves ``methods`` (``/package.Service/Method`` → method), health, and reflection over ``files``.

    ``on_closed`` is called with the reason for every connection that we close; for the other arguments see the base.
    ``http`` serves requests other than gRPC on the same endpoint, over HTTP/1.1 and HTTP/2: it must not be started
    itself, and is shut down with this server. ``is_serving`` tells the health service whether a service serves (None:
    there is none of this name); by default, ``methods`` are served while the process is ready.
    """

    def __init__(
        self,
        config: GRPCServerConfig,
        methods: Mapping[str, Method],
        *,
        key: str,
        addresses: LocalAddresses,
        clock: Clock,
        log: Any,
        on_refused: Callable[[str], None],
        on_closed: Callable[[str], None],
        files: Mapping[str, descriptor_pb2.FileDescriptorProto],
        on_unread: Callable[[Method, str], None] | None = None,
        http: HTTPServer | None = None,
        is_serving: Callable[[str], bool | None] | None = None,
    ) -> None:
        super().__init__(
            config, key=key, addresses=addresses, clock=clock, log=log, on_refused=on_refused, on_unread=on_unread
        )
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._streaming: dict[bytes, OpenStreaming] = {}
        self._files = files
        self._is_serving = is_serving
        self._health: Health | None = None
        self._on_closed = on_closed
        self._http = http
        self._accept_http = http.accept if http is not None else None
        self._http2: HTTP2Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = CallDispatcher(self)

    async def start(self, host: Host) -> None:
        """Listen and serve.

        Raises:
            OSError: cannot listen on the endpoint; the message names the key and the process that has the port.
            ValueError: a certificate or the authenticator cannot be used.
        """
        http2 = self.prepare(host)
        await http2.start(self._config.tls, host, self._http.protocol if self._http is not None else None)
        self._http2 = http2
        self.port = http2.port

    def prepare(self, host: Host) -> HTTP2Server:
        """Do everything ``start`` does except listening, and return a server whose connections can be fed.

        Raises:
            MissingLibraryError: libnghttp2 is not installed.
            ValueError: the authenticator cannot be used.
        """
        require_http2(self._key)
        self._open(host)
        assert self._admission is not None
        self._calls.authenticates = self._authenticate is not None
        if self._http is not None:
            self._http.open(host)
        services = frozenset(path.decode().split("/")[1] for path in self._methods)
        known = services | {"", HEALTH_SERVICE}
        self._health = Health(self._is_serving or (lambda name: host.ready() if name in known else None))
        reflection = Reflection({*services, HEALTH_SERVICE}, {**self._files, HEALTH_FILE.name: HEALTH_FILE})
        self._streaming = {
            path.encode(): method for path, method in {**self._health.methods, **reflection.methods}.items()
        }
        config = self._config
        return HTTP2Server(
            self._endpoint,
            self._calls.accept,
            key=self._key,
            admission=self._admission,
            addresses=self._addresses,
            on_closed=self._on_closed,
            keepalive=config.keepalive,
            max_message_bytes=self.max_bytes,
            max_concurrent_streams=config.max_concurrent_streams,
            write_buffer_bytes=config.write_buffer_size,
        )

    async def shutdown(self, grace_s: float) -> None:
        """Refuse new calls, give those in progress ``grace_s`` to finish, close every connection."""
        http2, self._http2 = self._http2, None
        if self._health is not None:
            self._health.close()
        if http2 is not None:
            is_continued, http = http2.is_continued, self._http
            await asyncio.gather(
                http2.shutdown(grace_s),
                *([http.shutdown(grace_s, is_continued=is_continued)] if http is not None else []),
            )
        for task in self._tasks:
            task.cancel()

    # What CallDispatcher uses.

    def parse_head(self, block: bytes, *, is_grpc: bool) -> RequestHead:
        """Return what the header block of a request says: its method, or why it fails."""
        head = RequestHead(block)
        headers = decode_header_block(block)
        head.size_bytes = size_bytes = sum(len(name) + len(value) + _FIELD_OVERHEAD_BYTES for name, value in headers)
        fields = dict(headers)
        path = fields.get(b":path", b"")
        encoding = fields.get(b"grpc-encoding", b"")
        content_type = fields.get(b"content-type", b"")
        if not is_grpc:
            head.status = _UNSUPPORTED
            text = f"invalid gRPC request content-type {_shown(content_type)}"
            head.failure = Aborted(grpc.StatusCode.INVALID_ARGUMENT, text, reason="media_type")
        elif fields.get(b":method") != b"POST":
            head.status = b"405"
            text = f"received a HEADERS frame with :method {_shown(fields.get(b':method', b''))} which should be POST"
            head.failure = Aborted(grpc.StatusCode.INTERNAL, text, reason="method")
        elif size_bytes > MAX_HEADER_BYTES:
            text = f"metadata of {size_bytes} bytes is larger than max ({MAX_HEADER_BYTES})"
            head.failure = Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, text, reason="metadata_too_large")
        elif path not in self._methods and path not in self._streaming:
            text = f"unknown method {_shown(path)}"
            head.failure = Aborted(grpc.StatusCode.UNIMPLEMENTED, text, reason="unknown_method")
        elif encoding not in _ENCODINGS:
            text = f"grpc: decompressor is not installed for grpc-encoding {_shown(encoding)}, {_SUPPORTED}"
            head.failure = Aborted(grpc.StatusCode.UNIMPLEMENTED, text, reason="encoding")
        elif not _has_valid_binary_values(headers):
            text = "a binary metadata value is not valid base64"
            head.failure = Aborted(grpc.StatusCode.INTERNAL, text, reason="metadata")
        else:
            head.encoding = _ENCODINGS[encoding]
            head.method, head.streaming = self._methods.get(path), self._streaming.get(path)
        return head

    def accept_non_unary(
        self, connection: BaseServerConnection, event: StreamEvent, head: RequestHead
    ) -> ServerStream | None:
        """Return the stream of a request that is not a valid unary call, or None if it was answered at once."""
        if head.streaming is not None:
            stream = StreamingCall(self, head, connection, event.stream_id)
            if event.timeout_s < 0:
                stream.finish(invalid_timeout(event.timeout))
                return None
            if event.timeout_s != _NEVER:
                connection.set_deadline(stream, event.timeout_s)
            stream.read(connection.session.switch_to_raw(event.stream_id), is_end=False)
            if event.is_end or event.data:
                stream.received(event)
            return None if stream.is_done else stream
        if self._accept_http is not None and head.status == _UNSUPPORTED:
            return self._accept_http(connection, event)
        self._calls.refuse(connection, event, head)
        return None

    def invoke_authenticated(self, method: Method, call: Call, message: bytes, reply: Reply) -> None:
        """Authenticate the caller, then invoke the method."""
        assert self._authenticate is not None
        task = asyncio.ensure_future(self._invoke(self._authenticate, method, call, message, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _invoke(
        self, authenticate: Authenticate, method: Method, call: Call, message: bytes, reply: Reply
    ) -> None:
        try:
            claims = await authenticate(call.metadata)
            method(message, Call(call.is_local, lambda: call.metadata, claims), reply)
        except AuthenticationError as exc:
            text = str(exc) or "authentication failed"
            reply(Aborted(grpc.StatusCode.UNAUTHENTICATED, text, reason="unauthenticated"))
        except Exception as exc:  # noqa: BLE001 - no bug may end the process, and the client must get an answer
            reply(exc)

    def decompress(self, encoding: str, message: bytes, on_done: Callable[[bytes], None], reply: Reply) -> None:
        """Pass the decompressed message, never more than ``max_bytes``, to ``on_done``; or the failure to ``reply``.

        Large messages are decompressed in a thread, and so are those that turn out to be large.
        """
        if not encoding:
            text = "grpc: compressed flag set with identity or empty encoding"
            reply(Aborted(grpc.StatusCode.INTERNAL, text, reason="encoding"))
            return
        admission = self._admission
        assert admission is not None
        on_loop_bytes = min(self.max_bytes, ON_LOOP_MAX_BYTES)
        try:
            if len(message) < RESERVE_FROM_BYTES:
                decompressed = decompress(encoding, message, on_loop_bytes)
            elif len(message) < LEAVE_LOOP_FROM_BYTES:
                with admission.reserve(self._decompressed_bytes_guess(message)):
                    decompressed = decompress(encoding, message, on_loop_bytes)
            else:
                self._decompress_off_loop(encoding, message, self._decompressed_bytes_guess(message), on_done, reply)
                return
        except TooLarge as exc:
            if on_loop_bytes < self.max_bytes:
                self._decompress_off_loop(encoding, message, self.max_bytes, on_done, reply)
            else:
                reply(self._decompression_failure(exc))
        except (BadEncoding, RetryableError, MemoryError) as exc:
            reply(self._decompression_failure(exc))
        else:
            on_done(decompressed)

    def _decompress_off_loop(
        self, encoding: str, message: bytes, reserved_bytes: int, on_done: Callable[[bytes], None], reply: Reply
    ) -> None:
        assert self._admission is not None
        reservation = self._admission.reserve(reserved_bytes)
        try:
            reservation.__enter__()
        except RetryableError as exc:
            reply(self._decompression_failure(exc))
            return
        future = asyncio.get_running_loop().run_in_executor(None, decompress, encoding, message, self.max_bytes)

        def on_decompressed(future: asyncio.Future[bytes]) -> None:
            reservation.__exit__(None, None, None)
            if future.cancelled():
                return
            error = future.exception()
            if error is None:
                on_done(future.result())
            else:
                reply(self._decompression_failure(error))

        future.add_done_callback(on_decompressed)

    def failure_headers(self, error: Exception, status: bytes = b"200") -> Headers:
        """Return the headers of the response to a call that failed, and count it."""
        failure = self._counted(error)
        headers: Headers = (
            (b":status", status),
            CONTENT_TYPE,
            ACCEPT_ENCODING,
            (b"grpc-status", str(failure.code.value[0]).encode()),
        )
        if str(failure):
            headers += ((b"grpc-message", encode_percent(str(failure))),)
        if failure.details:
            headers += ((b"grpc-status-details-bin", encode_binary(failure.details)),)
        return headers


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("utf-8", "replace"))


def _has_valid_binary_values(headers: Headers) -> bool:
    try:
        for name, value in headers:
            if name.endswith(b"-bin"):
                decode_binary(value)
    except FramingError:
        return False
    return True
