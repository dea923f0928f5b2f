"""What the OTLP exporters share: answers, and the exporter over gRPC (``otlp_grpc``, ``jaeger``).

Source: OTLP specification 1.x; the Collector's exporter/otlpexporter and exporter/otlphttpexporter.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Self

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from pydantic import Field, model_validator

from collector.api import Host, PermanentError, Settings
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import Batch, Signal
from collector.otlp.names import GRPC_METHODS
from collector.transport.grpc.client import GRPCClient, check_grpc_client_config
from collector.transport.grpc.status import CallError
from collector.transport.user_agent import user_agent
from config.blocks import ByteSize, GRPCClientConfig

__all__ = [
    "REJECTED_FIELDS",
    "RESPONSES",
    "OTLPGrpcConfig",
    "OTLPGrpcExporter",
    "partial_success",
]

RESPONSES: Final[dict[Signal, type[Message]]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}
REJECTED_FIELDS: Final = {
    Signal.TRACES: "rejected_spans",
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
}

_FULL_SUCCESS: Final = frozenset({b"", b"\n\x00"})  # unset, and set but empty as the Collector answers
_GRPC_MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024 - 16 * 1024  # just below gRPC's default limit of a received message


def partial_success(signal: Signal, body: bytes) -> tuple[int, str]:
    """Rejected items and the server's message from a protobuf answer; (0, "") is full success.

    Raises:
        PermanentError: the answer is none (reason ``bad_response``).
    """
    if body in _FULL_SUCCESS:
        return 0, ""
    try:
        said: Any = RESPONSES[signal].FromString(body)
    except DecodeError as exc:
        raise PermanentError("the answer is no Export…ServiceResponse", reason="bad_response") from exc
    return getattr(said.partial_success, REJECTED_FIELDS[signal]), said.partial_success.error_message


class OTLPGrpcConfig(ExporterConfig, GRPCClientConfig):
    """Configuration of an exporter to an OTLP/gRPC server."""

    max_request_bytes: ByteSize = Field(default=_GRPC_MAX_REQUEST_BYTES)
    """Ours. Larger batches are split; just below what the backend takes (gRPC's default: 4 MiB). 0: never split."""

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        if not self.endpoint:
            raise ValueError("endpoint: required, for example localhost:4317")
        check_grpc_client_config(self)
        return self


class OTLPGrpcExporter(QueuedExporter[Batch]):
    """Sends batches as they are: a batch's bytes are an Export request."""

    keeps_timeout = True  # as the call's deadline, which the server hears too

    def __init__(self, settings: Settings, config: OTLPGrpcConfig) -> None:
        super().__init__(settings, config)
        self.max_request_bytes = config.max_request_bytes
        self._attempt_timeout_s = config.timeout or None
        self._client = GRPCClient(
            config, key=f"exporters::{settings.id}", clock=settings.clock, user_agent=user_agent(settings)
        )

    async def open(self, host: Host) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.open(host)

    async def close(self) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.close()

    async def send(self, payload: Batch) -> int:
        """See :class:`QueuedExporter`."""
        answer = await self._client.call(GRPC_METHODS[payload.signal], payload.wire, timeout_s=self._attempt_timeout_s)
        return self._rejected(payload.signal, answer)

    def begin(self, batch: Batch, done: Callable[[int | Exception], None]) -> bool:
        """See :class:`QueuedExporter`."""
        signal = batch.signal
        return self._client.try_call(
            GRPC_METHODS[signal], batch.wire, partial(self._end_call, signal, done), timeout_s=self._attempt_timeout_s
        )

    def _end_call(self, signal: Signal, done: Callable[[int | Exception], None], answer: bytes | CallError) -> None:
        try:
            outcome: int | Exception = (
                self._client.error(answer) if isinstance(answer, CallError) else self._rejected(signal, answer)
            )
        except Exception as exc:  # noqa: BLE001 - whatever `send` would have raised
            outcome = exc
        done(outcome)

    def _rejected(self, signal: Signal, answer: bytes) -> int:
        rejected, message = partial_success(signal, answer)
        if rejected or message:
            self.note_partial_success(signal, rejected, message)
        return rejected
