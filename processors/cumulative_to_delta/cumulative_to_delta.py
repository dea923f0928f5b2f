"""Converts cumulative monotonic sums and histograms to deltas. Source: the Collector's cumulativetodeltaprocessor."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from collector.api import Host, PeriodicTask, Settings, Transform
from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    Batch,
    Metrics,
    Signal,
    StringColumn,
)
from collector.model.arrays import Mask
from collector.otlp.saved_streams import SavedStreams
from collector.otlp.streams import Streams
from collector.text.patterns import compile_pattern
from processors.cumulative_to_delta.config import CumulativeToDeltaConfig, MetricsMatch

__all__ = ["CumulativeToDeltaProcessor"]

_TYPES: Final = {"sum": METRIC_SUM, "histogram": METRIC_HISTOGRAM, "exponentialhistogram": METRIC_EXPONENTIAL_HISTOGRAM}
_TYPE_NAMES: Final = {
    METRIC_SUM: "sum",
    METRIC_HISTOGRAM: "histogram",
    METRIC_EXPONENTIAL_HISTOGRAM: "exponential_histogram",
}
_SWEEP_INTERVAL_S: Final = 60.0


class _State:
    """What a reload hands over."""

    def __init__(self, streams: Streams, began_unix_nano: int) -> None:
        self.streams, self.began_unix_nano = streams, began_unix_nano


class CumulativeToDeltaProcessor(Transform):
    """The processor of one pipeline."""

    drop_reason = "not_convertible"

    def __init__(self, settings: Settings, config: CumulativeToDeltaConfig) -> None:
        self._config, self._telemetry, self._clock = config, settings.telemetry, settings.clock
        self._include, self._exclude = _matcher(config.include), _matcher(config.exclude)
        self._state = _State(Streams(config.max_streams), settings.clock.time_unix_nano())
        self._saved = SavedStreams(settings, config.storage, "cumulative_to_delta")
        self._is_taken_over = self._is_handed_over = self._is_started = False
        self._is_limit_logged = False
        telemetry = settings.telemetry
        self._converted = telemetry.counter(
            "otelcol_cumulativetodelta_datapoints",
            "Number of datapoints converted from cumulative to delta temporality.",
            ("metric_type",),
        )
        self._dropped = telemetry.counter(
            "otelcol_cumulativetodelta_datapoints_dropped",
            "Number of datapoints dropped instead of being converted.",
            ("metric_type", "reason"),
        )
        telemetry.gauge(
            "otelcol_cumulativetodelta_streams_tracked",
            "Number of metric streams currently tracked in memory for cumulative-to-delta conversion.",
            read=lambda: float(len(self._state.streams)),
        )
        interval_s = min(config.max_staleness, _SWEEP_INTERVAL_S)
        self._sweeping = (
            PeriodicTask(self._sweep, interval_s, settings.clock, log=telemetry.log) if interval_s else None
        )

    async def start(self, host: Host) -> None:
        """Continue the streams of the last run, and begin to forget those that are stale."""
        state = self._state
        saved = await self._saved.restore(host, state.streams, is_taken_over=self._is_taken_over)
        state.began_unix_nano = int(saved.get("began_unix_nano", state.began_unix_nano))
        if self._sweeping is not None:
            self._sweeping.start()
        self._is_started = True

    async def shutdown(self) -> None:
        """End that, and save the streams unless a successor has them."""
        if self._sweeping is not None:
            await self._sweeping.stop()
        is_started, self._is_started = self._is_started, False
        if is_started and not self._is_handed_over:
            self._saved.save(self._state.streams, began_unix_nano=self._state.began_unix_nano)

    def hand_over(self, config: CumulativeToDeltaConfig) -> _State:  # noqa: ARG002 - any successor can continue
        """The streams, so that a reload loses no interval."""
        self._is_handed_over = True
        return self._state

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's streams."""
        if not isinstance(state, _State):
            return False
        self._state, self._is_taken_over = state, True
        state.streams.max_streams = self._config.max_streams
        return True

    def transform(self, batch: Batch) -> Batch:
        """The batch with its cumulative values as deltas."""
        assert isinstance(batch, Metrics)
        metrics = self._matching(batch)
        converted = self._state.streams.to_delta(
            batch,
            metrics,
            initial=self._config.initial_value,
            began_unix_nano=self._state.began_unix_nano,
            now_s=self._clock.monotonic_s(),
        )
        for (type_, reason), count in converted.counts.items():
            if reason:
                self._dropped.add(count, metric_type=_TYPE_NAMES[type_], reason=reason)
            else:
                self._converted.add(count, metric_type=_TYPE_NAMES[type_])
        for reason, count in converted.dropped().items():
            self._telemetry.dropped(Signal.METRICS, count, reason)
            if reason == "limit" and not self._is_limit_logged:
                self._is_limit_logged = True
                self._telemetry.log.error(
                    "there are more streams than max_streams; points of further ones are dropped",
                    max_streams=self._config.max_streams,
                )
        return converted.batch

    def _matching(self, batch: Metrics) -> Mask:
        matching = np.ones(batch.table("metrics").row_count, np.bool_)
        if self._include is not None:
            matching &= self._include(batch)
        if self._exclude is not None:
            matching &= ~self._exclude(batch)
        return matching

    async def _sweep(self) -> None:
        self._state.streams.expire(self._clock.monotonic_s() - self._config.max_staleness)
        self._is_limit_logged = self._is_limit_logged and len(self._state.streams) >= self._config.max_streams


def _matcher(config: MetricsMatch) -> Callable[[Metrics], Mask] | None:
    """Which metrics match; None if nothing is given to match."""
    if not config.metrics and not config.metric_types:
        return None
    types = [_TYPES[name] for name in config.metric_types]
    patterns: list[Any] = [compile_pattern(text) for text in config.metrics] if config.match_type == "regexp" else []

    def matches(batch: Metrics) -> Mask:
        rows = batch.table("metrics").rows
        found = np.isin(rows["type"], types) if types else np.ones(len(rows), np.bool_)
        if config.metrics:
            names: StringColumn = batch.field("name", "metrics")
            if patterns:
                found &= names.where(lambda text: any(pattern.search(text) for pattern in patterns))
            else:
                found &= names.isin(config.metrics)
        return found

    return matches
