"""A gRPC server over HTTP/2 of our own: unary methods, bytes in and bytes out, with neither task nor future a request.

It does what the Collector's ``configgrpc.ServerConfig`` configures. What is equal from one request to the next (path,
encoding,
metadata, who calls) is read once and found again by the header list itself. Streaming methods are few and small:
health, reflection.

Source: gRPC's doc/PROTOCOL-HTTP2.md, doc/compression.md and doc/statuscodes.md; grpc-go
    internal/transport/http2_server.go and
rpc_util.go for what the specification leaves open, and for texts.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # googleapis-common-protos has no py.typed

from collector.api import Admission, Clock, Host, RetryableError
from collector.transport.auth import Authenticate, AuthenticationError, find_authenticator
from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.endpoint import Endpoint, LocalAddresses
from collector.transport.error_log import ErrorLog
from collector.transport.grpc.framing import FramingError, decode_binary, encode_binary, encode_text
from collector.transport.grpc.health import HEALTH_FILE, HEALTH_SERVICE, Health
from collector.transport.grpc.method import Aborted, Call, Method, OpenStreaming, Reply
from collector.transport.grpc.reflection import Reflection
from collector.transport.grpc.streaming import StreamingCall
from collector.transport.grpc.unary import ACCEPTED, CONTENT_TYPE, Calls, Head, bad_timeout
from collector.transport.http import HTTPServer
from collector.transport.http2.engine import require
from collector.transport.http2.events import Received
from collector.transport.http2.fields import headers_of
from collector.transport.http2.server import MAX_HEADER_BYTES, HTTP2Server
from collector.transport.http2.server_streams import ServerStreams, Stream
from config.blocks import GRPCServerConfig

__all__ = ["GRPCServer"]

_DEFAULT_MAX_MESSAGE_MIB: Final = 4  # gRPC's own default
_MIB: Final = 1024 * 1024
_EXPANSION_GUESS: Final = 8
_RESERVE_FROM_BYTES: Final = 8 * 1024
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
_NEVER: Final = float("inf")
_FIELD_OVERHEAD_BYTES: Final = 32  # RFC 9113 §6.5.2
# grpc-encoding → the name in collector.transport.compression. gRPC's snappy is the framed format:
# mostynb/go-grpc-compression, which the
# Collector takes.
_ENCODINGS: Final = {b"": "", b"identity": "", b"gzip": "gzip", b"zstd": "zstd", b"snappy": "x-snappy-framed"}
_UNSUPPORTED: Final = b"415"

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]


class GRPCServer:
    """Serves ``methods`` (``/package.Service/Method`` → method) on ``config.endpoint``; and health, and reflection over ``files``.

    ``key`` is the path of its configuration, for messages; ``refused`` is told the reason of every call that ends with
    an error, ``closed`` that of every connection that we close. ``http`` serves what is no gRPC on the same endpoint,
    over HTTP/1.1 and HTTP/2; it is not started by itself, but shut down.
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
        refused: Callable[[str], None],
        closed: Callable[[str], None],
        files: Mapping[str, descriptor_pb2.FileDescriptorProto],
        http: HTTPServer | None = None,
    ) -> None:
        self._config = config
        self._methods = {path.encode(): method for path, method in methods.items()}
        self._streaming: dict[bytes, OpenStreaming] = {}
        self._files = files
        self._health: Health | None = None
        self._key = key
        self._addresses = addresses
        self._refused = refused
        self._closed = closed
        self._http = http
        self._accept_http = http.accept if http is not None else None
        self._endpoint = Endpoint.parse(config.endpoint, unix=config.transport == "unix")
        self.max_bytes = (config.max_recv_msg_size_mib or _DEFAULT_MAX_MESSAGE_MIB) * _MIB
        """Of one message, compressed and again decompressed."""
        self._authenticate: Authenticate | None = None
        self._admission: Admission | None = None
        self._http2: HTTP2Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = Calls(self)
        self._log_error = ErrorLog(log, clock, "call failed inside the server, answered INTERNAL", config=key)
        self.port = 0
        """The port it listens on; 0 before ``start`` and for a Unix socket."""

    @property
    def address(self) -> str:
        """Where it listens, with the port it got."""
        return str(self._endpoint if self._endpoint.path else Endpoint(self._endpoint.host, self.port))

    async def start(self, host: Host) -> None:
        """Listen and serve.

        Raises:
            OSError: the endpoint cannot be listened on; the message names the key and who has the port.
            ValueError: a certificate or the authenticator is wrong.
        """
        http2 = self.prepare(host)
        await http2.start(self._config.tls, self._http.protocol if self._http is not None else None)
        self._http2 = http2
        self.port = http2.port

    def prepare(self, host: Host) -> HTTP2Server:
        """All of ``start`` but listening: a server whose connections can be fed.

        Raises:
            MissingLibraryError: HTTP/2 cannot be spoken here.
            ValueError: the authenticator is wrong.
        """
        require(self._key)
        config = self._config
        self._admission = host.admission
        self._authenticate = find_authenticator(host, config.auth, self._key)
        self._calls.authenticates = self._authenticate is not None
        if self._http is not None:
            self._http.open(host)
        services = frozenset(path.decode().split("/")[1] for path in self._methods)
        self._health = Health(services, host.ready)
        reflection = Reflection({*services, HEALTH_SERVICE}, {**self._files, HEALTH_FILE.name: HEALTH_FILE})
        self._streaming = {
            path.encode(): method for path, method in {**self._health.methods, **reflection.methods}.items()
        }
        return HTTP2Server(
            self._endpoint,
            self._calls.accept,
            key=self._key,
            admission=host.admission,
            addresses=self._addresses,
            closed=self._closed,
            keepalive=config.keepalive,
            max_message_bytes=self.max_bytes,
            max_concurrent_streams=config.max_concurrent_streams,
            write_buffer_bytes=config.write_buffer_size,
        )

    async def shutdown(self, grace_s: float) -> None:
        """Take no more calls, let those in progress finish for at most ``grace_s``, close every connection."""
        http2, self._http2 = self._http2, None
        if self._health is not None:
            self._health.close()
        if http2 is not None:
            await asyncio.gather(
                http2.shutdown(grace_s), *([self._http.shutdown(grace_s)] if self._http is not None else [])
            )
        for task in self._tasks:
            task.cancel()

    # What comes in

    def accept_other(self, connection: ServerStreams, event: Received, head: Head) -> Stream | None:
        """The stream of a request to no unary method, or None where it was answered at once."""
        if head.streaming is not None:
            stream = StreamingCall(self, head, connection, event.stream_id)
            if event.timeout_s < 0:
                stream.finish(bad_timeout(event.timeout))
                return None
            if event.timeout_s != _NEVER:
                connection.expire(stream, event.timeout_s)
            stream.read(connection.session.raw(event.stream_id), is_end=False)
            if event.is_end or event.data:
                stream.received(event)
            return None if stream.is_done else stream
        if self._accept_http is not None and head.status == _UNSUPPORTED:
            return self._accept_http(connection, event)
        self._calls.refuse(connection, event, head)
        return None

    def read_head(self, block: bytes, *, is_grpc: bool) -> Head:
        """What the headers of a request say."""
        head = Head(block)
        headers = headers_of(block)
        head.size_bytes = size_bytes = sum(len(name) + len(value) + _FIELD_OVERHEAD_BYTES for name, value in headers)
        fields = dict(headers)
        path = fields.get(b":path", b"")
        encoding = fields.get(b"grpc-encoding", b"")
        content_type = fields.get(b"content-type", b"")
        if not is_grpc:
            head.status = _UNSUPPORTED
            head.failure = Aborted(
                grpc.StatusCode.INVALID_ARGUMENT,
                f"invalid gRPC request content-type {_shown(content_type)}",
                reason="media_type",
            )
        elif fields.get(b":method") != b"POST":
            head.status = b"405"
            text = f"received a HEADERS frame with :method {_shown(fields.get(b':method', b''))} which should be POST"
            head.failure = Aborted(grpc.StatusCode.INTERNAL, text, reason="method")
        elif size_bytes > MAX_HEADER_BYTES:
            text = f"metadata of {size_bytes} bytes is larger than max ({MAX_HEADER_BYTES})"
            head.failure = Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, text, reason="metadata_too_large")
        elif path not in self._methods and path not in self._streaming:
            head.failure = Aborted(
                grpc.StatusCode.UNIMPLEMENTED, f"unknown method {_shown(path)}", reason="unknown_method"
            )
        elif encoding not in _ENCODINGS:
            text = f"grpc: decompressor is not installed for grpc-encoding {_shown(encoding)}"
            head.failure = Aborted(grpc.StatusCode.UNIMPLEMENTED, text, reason="encoding")
        elif not _decodes(headers):
            head.failure = Aborted(grpc.StatusCode.INTERNAL, "a binary metadata value is no base64", reason="metadata")
        else:
            head.encoding = _ENCODINGS[encoding]
            head.method, head.streaming = self._methods.get(path), self._streaming.get(path)
        return head

    # What calls use

    def invoke_authenticated(self, method: Method, call: Call, message: bytes, reply: Reply) -> None:
        """Ask the authenticator, then the method."""
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
            reply(
                Aborted(grpc.StatusCode.UNAUTHENTICATED, str(exc) or "authentication failed", reason="unauthenticated")
            )
        except Exception as exc:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            reply(exc)

    def unpack(self, encoding: str, message: bytes, done: Callable[[bytes], None], reply: Reply) -> None:
        """The content of a compressed message, never more than ``max_bytes``, to ``done``; or why not to ``reply``.

        Off the loop where it is large.
        """
        if not encoding:
            reply(
                Aborted(
                    grpc.StatusCode.INTERNAL,
                    "grpc: compressed flag set with identity or empty encoding",
                    reason="encoding",
                )
            )
            return
        admission = self._admission
        assert admission is not None
        try:
            if len(message) < _RESERVE_FROM_BYTES:
                unpacked = decompress(encoding, message, self.max_bytes)
            elif len(message) < _LEAVE_LOOP_FROM_BYTES:
                with admission.reserve(min(len(message) * _EXPANSION_GUESS, self.max_bytes)):
                    unpacked = decompress(encoding, message, self.max_bytes)
            else:
                reservation = admission.reserve(min(len(message) * _EXPANSION_GUESS, self.max_bytes))
                reservation.__enter__()
                future = asyncio.get_running_loop().run_in_executor(None, decompress, encoding, message, self.max_bytes)

                def unpacked_elsewhere(future: asyncio.Future[bytes]) -> None:
                    reservation.__exit__(None, None, None)
                    if future.cancelled():
                        return
                    error = future.exception()
                    if error is None:
                        done(future.result())
                    else:
                        reply(self._not_unpacked(error))

                future.add_done_callback(unpacked_elsewhere)
                return
        except (TooLarge, BadEncoding, RetryableError) as exc:
            reply(self._not_unpacked(exc))
        else:
            done(unpacked)

    def _not_unpacked(self, exc: BaseException) -> Exception:
        if isinstance(exc, TooLarge):
            text = f"grpc: received message after decompression larger than max {self.max_bytes}"
            return Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, text, reason="too_large")
        if isinstance(exc, BadEncoding):
            return Aborted(grpc.StatusCode.INVALID_ARGUMENT, str(exc), reason="encoding")
        return (
            self.over_budget(exc) if isinstance(exc, RetryableError) else RuntimeError(f"decompressing failed: {exc!r}")
        )

    def over_budget(self, error: RetryableError) -> Aborted:
        """The answer to what there is no memory for."""
        return Aborted(grpc.StatusCode.UNAVAILABLE, str(error), reason=error.reason, details=_retry_details(error))

    def failure(self, error: Exception, status: bytes = b"200") -> Headers:
        """The headers of an answer that is an error, counted. What is no :class:`Aborted` is a fault of ours: INTERNAL, logged."""
        if not isinstance(error, Aborted):
            self._log_error(error)
            error = Aborted(grpc.StatusCode.INTERNAL, "internal error", reason="internal")
        self._refused(error.reason)
        headers: Headers = (
            (b":status", status),
            CONTENT_TYPE,
            ACCEPTED,
            (b"grpc-status", str(error.code.value[0]).encode()),
        )
        if str(error):
            headers += ((b"grpc-message", encode_text(str(error))),)
        if error.details:
            headers += ((b"grpc-status-details-bin", encode_binary(error.details)),)
        return headers


def _shown(value: bytes) -> str:
    return repr(value[:100].decode("utf-8", "replace"))


def _decodes(headers: Headers) -> bool:
    try:
        for name, value in headers:
            if name.endswith(b"-bin"):
                decode_binary(value)
    except FramingError:
        return False
    return True


def _retry_details(error: RetryableError) -> bytes:
    """google.rpc.Status with RetryInfo, where the door says when to come back."""
    if error.retry_after_s is None:
        return b""
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=str(error))
    status.details.add().Pack(retry)
    return bytes(status.SerializeToString())
