"""The Collector's own metrics of an exporter's queue. What was sent and what failed is the ledger's, and shown from there.

Source: exporter/exporterhelper/documentation.md.
"""

from collections.abc import Callable, Mapping
from typing import Final

from collector.api import Settings
from collector.delivery.lane import Lane
from collector.model import Signal

__all__ = ["ExporterMetrics"]

_SEND_SIZE_BUCKETS: Final = (
    10.0,
    25.0,
    50.0,
    75.0,
    100.0,
    250.0,
    500.0,
    750.0,
    1e3,
    2e3,
    3e3,
    4e3,
    5e3,
    6e3,
    7e3,
    8e3,
    9e3,
    1e4,
    2e4,
    3e4,
    5e4,
    1e5,
)


class ExporterMetrics:
    """One exporter's."""

    def __init__(self, settings: Settings, lanes: Mapping[Signal, Lane]) -> None:
        telemetry = settings.telemetry

        def read(of: Callable[[Lane], float]) -> Callable[[], dict[tuple[str, ...], float]]:
            return lambda: {(str(signal),): of(lane) for signal, lane in lanes.items()}

        for name, description, of in (
            (
                "otelcol_exporter_queue_size",
                "Current size of the retry queue (in units of its sizer).",
                lambda lane: lane.units,
            ),
            (
                "otelcol_exporter_queue_capacity",
                "Fixed capacity of the retry queue (in units of its sizer).",
                lambda lane: lane.capacity,
            ),
            (
                "otelcol_exporter_in_flight_requests",
                "Requests being sent at the moment.",
                lambda lane: lane.in_flight_requests,
            ),
            (
                "tailrace_exporter_queue_bytes",
                "Bytes the queue holds, requests being sent included.",
                lambda lane: lane.size_bytes,
            ),
        ):
            telemetry.gauge(name, description, ("data_type",), read(of))
        self._batch_items = telemetry.histogram(
            "otelcol_exporter_queue_batch_send_size", "Items in a merged batch.", _SEND_SIZE_BUCKETS
        )
        self._batch_bytes = telemetry.histogram(
            "otelcol_exporter_queue_batch_send_size_bytes",
            "Bytes in a merged batch.",
            tuple(100 * bound for bound in _SEND_SIZE_BUCKETS),
        )

    def sent_size(self, item_count: int, size_bytes: int) -> None:
        """What was merged into one."""
        self._batch_items.observe(item_count)
        self._batch_bytes.observe(size_bytes)
