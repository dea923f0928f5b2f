"""The Collector's own metrics of an exporter's queue. What was sent and what failed is shown from the ledger.

Source: exporter/exporterhelper/documentation.md.
"""

from collections.abc import Mapping
from typing import Any, Final

from collector.api import Settings
from collector.delivery.dead_letters import DeadLetters
from collector.delivery.health import BackendHealth
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
        self,
        settings: Settings,
        queues: Mapping[Signal, SendingQueue],
        senders: Mapping[Signal, Sender[Any]],
        health: BackendHealth,
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
            lambda: {(str(signal),): sender.gate.in_flight for signal, sender in senders.items()},
        )
        telemetry.gauge(
            "tailrace_exporter_queue_bytes",
            "Bytes in the queue, including requests being sent",
            ("data_type",),
            lambda: {(str(signal),): queue.size_bytes for signal, queue in queues.items()},
        )
        telemetry.gauge(
            "tailrace_exporter_queue_oldest_age_seconds",
            "How long the oldest data has been in the queue, including requests being sent",
            ("data_type",),
            lambda: {(str(signal),): queue.oldest_age_s() for signal, queue in queues.items()},
        )
        telemetry.gauge(
            "tailrace_exporter_last_success_timestamp_seconds",
            "When the backend accepted something last, in seconds since 1970; 0 if it never has",
            read=lambda: health.last_success_unix_s,
        )
        telemetry.gauge(
            "tailrace_exporter_circuit_state",
            "Whether requests are sent: 0 all, 1 a probe is being sent, 2 none until the next probe",
            ("data_type",),
            lambda: {(str(signal),): float(sender.gate.circuit_state) for signal, sender in senders.items()},
        )
        telemetry.gauge(
            "tailrace_exporter_concurrency_limit",
            "Requests that may be in flight at once",
            ("data_type",),
            lambda: {
                (str(signal),): float(sender.gate.limit)
                for signal, sender in senders.items()
                if sender.gate.limit is not None
            },
        )
        self._telemetry = telemetry
        self._batch_items = telemetry.histogram(
            "otelcol_exporter_queue_batch_send_size", "Items per merged batch", _SEND_SIZE_BUCKETS
        )
        self._batch_bytes = telemetry.histogram(
            "otelcol_exporter_queue_batch_send_size_bytes",
            "Bytes per merged batch",
            tuple(100 * bound for bound in _SEND_SIZE_BUCKETS),
        )

    def show_dead_letters(self, letters: Mapping[Signal, DeadLetters]) -> None:
        """Add the metrics of the dead letters."""
        gauge = self._telemetry.gauge
        gauge(
            "tailrace_exporter_dead_letter_items",
            "Items in the dead-letter store",
            ("data_type",),
            lambda: {(str(signal),): kept.item_count for signal, kept in letters.items()},
        )
        gauge(
            "tailrace_exporter_dead_letter_bytes",
            "Bytes in the dead-letter store",
            ("data_type",),
            lambda: {(str(signal),): kept.size_bytes for signal, kept in letters.items()},
        )
        self._lost_letters = self._telemetry.counter(
            "tailrace_exporter_dead_letter_lost_items",
            "Items that the dead-letter store could not keep, or has removed to make room",
            ("data_type", "reason"),
        )

    def record_lost_letters(self, signal: Signal, reason: str, item_count: int) -> None:
        """Count items that the dead-letter store does not have, or not any more."""
        self._lost_letters.add(item_count, data_type=str(signal), reason=reason)

    def record_merged(self, item_count: int, size_bytes: int) -> None:
        """Observe the size of a merged batch."""
        self._batch_items.observe(item_count)
        self._batch_bytes.observe(size_bytes)
