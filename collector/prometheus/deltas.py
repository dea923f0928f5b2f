"""Adds up delta values, since Prometheus has only cumulative ones."""

from typing import Final

from collector.api import Clock, Telemetry
from collector.model import Metrics, Signal
from collector.otlp.streams import Streams
from collector.prometheus.config import DeltaConfig
from collector.prometheus.losses import LogLimit

__all__ = ["DeltaTotals"]

_DROPPED: Final = "points of delta temporality cannot be added to their totals and are dropped"

_SWEEP_INTERVAL_S: Final = 60.0


class DeltaTotals:
    """The totals of all delta streams of one exporter."""

    def __init__(self, config: DeltaConfig, telemetry: Telemetry, clock: Clock, limit: LogLimit) -> None:
        self._config, self._telemetry, self._clock, self._limit = config, telemetry, clock, limit
        self._streams = Streams(config.max_streams)
        self._swept_s = clock.monotonic_s()
        telemetry.gauge(
            "tailrace_exporter_delta_streams",
            "Streams of delta temporality whose totals are kept",
            read=lambda: float(len(self._streams)),
        )

    @property
    def memory_bytes(self) -> int:
        """The size of the totals."""
        return self._streams.memory_bytes

    def accumulate(self, batch: Metrics) -> Metrics:
        """The batch with totals in place of its deltas. Points that cannot be added are counted as dropped."""
        now_s = self._clock.monotonic_s()
        self.expire(now_s)
        converted = self._streams.to_cumulative(batch, now_s=now_s)
        for reason, count in converted.dropped().items():
            self._telemetry.dropped(Signal.METRICS, count, f"delta_{reason}")
            if self._limit.is_due(_DROPPED, reason):
                self._telemetry.log.warning(_DROPPED, reason=reason, points=count)
        return converted.batch

    def expire(self, now_s: float) -> None:
        """Forget streams without a recent point; this is done at most once a minute."""
        if now_s >= self._swept_s + min(_SWEEP_INTERVAL_S, self._config.max_stale):
            self._swept_s = now_s
            self._streams.expire(now_s - self._config.max_stale)
