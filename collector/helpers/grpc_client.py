"""A gRPC client from a configgrpc block: bytes in, bytes out, errors the queue understands.

grpcio knows gzip only, so ``compression: zstd`` and ``snappy`` are refused by name. Retries are the queue's: gRPC's own are off.

Source: open-telemetry/opentelemetry-collector config/configgrpc; OTLP specification "Failures" and "OTLP/gRPC Throttling".
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # googleapis-common-protos has no py.typed

from collector.api import Clock, ConsumeError, Host, PermanentError, RetryableError
from collector.helpers.client_auth import ClientAuthenticator, find_client_authenticator
from collector.helpers.redact import Redactor
from collector.helpers.tls import FileWatch, grpc_channel_credentials
from config.blocks import GRPCClientConfig

__all__ = ["RETRYABLE_CODES", "GRPCClient", "check_grpc_client_config", "retry_delay_s"]

RETRYABLE_CODES: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""OTLP specification; RESOURCE_EXHAUSTED too, where the server sends RetryInfo."""

_MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024
_MAX_DETAILS_BYTES: Final = 64 * 1024
# gRPC's own bound is two minutes: a server that comes back should be found about when the queue tries again.
_MAX_RECONNECT_BACKOFF_MS: Final = 5000
_CLOSE_GRACE_S: Final = 10.0
_MAX_RETRY_AFTER_S: Final = 24 * 3600.0


def check_grpc_client_config(config: GRPCClientConfig) -> None:
    """Refuse what this client cannot do.

    Raises:
        ValueError: the message names the key and the fix.
    """
    if config.compression in {"zstd", "snappy"}:
        raise ValueError(f"compression: {config.compression} is not available over gRPC here; write gzip or none (otlp_http has zstd)")
    for name in config.headers:
        if name.lower().startswith("grpc-") or not name or not name.isascii() or any(ch.isspace() for ch in name):
            raise ValueError(f"headers: {name!r} is no name for gRPC metadata")


