"""The three signals by name."""

from enum import StrEnum
from typing import Final

__all__ = ["Signal"]


class Signal(StrEnum):
    """The kind of data in a batch.

    >>> Signal("logs").item_name
    'log_records'
    """

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"

    @property
    def item_name(self) -> str:
        """The name of its items in metric names: ``spans``, ``metric_points`` or ``log_records``."""
        return _ITEM_NAMES[self]


# Source: the Collector's own telemetry (otelcol_receiver_accepted_spans, …_metric_points, …_log_records).
_ITEM_NAMES: Final = {Signal.TRACES: "spans", Signal.METRICS: "metric_points", Signal.LOGS: "log_records"}
