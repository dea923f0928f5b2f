"""The base of exporters to OTLP/gRPC servers (``otlp_grpc``, ``jaeger``).

Source: OTLP specification 1.x; the Collector's exporter/otlpexporter.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, Self

from pydantic import model_validator

from collector.api import Host, Settings
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import Batch, Signal
from collector.otlp.names import GRPC_METHODS
from collector.otlp.responses import partial_success
from collector.transport.grpc.client import GRPCClient, check_grpc_client_config
from collector.transport.grpc.client_call import UnusableResponse
from collector.transport.grpc.status import CallError
from collector.transport.user_agent import user_agent
from config.blocks import ByteSize, GRPCClientConfig

__all__ = ["OTLPGrpcConfig", "OTLPGrpcExporter"]

# Just below the 4 MiB that a gRPC server accepts by default.
_MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024 - 16 * 1024


class OTLPGrpcConfig(ExporterConfig, GRPCClientConfig):
    """Configuration of an exporter to an OTLP/gRPC server."""

    max_request_bytes: ByteSize = _MAX_REQUEST_BYTES
    """Size limit of a request before compression (specific to Tailrace). Larger batches are split. 0: no limit."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.endpoint:
            raise ValueError("endpoint is required, for example localhost:4317")
        check_grpc_client_config(self)
        return self


class OTLPGrpcExporter(QueuedExporter[Batch]):
    """Sends batches as they are: the bytes of a batch are an export request."""

    enforces_timeout = True  # as the deadline of the call, which the server knows as well
    isolated_reasons = frozenset({"grpc_invalid_argument"})

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
        return self._rejected_count(payload.signal, answer)

    def try_send(self, batch: Batch, on_done: Callable[[int | Exception], None]) -> bool:
        """See :class:`QueuedExporter`."""
        signal = batch.signal
        return self._client.try_call(
            GRPC_METHODS[signal],
            batch.wire,
            partial(self._on_answer, signal, on_done),
            timeout_s=self._attempt_timeout_s,
        )

    def _on_answer(self, signal: Signal, on_done: Callable[[int | Exception], None], answer: bytes | CallError) -> None:
        try:
            outcome: int | Exception = (
                self._client.error(answer) if isinstance(answer, CallError) else self._rejected_count(signal, answer)
            )
        except Exception as exc:  # noqa: BLE001 - whatever `send` would have raised
            outcome = exc
        on_done(outcome)

    def _rejected_count(self, signal: Signal, answer: bytes) -> int:
        if isinstance(answer, UnusableResponse):
            self.note_unusable_response(signal, answer.problem)
            return 0
        try:
            rejected_count, message = partial_success(signal, answer)
        except ValueError as exc:
            self.note_unusable_response(signal, str(exc))
            return 0
        if rejected_count or message:
            self.note_partial_success(signal, rejected_count, message)
        return rejected_count