class GRPCClient:
    """One channel for all requests of a component. ``key`` is the path of its configuration, for messages."""

    def __init__(self, config: GRPCClientConfig, *, key: str, clock: Clock, user_agent: str) -> None:
        check_grpc_client_config(config)
        self._config = config
        self._key = key
        self._clock = clock
        self._user_agent = config.user_agent or user_agent
        self._target, self._forced_tls = _target(config.endpoint)
        given = {name.lower(): value.get_secret_value() for name, value in config.headers.items()}
        self._metadata = tuple((name, value.encode() if name.endswith("-bin") else value) for name, value in given.items())
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._redactor = Redactor(given.values(), (config.endpoint,))
        self._authenticator: ClientAuthenticator | None = None
        self._watch: FileWatch | None = None
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def open(self, host: Host) -> None:
        """Read certificates and make the channel; it connects with the first call.

        Raises:
            ValueError: certificates or the authenticator cannot be used; the message names the key.
        """
        tls = self._config.tls
        self._authenticator = find_client_authenticator(host, self._config.auth, self._key)
        self._watch = FileWatch((tls.ca_file, tls.cert_file, tls.key_file), tls.reload_interval, self._clock.monotonic_s)
        self._channel = self._connect()

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            self._methods = {}
            await channel.close()
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)

    async def call(self, method: str, body: bytes, *, timeout_s: float | None, metadata: Mapping[str, str] | None = None) -> bytes:
        """The answer to one unary call (``/package.Service/Method``).

        Raises:
            PermanentError: refused (reason ``grpc_<code>``).
            RetryableError: not now (reason ``grpc_<code>``), with the server's ``retry_after_s`` if it gave one.
        """
        self._take_up_certificates()
        if self._channel is None:
            raise RetryableError("the client is not open", reason="shutdown")
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = self._channel.unary_unary(method)
        sent = self._metadata + tuple((metadata or {}).items())
        if self._authenticator is not None:
            sent += tuple((name.lower(), value) for name, value in self._authenticator.client_headers().items())
        try:
            answer = await call(
                body, timeout=timeout_s, metadata=sent, compression=self._compression, wait_for_ready=self._config.wait_for_ready
            )
        except grpc.aio.AioRpcError as exc:
            raise self._error(exc) from exc
        return bytes(answer)

    def _error(self, exc: grpc.aio.AioRpcError) -> ConsumeError:
        code: grpc.StatusCode = exc.code()
        message = f"{self._target}: {code.name}: {self._redactor.excerpt(exc.details() or '')}"
        reason = f"grpc_{code.name.lower()}"
        asked_s = retry_delay_s(_details(exc.trailing_metadata() or ()))
        if code in RETRYABLE_CODES or (code is grpc.StatusCode.RESOURCE_EXHAUSTED and asked_s is not None):
            # A delay of 0 leaves the wait to us. Source: OTLP specification "OTLP/gRPC Throttling".
            return RetryableError(message, reason=reason, retry_after_s=asked_s or None)
        return PermanentError(message, reason=reason)

    def _connect(self) -> grpc.aio.Channel:
        config = self._config
        tls = config.tls.model_copy(update={"insecure": False}) if self._forced_tls else config.tls
        try:
            credentials = grpc_channel_credentials(tls)
        except ValueError as exc:
            raise ValueError(f"{self._key}::{exc}") from exc
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),  # the exporter splits below the backend's limit
            ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
            ("grpc.primary_user_agent", self._user_agent),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own: exporters must not share flow control
            ("grpc.max_reconnect_backoff_ms", _MAX_RECONNECT_BACKOFF_MS),
            ("grpc.service_config", json.dumps({"loadBalancingConfig": [{config.balancer_name or "pick_first": {}}]})),
        ]
        if config.authority:
            options.append(("grpc.default_authority", config.authority))
        if config.tls.server_name_override:
            options.append(("grpc.ssl_target_name_override", config.tls.server_name_override))
        if config.keepalive is not None:
            options += [
                ("grpc.keepalive_time_ms", _milliseconds(config.keepalive.time)),
                ("grpc.keepalive_timeout_ms", _milliseconds(config.keepalive.timeout)),
                ("grpc.keepalive_permit_without_calls", int(config.keepalive.permit_without_stream)),
                ("grpc.http2.max_pings_without_data", 0),
            ]
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        return grpc.aio.secure_channel(self._target, credentials, options=options)

    def _take_up_certificates(self) -> None:
        """A new channel where certificate files changed; calls that are under way end on the old one."""
        if self._watch is None or not self._watch.changed() or self._channel is None:
            return
        try:
            fresh = self._connect()
        except ValueError:
            self._watch.again()
            return
        old, self._channel, self._methods = self._channel, fresh, {}
        task = asyncio.ensure_future(old.close(_CLOSE_GRACE_S))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def retry_delay_s(details: bytes) -> float | None:
    """``retry_delay`` of the RetryInfo in an encoded google.rpc.Status; None where there is none. A day at most."""
    if not details or len(details) > _MAX_DETAILS_BYTES:
        return None
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                info = error_details_pb2.RetryInfo.FromString(detail.value)
                delay_s = float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
                return min(max(delay_s, 0.0), _MAX_RETRY_AFTER_S)
    except DecodeError:
        pass
    return None


def _details(metadata: Sequence[tuple[str, str | bytes]]) -> bytes:
    return next((value for name, value in metadata if name == "grpc-status-details-bin" and isinstance(value, bytes)), b"")


def _target(endpoint: str) -> tuple[str, bool]:
    """GRPC's target, and whether the scheme asks for TLS. Source: configgrpc ``sanitizedEndpoint``, ``isSchemeHTTPS``."""
    for scheme, tls in (("http://", False), ("https://", True)):
        if endpoint.startswith(scheme):
            return endpoint.removeprefix(scheme).rstrip("/"), tls
    return endpoint, False


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
