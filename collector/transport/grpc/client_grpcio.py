"""Calls over grpcio's channel: the reference, and the way out where our own HTTP/2 fails (``transport: grpcio``). gzip only.

Source: grpcio's channel arguments (grpc/impl/channel_arg_names.h).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from collector.transport.grpc.client_call import MAX_ANSWER_BYTES
from collector.transport.grpc.client_http2 import MAX_BACKOFF_S
from collector.transport.grpc.status import CallError
from config.blocks import GRPCClientConfig

__all__ = ["GrpcioChannel", "check_grpcio_config"]

_DETAILS: Final = "grpc-status-details-bin"


def check_grpcio_config(config: GRPCClientConfig) -> None:
    """Refuse what grpcio cannot do.

    Raises:
        ValueError: the message names the key and the fix.
    """
    if config.compression in {"zstd", "snappy"}:
        raise ValueError(
            f"compression: {config.compression} is not available over gRPC with transport grpcio; write gzip, none or http2"
        )


class GrpcioChannel:
    """One channel; it connects with the first call."""

    def __init__(
        self,
        config: GRPCClientConfig,
        target: str,
        *,
        credentials: grpc.ChannelCredentials | None,
        user_agent: str,
        metadata: Mapping[str, str],
    ) -> None:
        options: list[tuple[str, Any]] = [
            ("grpc.max_send_message_length", -1),  # the exporter splits below the backend's limit
            ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
            ("grpc.primary_user_agent", user_agent),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # a connection of its own: exporters must not share flow control
            ("grpc.max_reconnect_backoff_ms", _milliseconds(MAX_BACKOFF_S)),
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
            self._channel = grpc.aio.insecure_channel(target, options=options)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=options)
        self._metadata = _encoded(metadata)
        self._compression = grpc.Compression.Gzip if config.compression == "gzip" else grpc.Compression.NoCompression
        self._wait_for_ready = config.wait_for_ready
        self._methods: dict[str, Any] = {}

    async def call(
        self, method: str, body: bytes, *, timeout_s: float | None, metadata: Mapping[str, str] | None = None
    ) -> bytes:
        """The answer's bytes.

        Raises:
            CallError: every status but OK.
        """
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = self._channel.unary_unary(method)
        sent = self._metadata + _encoded(metadata) if metadata else self._metadata
        try:
            answer = await call(
                body,
                timeout=timeout_s,
                metadata=sent,
                compression=self._compression,
                wait_for_ready=self._wait_for_ready,
            )
        except grpc.aio.AioRpcError as exc:
            trailers = exc.trailing_metadata() or ()
            details = next((value for name, value in trailers if name == _DETAILS and isinstance(value, bytes)), b"")
            raise CallError(exc.code(), exc.details() or "", details) from exc
        return bytes(answer)

    def begin(
        self,
        method: str,
        body: bytes,
        done: Callable[[bytes | CallError], None],
        *,
        timeout_s: float | None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """See :meth:`HTTP2Channel.begin`; never: each call of grpcio is a task of its own."""
        del method, body, done, timeout_s, metadata
        return False

    async def close(self, grace_s: float = 0.0) -> None:
        """End the channel; calls under way get ``grace_s`` to finish."""
        await self._channel.close(grace_s or None)


def _encoded(metadata: Mapping[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    named = ((name.lower(), value) for name, value in metadata.items())
    return tuple((name, value.encode() if name.endswith("-bin") else value) for name, value in named)


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
