"""Sends traces to Zipkin's ``POST /api/v2/spans``. The translations are in ``spans`` and ``protobuf``."""

import asyncio
from typing import Final

import numpy as np

from collector.api import Host, Settings
from collector.delivery import Part, QueuedExporter
from collector.model import Batch, Signal, Traces
from collector.transport.http.client import HTTPClient
from collector.transport.user_agent import user_agent
from exporters.zipkin.config import ZipkinConfig
from exporters.zipkin.protobuf import spans_protobuf
from exporters.zipkin.spans import spans_json

__all__ = ["ZipkinExporter"]

_THREAD_MIN_BYTES: Final = 256 * 1024  # larger batches are converted in a thread


class ZipkinExporter(QueuedExporter[Batch]):
    """Sends each batch as one list of spans."""

    isolated_reasons = frozenset({"http_400"})
    enforces_timeout = True  # as that of the HTTP client

    def __init__(self, settings: Settings, config: ZipkinConfig) -> None:
        super().__init__(settings, config)
        self._url, self._default_name = config.endpoint, config.default_service_name
        is_json = config.format == "json"
        self._translate = spans_json if is_json else spans_protobuf
        self._content_type = "application/json" if is_json else "application/x-protobuf"
        self.max_request_bytes = config.max_request_bytes
        self._client = HTTPClient(
            config, key=f"exporters::{settings.id}", clock=settings.clock, user_agent=user_agent(settings)
        )

    async def open(self, host: Host) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.open(host)

    async def close(self) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.close()

    def encode(self, batch: Batch) -> list[Part[Batch]]:
        """The batch in parts; spans without ids, which Zipkin refuses together with all others, are dropped."""
        has_ids = (batch.field("trace_id") != 0).any(axis=1) & (batch.field("span_id") != 0)
        if not has_ids.all():
            self.telemetry.dropped(Signal.TRACES, int(np.count_nonzero(~has_ids)), "invalid_id")
            batch = batch.select(has_ids)
        return [Part(part, part.item_count, size_bytes=part.size_bytes) for part in self.split(batch)]

    async def send(self, payload: Batch) -> None:
        """See :class:`QueuedExporter`."""
        assert isinstance(payload, Traces)
        is_large = payload.size_bytes > _THREAD_MIN_BYTES
        body = (
            await asyncio.to_thread(self._translate, payload, self._default_name)
            if is_large
            else self._translate(payload, self._default_name)
        )
        await self._client.post(self._url, body, content_type=self._content_type)
