"""The three signals by name. Not their contents: those are the batches of this package."""

from enum import StrEnum
from typing import Final

__all__ = ["Signal"]


class Signal(StrEnum):
    """What a batch carries."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"

    @property
    def item_name(self) -> str:
        """What one item is called in names of metrics: ``spans``, ``metric_points``, ``log_records``."""
        return _ITEM_NAMES[self]


# Source: the Collector's own telemetry (otelcol_receiver_accepted_spans, …_metric_points, …_log_records).
_ITEM_NAMES: Final = {Signal.TRACES: "spans", Signal.METRICS: "metric_points", Signal.LOGS: "log_records"}
