"""Converts delta sums and histograms to cumulative totals. Source: the Collector's deltatocumulativeprocessor."""

from typing import Final

from collector.api import Host, PeriodicTask, Settings, Transform
from collector.model import Batch, Metrics, Signal
from collector.otlp.saved_streams import SavedStreams
from collector.otlp.streams import Streams
from processors.delta_to_cumulative.config import DeltaToCumulativeConfig

__all__ = ["DeltaToCumulativeProcessor"]

_SWEEP_INTERVAL_S: Final = 60.0


class DeltaToCumulativeProcessor(Transform):
    """The processor of one pipeline."""

    drop_reason = "not_convertible"

    def __init__(self, settings: Settings, config: DeltaToCumulativeConfig) -> None:
        self._config, self._telemetry, self._clock = config, settings.telemetry, settings.clock
        self._streams = Streams(config.max_streams)
        self._saved = SavedStreams(settings, config.storage, "delta_to_cumulative")
        self._is_taken_over = self._is_handed_over = self._is_started = False
        self._is_limit_logged = False
        telemetry = settings.telemetry
        self._datapoints = telemetry.counter(
            "otelcol_deltatocumulative_datapoints",
            "total number of datapoints processed. may have 'error' attribute, if processing failed",
            ("error",),
        )
        prefix = "otelcol_deltatocumulative_streams"
        telemetry.gauge(f"{prefix}_tracked", "number of streams tracked", read=lambda: float(len(self._streams)))
        telemetry.gauge(f"{prefix}_limit", "upper limit of tracked streams", read=lambda: float(config.max_streams))
        telemetry.gauge(
            f"{prefix}_max_stale",
            "duration after which streams inactive streams are dropped",
            read=lambda: config.max_stale,
        )
        interval_s = min(config.max_stale, _SWEEP_INTERVAL_S)
        self._sweeping = PeriodicTask(self._sweep, interval_s, settings.clock, log=telemetry.log)

    async def start(self, host: Host) -> None:
        """Continue the streams of the last run, and begin to forget those that are stale."""
        await self._saved.restore(host, self._streams, is_taken_over=self._is_taken_over)
        self._sweeping.start()
        self._is_started = True

    async def shutdown(self) -> None:
        """End that, and save the streams unless a successor has them."""
        await self._sweeping.stop()
        is_started, self._is_started = self._is_started, False
        if is_started and not self._is_handed_over:
            self._saved.save(self._streams)

    def hand_over(self, config: DeltaToCumulativeConfig) -> Streams:  # noqa: ARG002 - any successor can continue
        """The streams, so that a reload resets no total."""
        self._is_handed_over = True
        return self._streams

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's streams."""
        if not isinstance(state, Streams):
            return False
        self._streams, self._is_taken_over = state, True
        state.max_streams = self._config.max_streams
        return True

    def transform(self, batch: Batch) -> Batch:
        """The batch with its deltas as totals."""
        assert isinstance(batch, Metrics)
        converted = self._streams.to_cumulative(batch, now_s=self._clock.monotonic_s())
        for (_, reason), count in converted.counts.items():
            self._datapoints.add(count, error=reason)
        for reason, count in converted.dropped().items():
            self._telemetry.dropped(Signal.METRICS, count, reason)
            if reason == "limit" and not self._is_limit_logged:
                self._is_limit_logged = True
                self._telemetry.log.error(
                    "there are more streams than max_streams; points of further ones are dropped",
                    max_streams=self._config.max_streams,
                )
        return converted.batch

    async def _sweep(self) -> None:
        self._streams.expire(self._clock.monotonic_s() - self._config.max_stale)
        self._is_limit_logged = self._is_limit_logged and len(self._streams) >= self._config.max_streams
