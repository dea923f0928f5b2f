"""The receiver ``jaeger``: a server for each configured protocol. All of them make OTLP requests for the door.

Source: open-telemetry/opentelemetry-collector-contrib receiver/jaegerreceiver/trace_receiver.go.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from collector.api import ConsumeError, Counter, Host, Receipt, Receiver, ReceiverOutput, Settings
from collector.delivery.log import RateLimitedLog
from collector.model import MalformedBatch, Signal
from collector.transport.context import ContextCache, SenderContexts
from collector.transport.datagrams import DatagramServer
from collector.transport.endpoint import Endpoint, LocalAddresses
from collector.transport.failure import UNREAD_REASONS
from collector.transport.grpc.answers import aborted, answer
from collector.transport.grpc.method import Call, Reply
from collector.transport.grpc.server import GRPCServer
from collector.transport.http import HTTPServer, Request, Response
from collector.transport.http.intake import Intake
from receivers.jaeger._proto import decode_post_spans
from receivers.jaeger._thrift import decode_batch, decode_packet
from receivers.jaeger.config import JaegerConfig, JaegerGRPCConfig, ThriftHTTPConfig, ThriftUDPConfig

__all__ = ["JaegerReceiver"]

_GRACE_S: Final = 5.0  # for requests in progress at shutdown
_POST_SPANS: Final = "/jaeger.api_v2.CollectorService/PostSpans"
_TRACES_PATH: Final = "/api/traces"


class JaegerReceiver(Receiver):
    """Serves the configured protocols."""

    def __init__(self, settings: Settings, config: JaegerConfig) -> None:
        self._settings = settings
        self._key = key = f"receivers::{settings.id}::protocols"
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._output = cast("ReceiverOutput", settings.outputs[Signal.TRACES])
        self._refused = settings.telemetry.counter(
            "tailrace_receiver_refused_requests",
            "Requests answered with an error, by protocol and reason",
            ("transport", "reason"),
        )
        self._lost = settings.telemetry.counter(
            "tailrace_receiver_lost_packets",
            "UDP packets that were not processed, by transport and reason",
            ("transport", "reason"),
        )
        self._addresses = LocalAddresses(monotonic_s=settings.clock.monotonic_s)
        self._contexts = ContextCache()
        protocols = config.protocols
        self._http = self._http_server(protocols.thrift_http) if protocols.thrift_http is not None else None
        self._grpc = self._grpc_server(protocols.grpc) if protocols.grpc is not None else None
        agents_senders = SenderContexts(self._contexts, self._addresses, include_metadata=False, authenticates=False)
        self._agents = [
            _Agent(self, block, self._output.for_transport(transport), agents_senders, transport, f"{key}::{name}")
            for block, transport, name in (
                (protocols.thrift_compact, "udp_thrift_compact", "thrift_compact"),
                (protocols.thrift_binary, "udp_thrift_binary", "thrift_binary"),
            )
            if block is not None
        ]

    @property
    def signals(self) -> frozenset[Signal]:
        """Traces."""
        return frozenset({Signal.TRACES})

    async def start(self, host: Host) -> None:
        """Listen on every configured endpoint.

        Raises:
            OSError: an endpoint is in use or not an address of this machine; the message names the key.
        """
        log = self._settings.telemetry.log
        try:
            for agent in self._agents:
                agent.server.start(host)
                log.info(
                    "receiving Jaeger Thrift over UDP",
                    endpoint=agent.server.address,
                    protocol=agent.name,
                    socket_buffer_bytes=agent.server.buffer_bytes,
                )
                agent.warn_of_small_buffer(log)
            if self._http is not None:
                await self._http.start(host)
                log.info("serving Jaeger Thrift over HTTP", endpoint=self._http.address)
            if self._grpc is not None:
                await self._grpc.start(host)
                log.info("serving Jaeger over gRPC", endpoint=self._grpc.address)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop accepting requests, finish those in progress within 5 s, and close all connections."""
        for agent in self._agents:
            agent.server.close()
        await asyncio.gather(*(server.shutdown(_GRACE_S) for server in (self._grpc, self._http) if server is not None))

    @property
    def addresses(self) -> dict[str, str]:
        """Where each protocol listens, by its key."""
        servers: dict[str, Any] = {"grpc": self._grpc, "thrift_http": self._http}
        servers |= {agent.name: agent.server for agent in self._agents}
        return {name: server.address for name, server in servers.items() if server is not None}

    def lost_packets(self, count: int, transport: str, reason: str, hint: str, error: str = "") -> None:
        """Count UDP packets that were not processed, and log it."""
        self._lost.add(count, transport=transport, reason=reason)
        if self._log.is_due("lost", f"{transport} {reason}"):
            self._settings.telemetry.log.warning(
                "Jaeger packets were lost", transport=transport, reason=reason, packets=count, hint=hint, error=error
            )

    def _senders(self, config: JaegerGRPCConfig | ThriftHTTPConfig) -> SenderContexts:
        return SenderContexts(
            self._contexts,
            self._addresses,
            include_metadata=config.include_metadata,
            authenticates=config.auth is not None,
        )

    def _http_server(self, config: ThriftHTTPConfig) -> HTTPServer:
        refused = _counted(self._refused, "collector_http")
        route = _Traces(self._output.for_transport("collector_http"), self._senders(config).of_request, refused)
        return HTTPServer(
            config,
            {_TRACES_PATH: route},
            key=f"{self._key}::thrift_http",
            clock=self._settings.clock,
            log=self._settings.telemetry.log,
            on_refused=refused,
        )

    def _grpc_server(self, config: JaegerGRPCConfig) -> GRPCServer:
        closed = self._settings.telemetry.counter(
            "tailrace_receiver_connections_closed", "gRPC connections closed by the receiver, by reason", ("reason",)
        )
        output, senders = self._output.for_transport("grpc"), self._senders(config)

        def post_spans(message: bytes, call: Call, reply: Reply) -> None:
            try:
                wire = decode_post_spans(message)
            except MalformedBatch as exc:
                reply(aborted(exc))
                return
            if wire:
                output.try_consume_request(wire, call.cached or senders.of_call(call), partial(answer, reply))
            else:
                reply(b"")

        return GRPCServer(
            config,
            {_POST_SPANS: post_spans},
            key=f"{self._key}::grpc",
            addresses=self._addresses,
            clock=self._settings.clock,
            log=self._settings.telemetry.log,
            on_refused=_counted(self._refused, "grpc"),
            on_unread=lambda _, reason: output.refuse_unread(reason) if reason in UNREAD_REASONS else None,
            on_closed=lambda reason: closed.add(reason=reason),
            files={},
        )


