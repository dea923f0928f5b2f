"""The receiver ``otlp``: one object with a server for each configured protocol.

It reads requests, hands their bytes to ``ReceiverOutput.try_consume_request`` and responds with the outcome. Admission
and validation happen there; nothing is decoded here.
"""

import asyncio
from typing import Any, Final, cast

from collector.api import Host, Receiver, ReceiverOutput, Settings
from collector.model import Signal
from collector.transport.context import ContextCache, SenderContexts
from collector.transport.endpoint import LocalAddresses
from collector.transport.grpc.grpcio_server import GRPCIOServer
from collector.transport.grpc.server import GRPCServer
from collector.transport.http import HTTPServer
from receivers.otlp.config import OTLPConfig, OTLPGRPCConfig, OTLPHTTPConfig
from receivers.otlp.over_grpc import OTLPOverGRPC, descriptor_files
from receivers.otlp.over_http import OTLPOverHTTP

__all__ = ["OTLPReceiver"]

_GRACE_S: Final = 5.0  # for requests in progress at shutdown; slower ones are cut off, and their senders retry


class OTLPReceiver(Receiver):
    """Serves the signals that have a pipeline. As in the Collector, others are answered UNIMPLEMENTED or 404."""

    def __init__(self, settings: Settings, config: OTLPConfig) -> None:
        self._settings = settings
        self._grpc: GRPCServer | GRPCIOServer | None = None
        self._http: HTTPServer | None = None
        self._grpc_endpoint = config.protocols.grpc.endpoint if config.protocols.grpc is not None else ""
        self._is_shared = config.protocols.share_an_endpoint
        key = f"receivers::{settings.id}::protocols"
        outputs = {signal: cast("ReceiverOutput", output) for signal, output in settings.outputs.items()}
        addresses = LocalAddresses(monotonic_s=settings.clock.monotonic_s)
        contexts = ContextCache()

        def senders_of(server: OTLPGRPCConfig | OTLPHTTPConfig) -> SenderContexts:
            return SenderContexts(
                contexts,
                addresses,
                include_metadata=server.include_metadata,
                authenticates=server.auth is not None,
            )

        refused = settings.telemetry.counter(
            "tailrace_receiver_refused_requests",
            "Requests answered with an error, by protocol and reason",
            ("transport", "reason"),
        )
        if config.protocols.http is not None:

            def refused_http(reason: str) -> None:
                refused.add(transport="http", reason=reason)

            over_http = OTLPOverHTTP(
                config.protocols.http, outputs, senders=senders_of(config.protocols.http), refused=refused_http
            )
            self._http = HTTPServer(
                config.protocols.http,
                over_http.routes,
                default=over_http.default_route,
                key=f"{key}::http",
                clock=settings.clock,
                log=settings.telemetry.log,
                on_refused=refused_http,
            )
        if config.protocols.grpc is not None:
            closed = settings.telemetry.counter(
                "tailrace_receiver_connections_closed",
                "gRPC connections closed by the receiver, by reason",
                ("reason",),
            )
            over_grpc = OTLPOverGRPC(outputs, senders_of(config.protocols.grpc))
            shared: dict[str, Any] = {
                "key": f"{key}::grpc",
                "addresses": addresses,
                "clock": settings.clock,
                "log": settings.telemetry.log,
                "on_refused": lambda reason: refused.add(transport="grpc", reason=reason),
                "on_unread": over_grpc.refuse_unread,
            }
            if config.protocols.grpc.transport == "grpcio":
                self._grpc = GRPCIOServer(config.protocols.grpc, over_grpc.methods, **shared)
            else:
                self._grpc = GRPCServer(
                    config.protocols.grpc,
                    over_grpc.methods,
                    on_closed=lambda reason: closed.add(reason=reason),
                    files=descriptor_files(),
                    http=self._http if self._is_shared else None,
                    **shared,
                )

    @property
    def signals(self) -> frozenset[Signal]:
        """The signals it takes."""
        return frozenset(self._settings.outputs)

    def sole_use(self) -> frozenset[str]:
        """The port of grpcio, which cannot pass its socket on: a reload closes its port for a moment."""
        return frozenset({f"port {self._grpc_endpoint}"}) if isinstance(self._grpc, GRPCIOServer) else frozenset()

    async def start(self, host: Host) -> None:
        """Listen on every configured endpoint.

        Raises:
            OSError: an endpoint is in use or not an address of this machine; the message names the key.
        """
        log = self._settings.telemetry.log
        try:
            if self._grpc is not None:
                await self._grpc.start(host)
                log.info("serving OTLP over gRPC", endpoint=self._grpc.address)
            if self._is_shared:
                log.info("serving OTLP over HTTP on the gRPC endpoint")
            elif self._http is not None:
                await self._http.start(host)
                log.info("serving OTLP over HTTP", endpoint=self._http.address)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """Stop accepting requests, finish those in progress within 5 s, and close all connections."""
        await asyncio.gather(*(server.shutdown(_GRACE_S) for server in (self._grpc, self._http) if server is not None))
