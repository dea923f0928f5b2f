"""Logs to Loki's push API: protobuf in a snappy block.

A request has at most ``max_request_bytes``, less where Loki refuses that for its size. Entries of a stream are sorted
by time inside a batch; Loki takes what is up to an hour behind the stream's newest. A 400 means that Loki stored the
good entries of the request and refused others: it is counted as refused and never sent again.
Source: grafana/loki pkg/loghttp/push/push.go, pkg/distributor/http.go, pkg/validation.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from collector.api import Host, PermanentError, Settings
from collector.delivery import Part, QueuedExporter
from collector.model import Batch, Logs, groups
from collector.transport.http.client import HTTPClient
from collector.transport.user_agent import user_agent
from exporters.loki._encode import cut
from exporters.loki.config import LokiConfig
from exporters.loki.streams import StreamEncoder

__all__ = ["LokiExporter", "create"]

_BLOCKED: Final = 260  # "ingestion blocked": a 2xx that stored nothing
RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})

Push = tuple[str, bytes]
"""Tenant (empty: none) and request."""


class LokiExporter(QueuedExporter[Push]):
    """See the module."""

    def __init__(self, settings: Settings, config: LokiConfig) -> None:
        super().__init__(settings, config)
        self._config = config
        self.max_request_bytes = config.max_request_bytes
        self._client = HTTPClient(
            config,
            key=f"exporters::{settings.id}",
            clock=settings.clock,
            user_agent=user_agent(settings),
            retryable=RETRYABLE_STATUSES,
        )
        self._encoder = StreamEncoder(config)
        telemetry = settings.telemetry
        telemetry.gauge(
            "tailrace_loki_truncated_lines",
            "Lines cut at max_line_size",
            read=lambda: float(self._encoder.truncated_lines),
        )
        telemetry.gauge(
            "tailrace_loki_label_overflow",
            "Label values replaced by __other__",
            read=lambda: float(self._encoder.overflowed_values),
        )

    async def open(self, host: Host) -> None:
        """Make the HTTP session."""
        await self._client.open(host)

    async def close(self) -> None:
        """Close the HTTP session."""
        await self._client.close()

    async def send(self, payload: Push) -> int | None:
        """One push."""
        tenant, body = payload
        headers = {"X-Scope-OrgID": tenant} if tenant else None
        response = await self._client.post(
            self._config.push_url, body, content_type="application/x-protobuf", headers=headers
        )
        if response.status == _BLOCKED:
            raise PermanentError("Loki has blocked ingestion for this tenant or policy (260)", reason="http_260")
        return None

    def encode(self, batch: Batch) -> Sequence[Part[Push]]:
        """Push requests of the batch, one or more a tenant."""
        now = self.settings.clock.time_unix_nano()
        assert isinstance(batch, Logs)
        return [
            Part((tenant, body), count, size_bytes=len(body))
            for tenant, logs in self._by_tenant(batch)
            for body, count in self._encoder.encode(logs, now, self.max_request_bytes)
        ]

    def cut(self, part: Part[Push]) -> Sequence[Part[Push]]:
        """See :class:`QueuedExporter`."""
        tenant, body = part.payload
        first, count, second = cut(body)
        if not second:
            return [part]
        return [
            Part((tenant, first), count, part.shard, len(first)),
            Part((tenant, second), part.item_count - count, part.shard, len(second)),
        ]

    def _by_tenant(self, batch: Logs) -> list[tuple[str, Logs]]:
        tenant = self._config.tenant
        if not tenant.attribute:
            return [(tenant.default, batch)]
        column = batch.attribute(tenant.attribute, inherit=True).as_text()
        found = groups(column.codes)
        names = [
            column.distinct[column.codes[row]] if column.codes[row] >= 0 else tenant.default
            for row in found.first.tolist()
        ]
        if found.count == 1:
            return [(names[0], batch)]
        parts = batch.partition(np.ascontiguousarray(found.codes), found.count)
        return [(name, part) for name, part in zip(names, parts, strict=True) if part is not None]


def create(settings: Settings, config: LokiConfig) -> LokiExporter:
    """The component."""
    return LokiExporter(settings, config)
