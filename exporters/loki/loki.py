"""Sends logs to Loki's push API: protobuf in a snappy block.

A request has at most ``max_request_bytes``, or less if Loki refuses requests of that size. Within a batch the entries
of a stream are sorted by time; Loki accepts entries up to an hour older than the newest one of their stream. The answer
400 means that Loki has stored the good entries of the request and refused others. To find out which, the request is
sent again in halves; Loki ignores an entry that it has already.

Source: grafana/loki pkg/loghttp/push/push.go, pkg/distributor/http.go, pkg/validation.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

import numpy as np

from collector.api import Host, PermanentError, Settings
from collector.delivery import Part, QueuedExporter
from collector.delivery.log import printable
from collector.model import Batch, Logs, groups
from collector.model.arrays import Indices
from collector.transport.http.client import HTTPClient
from collector.transport.user_agent import user_agent
from collector.wire.protobuf import fields
from exporters.loki._encode import cut
from exporters.loki.config import LokiConfig
from exporters.loki.former_labels import hinted_tenants
from exporters.loki.streams import StreamEncoder

__all__ = ["LokiExporter"]

_INGESTION_BLOCKED: Final = 260  # a 2xx status, although nothing was stored
_NAMES_MAX: Final = 3
_RETRYABLE_STATUSES: Final = frozenset({429, *range(500, 600)})

Push = tuple[str, bytes]
"""Tenant (empty: none) and body of a push request."""


class LokiExporter(QueuedExporter[Push]):
    """See the module."""

    isolated_reasons = frozenset({"http_400"})
    enforces_timeout = True  # as that of the HTTP client, which knows whether a 2xx status has arrived by then

    def __init__(self, settings: Settings, config: LokiConfig) -> None:
        super().__init__(settings, config)
        self._config = config
        self.max_request_bytes = config.max_request_bytes
        self._client = HTTPClient(
            config,
            key=f"exporters::{settings.id}",
            clock=settings.clock,
            user_agent=user_agent(settings),
            retryable=_RETRYABLE_STATUSES,
        )
        self._encoder = StreamEncoder(config.completed())
        telemetry = settings.telemetry
        telemetry.gauge(
            "tailrace_loki_truncated_lines",
            "Lines cut because they were longer than max_line_size",
            read=lambda: float(self._encoder.truncated_line_count),
        )
        telemetry.gauge(
            "tailrace_loki_label_overflow",
            "Label values replaced by __other__ because of label_values_limit",
            read=lambda: float(self._encoder.overflowed_value_count),
        )

    async def open(self, host: Host) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.open(host)

    async def close(self) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.close()

    async def send(self, payload: Push) -> None:
        """See :class:`QueuedExporter`."""
        tenant, body = payload
        headers = {"X-Scope-OrgID": tenant} if tenant else None
        response = await self._client.post(
            self._config.push_url, body, content_type="application/x-protobuf", headers=headers
        )
        if response.status == _INGESTION_BLOCKED:
            raise PermanentError("Loki blocks ingestion for this tenant or policy (status 260)", reason="http_260")

    def encode(self, batch: Batch) -> Sequence[Part[Push]]:
        """The push requests of the batch, one or more per tenant."""
        now_unix_nano = self.settings.clock.time_unix_nano()
        assert isinstance(batch, Logs)
        return [
            Part((tenant, body), len(rows), size_bytes=len(body), rows=rows if rows_in is None else rows_in[rows])
            for tenant, logs, rows_in in self._by_tenant(batch)
            for body, rows in self._encoder.encode(logs, now_unix_nano, self.max_request_bytes)
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

    def describe(self, payload: Push) -> str:
        """See :class:`QueuedExporter`."""
        streams = [next(fields(stream))[1] for _, stream in islice(fields(payload[1]), _NAMES_MAX)]
        return printable("; ".join(labels.decode() for labels in streams))

    def _by_tenant(self, batch: Logs) -> list[tuple[str, Logs, Indices | None]]:
        """The batch as one batch per tenant, with the rows of its records in the batch (None: all of them)."""
        tenant = self._config.tenant
        if tenant.attribute:
            column = batch.attribute(tenant.attribute, inherit=True).as_text()
        elif self._config.default_labels_enabled is not None:
            column = hinted_tenants(batch)
        else:
            return [(tenant.default, batch, None)]
        tenants = groups(column.codes)
        names = [
            column.distinct[column.codes[row]] if column.codes[row] >= 0 else tenant.default
            for row in tenants.first.tolist()
        ]
        if tenants.count == 1:
            return [(names[0], batch, None)]
        parts = batch.partition(np.ascontiguousarray(tenants.codes), tenants.count)
        return [
            (name, part, np.flatnonzero(tenants.codes == code))
            for code, (name, part) in enumerate(zip(names, parts, strict=True))
            if part is not None
        ]
