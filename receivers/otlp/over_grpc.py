"""OTLP over gRPC: the three Export methods.

Source: opentelemetry-proto collector/{trace,metrics,logs}/v1/*_service.proto; OTLP specification "OTLP/gRPC".
"""

from collections.abc import Mapping
from typing import Final

from collector.api import ConsumeError, ReceiverOutput
from collector.helpers.grpc_server import Aborted, Call, GRPCServer, Method, metadata_values
from collector.helpers.peer import LocalAddresses
from collector.model import Context, MalformedBatch, Signal
from receivers.otlp.answers import failure_of, partial_success_proto
from receivers.otlp.config import OTLPGRPCConfig
from receivers.otlp.context import ContextMaker

__all__ = ["METHODS", "OTLPOverGRPC"]

METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}


class OTLPOverGRPC:
    """The methods of the gRPC server. ``server`` is set once both exist."""

    server: GRPCServer

    def __init__(
        self, config: OTLPGRPCConfig, outputs: Mapping[Signal, ReceiverOutput], *, addresses: LocalAddresses, contexts: ContextMaker
    ) -> None:
        self._config = config
        self._addresses = addresses
        self._contexts = contexts
        self._keeps_nothing = not config.include_metadata and config.auth is None
        self.methods: dict[str, Method] = {METHODS[signal]: self._method(output.over("grpc")) for signal, output in outputs.items()}

    def _method(self, output: ReceiverOutput) -> Method:
        is_local, plain = self._addresses.is_local_grpc, self._contexts.plain

        async def export(message: bytes, call: Call) -> bytes:
            context = plain(is_local(call.peer())) if self._keeps_nothing else await self._context(call)
            if not message:
                return b""  # an empty request succeeds and never enters a pipeline
            try:
                receipt = await output.admit(message, context)
            except (MalformedBatch, ConsumeError) as exc:
                failure = failure_of(exc)
                details = failure.status_proto() if failure.field or failure.retry_after_s is not None else b""
                raise Aborted(failure.code, failure.message, reason=failure.reason, details=details) from exc
            return partial_success_proto(receipt) if receipt.rejected_count or receipt.message else b""

        return export

    async def _context(self, call: Call) -> Context:
        claims = await self.server.authenticate(call)
        metadata = metadata_values(call) if self._config.include_metadata else {}
        return self._contexts.of(self._addresses.is_local_grpc(call.peer()), metadata, claims)
