"""The Collector's own metrics of an exporter's queue. What was sent and what failed is shown from the ledger.

Source: exporter/exporterhelper/documentation.md.
"""

from collections.abc import Mapping
from typing import Any, Final

from collector.api import Settings
from collector.delivery.queue import SendingQueue
from collector.delivery.sender import Sender
from collector.model import Signal

__all__ = ["ExporterMetrics"]

_SEND_SIZE_BUCKETS: Final = (
    *(10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2e3, 3e3, 4e3, 5e3, 6e3, 7e3, 8e3, 9e3),
    *(1e4, 2e4, 3e4, 5e4, 1e5),
)


class ExporterMetrics:
    """The queue metrics of one exporter. The gauges read the mappings at each scrape."""

    def __init__(
        self, settings: Settings, queues: Mapping[Signal, SendingQueue], senders: Mapping[Signal, Sender[Any]]
    ) -> None:
        telemetry = settings.telemetry
        telemetry.gauge(
            "otelcol_exporter_queue_size",
            "Current size of the retry queue (in units of its sizer)",
            ("data_type",),
            lambda: {(str(signal),): queue.size for signal, queue in queues.items()},
        )
        telemetry.gauge(
            "otelcol_exporter_queue_capacity",
            "Fixed capacity of the retry queue (in units of its sizer)",
            ("data_type",),
            lambda: {(str(signal),): queue.capacity for signal, queue in queues.items()},
        )
        telemetry.gauge(
            "otelcol_exporter_in_flight_requests",
            "Requests being sent",
            ("data_type",),
            lambda: {(str(signal),): sender.in_flight_requests for signal, sender in senders.items()},
        )
        telemetry.gauge(
            "tailrace_exporter_queue_bytes",
            "Bytes in the queue, including requests being sent",
            ("data_type",),
            lambda: {(str(signal),): queue.size_bytes for signal, queue in queues.items()},
        )
        self._batch_items = telemetry.histogram(
            "otelcol_exporter_queue_batch_send_size", "Items per merged batch", _SEND_SIZE_BUCKETS
        )
        self._batch_bytes = telemetry.histogram(
            "otelcol_exporter_queue_batch_send_size_bytes",
            "Bytes per merged batch",
            tuple(100 * bound for bound in _SEND_SIZE_BUCKETS),
        )

    def record_merged(self, item_count: int, size_bytes: int) -> None:
        """Observe the size of a merged batch."""
        self._batch_items.observe(item_count)
        self._batch_bytes.observe(size_bytes)