def _counted(counter: Counter, transport: str) -> Callable[[str], None]:
    return lambda reason: counter.add(transport=transport, reason=reason)


class _Traces(Intake):
    """``POST /api/traces``: a Batch in Thrift's binary protocol. As in the Collector, 400 for other media types."""

    accepted = Response(202)
    media_types = frozenset({b"application/x-thrift", b"application/vnd.apache.thrift.binary"})
    unsupported_status = 400

    def decode(self, request: Request) -> bytes:
        """See the base."""
        return decode_batch(request.body)


class _Agent:
    """What Jaeger's agent did: Thrift over UDP, in one of its two protocols."""

    def __init__(
        self,
        receiver: JaegerReceiver,
        config: ThriftUDPConfig,
        output: ReceiverOutput,
        senders: SenderContexts,
        transport: str,
        key: str,
    ) -> None:
        self.name = key.rpartition("::")[2]
        self.server = DatagramServer(
            Endpoint.parse(config.endpoint),
            self._on_packet,
            self._on_lost,
            key=key,
            max_packet_bytes=config.max_packet_size,
            buffer_bytes=config.socket_buffer_size,
        )
        self._receiver, self._output, self._senders, self._transport = receiver, output, senders, transport
        self._is_compact = self.name == "thrift_compact"
        self._max_waiting, self._waiting_count = config.queue_size, 0
        self._wanted_buffer_bytes = config.socket_buffer_size

    def warn_of_small_buffer(self, log: Any) -> None:
        """Log if the system granted less than was asked for."""
        if self.server.buffer_bytes < self._wanted_buffer_bytes:
            log.warning(
                "the system granted a smaller socket buffer than configured; raise net.core.rmem_max",
                configured_bytes=self._wanted_buffer_bytes,
                granted_bytes=self.server.buffer_bytes,
            )

    def _on_packet(self, packet: bytes, peer: Any) -> None:
        try:
            wire = decode_packet(packet, self._is_compact)
        except MalformedBatch as exc:
            hint = "check that the client sends Jaeger Thrift in the protocol of this port"
            if b"emitZipkinBatch" in packet[:64]:
                hint = "the client sends Zipkin Thrift; set it to Jaeger Thrift, or send to the receiver zipkin"
            self._receiver.lost_packets(1, self._transport, "malformed", hint, str(exc))
            return
        if not wire:
            return
        self._waiting_count += 1
        if self._waiting_count >= self._max_waiting:
            self.server.pause()
        self._output.try_consume_request(wire, self._senders.of_address(peer[0]), self._done)

    def _done(self, outcome: Receipt | Exception) -> None:
        self._waiting_count -= 1
        self.server.resume()
        if isinstance(outcome, Receipt):
            return
        reason = outcome.reason if isinstance(outcome, ConsumeError) else "malformed"
        self._receiver.lost_packets(1, self._transport, reason, "the sender cannot be told over UDP", str(outcome))

    def _on_lost(self, count: int, reason: str) -> None:
        hints = {
            "too_large": "raise max_packet_size, or lower the client's maximum packet size",
            "buffer_overflow": "raise socket_buffer_size and net.core.rmem_max, or send over HTTP or gRPC",
        }
        self._receiver.lost_packets(count, self._transport, reason, hints[reason])
