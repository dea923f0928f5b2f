"""Calls over grpcio's channel (``transport: grpcio``): the reference for our own HTTP/2, and the fallback. gzip only.

Source: grpcio's channel arguments (grpc/impl/channel_arg_names.h).
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from collector.transport.grpc.client_call import MAX_RESPONSE_BYTES
from collector.transport.grpc.status import CallError
from collector.transport.grpc.subchannel import MAX_BACKOFF_S
from config.blocks import GRPCClientConfig

__all__ = ["GrpcioChannel"]

_DETAILS: Final = "grpc-status-details-bin"


class GrpcioChannel:
    """One channel, which connects with the first call."""

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
            ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
            ("grpc.primary_user_agent", user_agent),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),  # its own connection: exporters must not share flow control
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
        """Return the response's bytes.

        Raises:
            CallError: the call ended with a status other than OK.
        """
        call = self._methods.get(method)
        if call is None:
            call = self._methods[method] = self._channel.unary_unary(method)
        sent = self._metadata + _encoded(metadata) if metadata else self._metadata
        try:
            response = await call(
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
        return bytes(response)

    def try_call(
        self,
        method: str,
        body: bytes,
        on_done: Callable[[bytes | CallError], None],
        *,
        timeout_s: float | None,
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """See :meth:`HTTP2Channel.try_call`. Always returns False: grpcio needs a task for each call."""
        del method, body, on_done, timeout_s, metadata
        return False

    async def close(self, grace_s: float = 0.0) -> None:
        """Close the channel; calls in progress have ``grace_s`` to finish."""
        await self._channel.close(grace_s or None)


def _encoded(metadata: Mapping[str, str]) -> tuple[tuple[str, str | bytes], ...]:
    named = ((name.lower(), value) for name, value in metadata.items())
    return tuple((name, value.encode() if name.endswith("-bin") else value) for name, value in named)


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
