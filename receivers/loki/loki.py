"""The receiver ``loki``: the push API over HTTP and gRPC.

Source: Loki's HTTP API, and pkg/loghttp/push; open-telemetry/opentelemetry-collector-contrib receiver/lokireceiver.
"""

import asyncio
from functools import partial
from typing import Any, Final, cast

from collector.api import Clock, Host, Receiver, ReceiverOutput, Settings
from collector.model import Context, MalformedBatch, Signal
from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.context import ContextCache, SenderContexts
from collector.transport.endpoint import LocalAddresses
from collector.transport.failure import UNREAD_REASONS
from collector.transport.grpc.answers import aborted, answer
from collector.transport.grpc.method import Call, Reply
from collector.transport.grpc.server import GRPCServer
from collector.transport.http import HTTPServer, Request, Response
from collector.transport.http.intake import Intake
from receivers.loki._push import decode_json, decode_proto
from receivers.loki.config import LokiConfig, LokiGRPCConfig, LokiHTTPConfig
from receivers.loki.labels import attributes_of

__all__ = ["LokiReceiver"]

_GRACE_S: Final = 5.0  # for requests in progress at shutdown
_DEFAULT_MAX_BYTES: Final = 20 * 1024 * 1024
_PUSH: Final = "/logproto.Pusher/Push"
_PATHS: Final = ("/loki/api/v1/push", "/api/prom/push")
_JSON: Final = b"application/json"


class _Push(Intake):
    """``POST`` of a push request: protobuf in a snappy block, or JSON."""

    accepted = Response(204)
    media_types = frozenset({_JSON, b"application/x-protobuf"})
    memory_factor = 8

    def __init__(
        self,
        output: ReceiverOutput,
        senders: SenderContexts,
        refused: Any,
        *,
        clock: Clock,
        keeps_time: bool,
        max_bytes: int,
    ) -> None:
        super().__init__(output, senders.of_request, refused)
        self._clock, self._keeps_time, self._max_bytes = clock, keeps_time, max_bytes

    def decode(self, request: Request) -> bytes:
        """See the base."""
        now_ns = self._clock.time_unix_nano()
        if request.media_type == _JSON:
            return decode_json(request.body, now_ns, self._keeps_time, attributes_of)
        body = request.body
        # With the header, the server has decompressed it already; Promtail does not send the header.
        if request.headers.get(b"content-encoding", b"").strip().lower() not in {b"snappy", b"gzip"}:
            try:
                body = decompress("snappy", body, self._max_bytes)
            except TooLarge:
                raise MalformedBatch("", -1, f"more than {self._max_bytes} bytes after decompression") from None
            except BadEncoding as error:
                raise MalformedBatch("", -1, str(error)) from None
        return decode_proto(body, now_ns, self._keeps_time, attributes_of)


class LokiReceiver(Receiver):
    """Serves the configured protocols."""

    def __init__(self, settings: Settings, config: LokiConfig) -> None:
        self._settings, self._config = settings, config
        self._key = f"receivers::{settings.id}::protocols"
        self._output = cast("ReceiverOutput", settings.outputs[Signal.LOGS])
        self._addresses = LocalAddresses(monotonic_s=settings.clock.monotonic_s)
        self._contexts = ContextCache()
        self._refused = settings.telemetry.counter(
            "tailrace_receiver_refused_requests",
            "Requests answered with an error, by protocol and reason",
            ("transport", "reason"),
        )
        http, grpc = config.protocols.http, config.protocols.grpc
        self._http = self._http_server(http) if http is not None else None
        self._grpc = self._grpc_server(grpc) if grpc is not None else None

    @property
    def signals(self) -> frozenset[Signal]:
        """Logs."""
        return frozenset({Signal.LOGS})

    @property
    def addresses(self) -> dict[str, str]:
        """Where each protocol listens, by its key."""
        servers: dict[str, Any] = {"http": self._http, "grpc": self._grpc}
        return {name: server.address for name, server in servers.items() if server is not None}

    async def start(self, host: Host) -> None:
        """Listen on every configured endpoint.

        Raises:
            OSError: an endpoint is in use or not an address of this machine; the message names the key.
        """
        log = self._settings.telemetry.log
        try:
            if self._http is not None:
                await self._http.start(host)
                log.info("serving Loki's push API over HTTP", endpoint=self._http.address)
            if self._grpc is not None:
                await self._grpc.start(host)
                log.info("serving Loki's push API over gRPC", endpoint=self._grpc.address)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop accepting requests, finish those in progress within 5 s, and close all connections."""
        await asyncio.gather(*(server.shutdown(_GRACE_S) for server in (self._grpc, self._http) if server is not None))

    def _senders(self, config: LokiHTTPConfig | LokiGRPCConfig) -> SenderContexts:
        return SenderContexts(
            self._contexts,
            self._addresses,
            include_metadata=config.include_metadata,
            authenticates=config.auth is not None,
        )

    def _http_server(self, config: LokiHTTPConfig) -> HTTPServer:
        def refused(reason: str) -> None:
            self._refused.add(transport="http", reason=reason)

        push = _Push(
            self._output.for_transport("http"),
            self._senders(config),
            refused,
            clock=self._settings.clock,
            keeps_time=self._config.use_incoming_timestamp,
            max_bytes=config.max_request_body_size or _DEFAULT_MAX_BYTES,
        )
        return HTTPServer(
            config,
            dict.fromkeys(_PATHS, push),
            key=f"{self._key}::http",
            clock=self._settings.clock,
            log=self._settings.telemetry.log,
            on_refused=refused,
        )

    def _grpc_server(self, config: LokiGRPCConfig) -> GRPCServer:
        closed = self._settings.telemetry.counter(
            "tailrace_receiver_connections_closed", "gRPC connections closed by the receiver, by reason", ("reason",)
        )
        output, senders = self._output.for_transport("grpc"), self._senders(config)
        clock, keeps_time = self._settings.clock, self._config.use_incoming_timestamp

        def push(message: bytes, call: Call, reply: Reply) -> None:
            try:
                wire = decode_proto(message, clock.time_unix_nano(), keeps_time, attributes_of)
            except MalformedBatch as exc:
                reply(aborted(exc))
                return
            if wire:
                context: Context = call.cached or senders.of_call(call)
                output.try_consume_request(wire, context, partial(answer, reply))
            else:
                reply(b"")

        return GRPCServer(
            config,
            {_PUSH: push},
            key=f"{self._key}::grpc",
            addresses=self._addresses,
            clock=clock,
            log=self._settings.telemetry.log,
            on_refused=lambda reason: self._refused.add(transport="grpc", reason=reason),
            on_unread=lambda _, reason: output.refuse_unread(reason) if reason in UNREAD_REASONS else None,
            on_closed=lambda reason: closed.add(reason=reason),
            files={},
        )
