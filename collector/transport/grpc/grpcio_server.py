"""``transport: grpcio``: a gRPC server of unary methods over grpc.aio: no generated stubs, no (de)serialisers, no interceptors.

It does what the Collector's ``configgrpc.ServerConfig`` configures. gzip is unpacked here and not in gRPC's core:
bounded before and while unpacking, booked in the memory budget, and several times faster (ISA-L). gRPC's Python core
knows no other encoding but deflate, which the Collector lacks: both ``zstd`` and ``snappy`` in ``grpc-encoding`` are
refused by the core before we see them.

Source: open-telemetry/opentelemetry-collector config/configgrpc; gRPC's "PROTOCOL-HTTP2" and "compression"; RFC 1952
    §2.3.1.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import grpc

from collector.api import Admission, Clock, Host, RetryableError
from collector.transport.auth import Authenticate, AuthenticationError, find_authenticator
from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.endpoint import Endpoint, LocalAddresses
from collector.transport.error_log import ErrorLog
from collector.transport.grpc.method import Aborted, Call, Method, binary_text
from collector.transport.ports import describe_port_conflict
from collector.transport.tls import grpc_server_credentials
from config.blocks import GRPCServerConfig, KeepaliveServerConfig

__all__ = ["GRPCIOServer", "server_options"]

_DEFAULT_MAX_MESSAGE_MIB: Final = 4  # gRPC's own default
_MIB: Final = 1024 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"  # as protobuf: field 3 with wire type 7, which does not exist
_EXPANSION_GUESS: Final = 8
_RESERVE_FROM_BYTES: Final = 8 * 1024
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
_IDENTITY_AND_GZIP: Final = 0b101  # bits of GRPC_COMPRESS_NONE and GRPC_COMPRESS_GZIP
_MAX_METADATA_BYTES: Final = 64 * 1024  # gRPC's default of 8 KiB is too small for some tokens

_ServicerContext: TypeAlias = Any  # grpc has no types


class GRPCIOServer:
    """Serves ``methods`` (``/package.Service/Method`` → method) on ``config.endpoint``.

    ``key`` is the path of its configuration, for messages; ``refused`` is told the reason of every call that ends
    instead of an answer.
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
    ) -> None:
        self._config = config
        self._methods = methods
        self._key = key
        self._addresses = addresses
        self._refused = refused
        self._endpoint = Endpoint.parse(config.endpoint)
        self._max_bytes = (config.max_recv_msg_size_mib or _DEFAULT_MAX_MESSAGE_MIB) * _MIB
        self._authenticate: Authenticate | None = None
        self._admission: Admission | None = None
        self._server: grpc.aio.Server | None = None
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
        config = self._config
        self._admission = host.admission
        self._authenticate = find_authenticator(host, config.auth, self._key)
        credentials = grpc_server_credentials(config.tls) if config.tls is not None else None
        # Its core writes a line to stderr for each malformed request: whoever knocks would write our log. They get a
        # status.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        server = grpc.aio.server(options=server_options(config))
        server.add_generic_rpc_handlers(
            (_Methods({name: self._handler(method) for name, method in self._methods.items()}),)
        )
        try:
            self.port = self._bind(server, credentials)
        except OSError:
            await server.stop(None)
            raise
        await server.start()
        self._server = server

    async def shutdown(self, grace_s: float) -> None:
        """Take no more calls, let those in progress finish for at most ``grace_s``, close every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        await server.stop(grace_s)
        self._endpoint.remove_socket()

    def _bind(self, server: grpc.aio.Server, credentials: grpc.ServerCredentials | None) -> int:
        endpoint = self._endpoint
        key = f"{self._key}::endpoint"
        try:
            if endpoint.path:
                endpoint.remove_stale_socket()
                address = f"unix:{endpoint.path}"
            elif not endpoint.host:
                address = f"[::]:{endpoint.port}"
            else:
                resolved = endpoint.resolve()
                address = str(resolved)
        except OSError as exc:
            raise OSError(exc.errno or 0, f"{key}: cannot listen on {endpoint}: {exc.strerror or exc}") from exc
        try:
            port = (
                server.add_secure_port(address, credentials)
                if credentials is not None
                else server.add_insecure_port(address)
            )
        except RuntimeError as exc:  # gRPC does not say why; nearly always the port is busy
            raise OSError(
                0,
                describe_port_conflict(endpoint.host, endpoint.port, key)
                if not endpoint.path
                else f"{key}: cannot listen on {endpoint}",
            ) from exc
        return 0 if endpoint.path else int(port)

    def _handler(self, method: Method) -> Callable[[bytes, _ServicerContext], Awaitable[bytes]]:
        """The edge: whatever happens in ``method``, the call ends with a status that says so."""

        async def handle(message: bytes, servicer_context: _ServicerContext) -> bytes:
            try:
                if message[:2] == _GZIP_MAGIC:
                    message = await self._unpack(message)
                call = await self._call(servicer_context)
                answer: asyncio.Future[bytes | Exception] = asyncio.get_running_loop().create_future()
                method(message, call, lambda outcome: None if answer.done() else answer.set_result(outcome))
                outcome = await answer
            except Exception as exc:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
                outcome = exc
            if isinstance(outcome, bytes):
                return outcome
            failure = (
                outcome
                if isinstance(outcome, Aborted)
                else Aborted(grpc.StatusCode.INTERNAL, "internal error", reason="internal")
            )
            if failure is not outcome:
                self._log_error(outcome)
            self._refused(failure.reason)
            trailers = (("grpc-status-details-bin", failure.details),) if failure.details else ()
            await servicer_context.abort(failure.code, str(failure), trailers)
            raise failure  # abort() raised already

        return handle

    async def _call(self, servicer_context: _ServicerContext) -> Call:
        """What is known of the caller.

        Raises:
            Aborted: UNAUTHENTICATED.
        """

        def read() -> dict[str, tuple[str, ...]]:
            return _metadata_values(servicer_context)

        claims: tuple[tuple[str, str], ...] = ()
        if self._authenticate is not None:
            try:
                claims = await self._authenticate(read())
            except AuthenticationError as exc:
                raise Aborted(
                    grpc.StatusCode.UNAUTHENTICATED, str(exc) or "authentication failed", reason="unauthenticated"
                ) from exc
        return Call(self._addresses.is_local_grpc(servicer_context.peer()), read, claims)

    async def _unpack(self, message: bytes) -> bytes:
        """The gzip message's content; never more than ``max_recv_msg_size_mib`` of it."""
        admission = self._admission
        if admission is None:  # not started: nobody can have called us
            raise Aborted(grpc.StatusCode.UNAVAILABLE, "not started", reason="not_started")
        try:
            if len(message) < _RESERVE_FROM_BYTES:
                return decompress("gzip", message, self._max_bytes)
            with admission.reserve(min(len(message) * _EXPANSION_GUESS, self._max_bytes)):
                if len(message) < _LEAVE_LOOP_FROM_BYTES:
                    return decompress("gzip", message, self._max_bytes)
                return await asyncio.to_thread(decompress, "gzip", message, self._max_bytes)
        except TooLarge as exc:
            text = f"grpc: received message after decompression larger than max {self._max_bytes}"
            raise Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, text, reason="too_large") from exc
        except BadEncoding as exc:
            raise Aborted(grpc.StatusCode.INVALID_ARGUMENT, str(exc), reason="encoding") from exc
        except RetryableError as exc:
            raise Aborted(grpc.StatusCode.UNAVAILABLE, str(exc), reason=exc.reason) from exc


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Finds the handler of a method by its full name."""

    def __init__(self, handlers: Mapping[str, Callable[[bytes, _ServicerContext], Awaitable[bytes]]]) -> None:
        self._handlers = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(handler_call_details.method)


def _metadata_values(servicer_context: _ServicerContext) -> dict[str, tuple[str, ...]]:
    values: dict[str, tuple[str, ...]] = {}
    for name, value in servicer_context.invocation_metadata() or ():
        values[name] = (*values.get(name, ()), value if isinstance(value, str) else binary_text(value))
    return values


def server_options(config: GRPCServerConfig) -> Sequence[tuple[str, int]]:
    """Channel arguments of gRPC for what ``config`` says."""
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.per_message_decompression", 0),
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_AND_GZIP),
        ("grpc.max_receive_message_length", (config.max_recv_msg_size_mib or _DEFAULT_MAX_MESSAGE_MIB) * _MIB),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
    ]
    if config.max_concurrent_streams:
        options.append(("grpc.max_concurrent_streams", config.max_concurrent_streams))
    if config.write_buffer_size:
        options.append(("grpc.http2.write_buffer_size", config.write_buffer_size))
    keepalive = config.keepalive or KeepaliveServerConfig()
    server, enforcement = keepalive.server_parameters, keepalive.enforcement_policy
    for name, seconds in (
        ("grpc.max_connection_idle_ms", server.max_connection_idle),
        ("grpc.max_connection_age_ms", server.max_connection_age),
        ("grpc.max_connection_age_grace_ms", server.max_connection_age_grace),
        ("grpc.keepalive_time_ms", server.time),
        ("grpc.keepalive_timeout_ms", server.timeout),
        ("grpc.http2.min_ping_interval_without_data_ms", enforcement.min_time),
    ):
        if seconds:
            options.append((name, int(seconds * 1000)))
    if enforcement.permit_without_stream:
        options.append(("grpc.keepalive_permit_without_calls", 1))
    return options
