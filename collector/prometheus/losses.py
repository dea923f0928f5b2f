"""Counts and names the points of a batch that an exporter of Prometheus series leaves out."""

from typing import Final, Protocol

from collector.api import Telemetry
from collector.model import Metrics, Signal
from collector.prometheus.encodable import Encodable
from collector.prometheus.series import SeriesCache

__all__ = ["LogLimit", "LossReport"]

_DROPPED: Final = "points cannot be sent to Prometheus and are dropped"
_SHARING: Final = "several streams have the same labels in Prometheus and become one series"


class LogLimit(Protocol):
    """What is needed of :class:`collector.delivery.log.RateLimitedLog`."""

    def is_due(self, sentence: str, topic: str = "") -> bool:
        """Whether a line is logged now."""
        ...


class LossReport:
    """The ledger entries and log lines of one exporter. ``limit`` says whether a line is logged, by reason."""

    def __init__(self, telemetry: Telemetry, limit: LogLimit) -> None:
        self._telemetry = telemetry
        self._limit = limit

    def record(self, batch: Metrics, found: Encodable) -> None:
        """Count what ``found`` leaves out of the batch, and log the first few metrics of each reason."""
        for reason, rows in found.dropped.items():
            self._telemetry.dropped(Signal.METRICS, len(rows), reason)
            if self._limit.is_due(_DROPPED, reason):
                self._telemetry.log.warning(
                    _DROPPED, reason=reason, points=len(rows), metrics=SeriesCache.describe(batch, rows)
                )
        if found.folded_count:
            self._telemetry.folded(Signal.METRICS, found.folded_count)
        if len(found.sharing) and self._limit.is_due(_SHARING):
            self._telemetry.log.warning(
                _SHARING,
                streams=len(found.sharing),
                metrics=SeriesCache.describe(batch, found.sharing),
                hint="counters and histograms are added up, of gauges and summaries the latest point stands; to keep"
                " the streams apart, set an attribute that becomes a label, such as service.instance.id",
            )
