"""``transport: grpcio``: a gRPC server of unary methods over grpc.aio, without generated stubs or interceptors.

It does what the Collector's ``configgrpc.ServerConfig`` configures. gzip is decompressed here and not in gRPC's core:
bounded, charged to the memory budget, and several times faster (ISA-L). The only other encoding that gRPC's Python core
knows is deflate, which the Collector lacks: the core refuses both ``zstd`` and ``snappy`` in ``grpc-encoding`` before
we see the call.

Source: open-telemetry/opentelemetry-collector config/configgrpc; gRPC's "PROTOCOL-HTTP2" and "compression"; RFC 1952
    §2.3.1.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import grpc

from collector.api import Clock, Host, RetryableError
from collector.transport.auth import AuthenticationError
from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.endpoint import LocalAddresses
from collector.transport.grpc.method import Aborted, Call, Method, binary_text
from collector.transport.grpc.server_base import (
    LEAVE_LOOP_FROM_BYTES,
    RESERVE_FROM_BYTES,
    BaseGRPCServer,
    max_message_bytes,
)
from collector.transport.ports import describe_port_conflict, listen_error
from collector.transport.tls import grpc_server_credentials
from config.blocks import GRPCServerConfig, KeepaliveServerConfig

__all__ = ["GRPCIOServer", "server_options"]

_GZIP_MAGIC: Final = b"\x1f\x8b"  # read as protobuf: field 3 with wire type 7, which does not exist
_IDENTITY_AND_GZIP: Final = 0b101  # bits of GRPC_COMPRESS_NONE and GRPC_COMPRESS_GZIP
_MAX_METADATA_BYTES: Final = 64 * 1024  # gRPC's default of 8 KiB is too small for some tokens

_ServicerContext: TypeAlias = Any  # grpc has no types


class GRPCIOServer(BaseGRPCServer):
    """Serves ``methods`` (``/package.Service/Method`` → method) on ``config.endpoint``. Arguments: see the base."""

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
        on_unread: Callable[[Method, str], None] | None = None,
    ) -> None:
        super().__init__(
            config, key=key, addresses=addresses, clock=clock, log=log, on_refused=on_refused, on_unread=on_unread
        )
        self._methods = methods
        self._server: grpc.aio.Server | None = None

    async def start(self, host: Host) -> None:
        """Listen and serve.

        Raises:
            OSError: cannot listen on the endpoint; the message names the key and the process that has the port.
            ValueError: a certificate or the authenticator cannot be used.
        """
        self._open(host)
        config = self._config
        credentials = grpc_server_credentials(config.tls) if config.tls is not None else None
        # gRPC's core writes a line to stderr for each malformed request, so any client could fill our log.
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
        """Refuse new calls, give those in progress ``grace_s`` to finish, close every connection."""
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
                address = str(endpoint.resolve())
        except OSError as exc:
            raise listen_error(endpoint, key, exc) from exc
        try:
            port = (
                server.add_secure_port(address, credentials)
                if credentials is not None
                else server.add_insecure_port(address)
            )
        except RuntimeError as exc:  # gRPC does not say why; nearly always the port is busy
            if endpoint.path:
                raise OSError(0, f"{key}: cannot listen on {endpoint}") from exc
            raise OSError(0, describe_port_conflict(endpoint.host, endpoint.port, key)) from exc
        return 0 if endpoint.path else int(port)

    def _handler(self, method: Method) -> Callable[[bytes, _ServicerContext], Awaitable[bytes]]:
        """Return the handler of ``method``. Whatever happens in the method, the call ends with a status."""

        async def handle(message: bytes, servicer_context: _ServicerContext) -> bytes:
            try:
                if message[:2] == _GZIP_MAGIC:
                    try:
                        message = await self._decompress(message)
                    except Exception as exc:
                        self.note_unread(method, exc)
                        raise
                call = await self._call(servicer_context)
                answer: asyncio.Future[bytes | Exception] = asyncio.get_running_loop().create_future()
                method(message, call, lambda outcome: None if answer.done() else answer.set_result(outcome))
                outcome = await answer
            except Exception as exc:  # noqa: BLE001 - no bug may end the process, and the client must get an answer
                outcome = exc
            if isinstance(outcome, bytes):
                return outcome
            failure = self._counted(outcome)
            trailers = (("grpc-status-details-bin", failure.details),) if failure.details else ()
            await servicer_context.abort(failure.code, str(failure), trailers)
            raise failure  # abort() raised already

        return handle

    async def _call(self, servicer_context: _ServicerContext) -> Call:
        """Return what is known of the caller.

        Raises:
            Aborted: UNAUTHENTICATED.
        """

        def read_metadata() -> dict[str, tuple[str, ...]]:
            return _metadata_values(servicer_context)

        claims: tuple[tuple[str, str], ...] = ()
        if self._authenticate is not None:
            try:
                claims = await self._authenticate(read_metadata())
            except AuthenticationError as exc:
                text = str(exc) or "authentication failed"
                raise Aborted(grpc.StatusCode.UNAUTHENTICATED, text, reason="unauthenticated") from exc
        return Call(self._addresses.is_local_grpc(servicer_context.peer()), read_metadata, claims)

    async def _decompress(self, message: bytes) -> bytes:
        """Return the content of a gzip message, never more than ``max_recv_msg_size_mib`` of it."""
        admission = self._admission
        assert admission is not None  # it is started
        try:
            if len(message) < RESERVE_FROM_BYTES:
                return decompress("gzip", message, self.max_bytes)
            with admission.reserve(self._decompressed_bytes_guess(message)):
                if len(message) < LEAVE_LOOP_FROM_BYTES:
                    return decompress("gzip", message, self.max_bytes)
                return await asyncio.to_thread(decompress, "gzip", message, self.max_bytes)
        except (TooLarge, BadEncoding, RetryableError, MemoryError) as exc:
            raise self._decompression_failure(exc) from exc


def server_options(config: GRPCServerConfig) -> Sequence[tuple[str, int]]:
    """Return gRPC's channel arguments for ``config``."""
    options = [
        ("grpc.so_reuseport", 0),
        ("grpc.per_message_decompression", 0),
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_AND_GZIP),
        ("grpc.max_receive_message_length", max_message_bytes(config)),
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


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Looks up the handler of a method by its full name."""

    def __init__(self, handlers: Mapping[str, Callable[[bytes, _ServicerContext], Awaitable[bytes]]]) -> None:
        self._handlers = {name: grpc.unary_unary_rpc_method_handler(handler) for name, handler in handlers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return self._handlers.get(handler_call_details.method)


def _metadata_values(servicer_context: _ServicerContext) -> dict[str, tuple[str, ...]]:
    values: dict[str, tuple[str, ...]] = {}
    for name, value in servicer_context.invocation_metadata() or ():
        values[name] = (*values.get(name, ()), value if isinstance(value, str) else binary_text(value))
    return values
