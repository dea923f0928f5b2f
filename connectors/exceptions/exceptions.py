"""Counts exceptions, and makes log records of them. Source: the Collector's exceptionsconnector."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.api import Connector, Settings
from collector.delivery.log import RateLimitedLog
from collector.model import (
    TEMPORALITY_CUMULATIVE,
    Batch,
    Exemplars,
    LogsBuilder,
    MetricsBuilder,
    Signal,
    groups,
)
from connectors.exceptions.config import ExceptionsConfig
from connectors.exceptions.found import Exceptions, find_exceptions

__all__ = ["ExceptionsConnector"]

_SCOPE: Final = "exceptionsconnector"
_METRIC: Final = "exceptions"
_STACKTRACE: Final = "exception.stacktrace"
_SEVERITY_ERROR: Final = 17
_OVERFLOW: Final = {"otel.metric.overflow": True}
_ATTRIBUTES_MAX: Final = 256
_SERIES_MAX_CHARS: Final = 4096  # of all dimensions, so that max_series bounds the memory


class _Series:
    """The series of the metric, since when they are counted, and how often each exception was seen."""

    def __init__(self, start_unix_nano: int) -> None:
        self.start_unix_nano = start_unix_nano
        self.counts: dict[tuple[str | None, ...] | None, int] = {}
        """By the values of the dimensions; None is the overflow series."""


class ExceptionsConnector(Connector):
    """Emits what follows from each batch at once."""

    def __init__(self, settings: Settings, config: ExceptionsConfig) -> None:
        self._settings, self._config, self._telemetry = settings, config, settings.telemetry
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._series = _Series(settings.clock.time_unix_nano())

    def hand_over(self, config: ExceptionsConfig) -> tuple[ExceptionsConfig, _Series] | None:
        """The counts, if the successor has the same dimensions."""
        return (self._config, self._series) if config.dimensions == self._config.dimensions else None

    def take_over(self, state: object) -> bool:
        """Continue the counts of the predecessor."""
        if not (isinstance(state, tuple) and isinstance(state[-1], _Series)):
            return False
        self._series = state[-1]
        return True

    async def consume(self, batch: Batch) -> None:
        """Emit the counts of the exceptions in the batch, and their records."""
        self._telemetry.folded(batch.signal, batch.item_count)
        found = find_exceptions(batch, self._config)
        if not len(found.rows):
            return
        outputs = self._settings.outputs
        if Signal.METRICS in outputs:
            metrics = self._metrics(batch, found)
            self._telemetry.created(Signal.METRICS, metrics.item_count)
            await outputs[Signal.METRICS].consume(metrics)
        if Signal.LOGS in outputs and batch.signal is Signal.TRACES:
            logs = self._logs(batch, found)
            self._telemetry.created(Signal.LOGS, logs.item_count)
            await outputs[Signal.LOGS].consume(logs)

    def _metrics(self, batch: Batch, found: Exceptions) -> Batch:
        """One point for each series that an exception of this batch belongs to, with its total."""
        kinds = groups(*found.dimensions.values())
        values = [column.take(kinds.first).to_list() for column in found.dimensions.values()]
        counts = self._series.counts
        points: dict[tuple[str | None, ...] | None, int] = {}
        point_of = np.empty(kinds.count, np.int32)
        for number, (key, count) in enumerate(zip(zip(*values, strict=True), kinds.counts.tolist(), strict=True)):
            series = key if key in counts else self._new_series(key)
            counts[series] = counts.get(series, 0) + count
            point_of[number] = points.setdefault(series, len(points))
        now = self._settings.clock.time_unix_nano()
        builder = MetricsBuilder(batch.context)
        builder.sum(
            builder.scope(builder.resource(), _SCOPE),
            _METRIC,
            temporality=TEMPORALITY_CUMULATIVE,
            monotonic=True,
            times=np.full(len(points), now, np.uint64),
            start_times=np.full(len(points), self._series.start_unix_nano, np.uint64),
            values=np.array([counts[series] for series in points], np.int64),
            attributes=[self._attributes(series, found) for series in points],
            exemplars=self._exemplars(found, point_of[kinds.codes], now),
        )
        return builder.build()

    def _new_series(self, key: tuple[str | None, ...]) -> tuple[str | None, ...] | None:
        """The series of values that are new; None, the overflow series, if they are too long or there are too many."""
        counts = self._series.counts
        if sum(len(value or "") for value in key) > _SERIES_MAX_CHARS:
            self._log.warning(
                "the dimensions of an exception are too long; it is counted in the overflow series",
                max_characters=_SERIES_MAX_CHARS,
            )
            return None
        if len(counts) - (None in counts) >= self._config.max_series:
            self._log.warning(
                "there are more series than max_series; further exceptions are counted together",
                max_series=self._config.max_series,
            )
            return None
        return key

    def _attributes(self, series: tuple[str | None, ...] | None, found: Exceptions) -> Mapping[str, Any]:
        if series is None:
            return _OVERFLOW
        pairs = zip(found.dimensions, series, strict=True)
        return {name: value for name, value in pairs if value is not None}

    def _exemplars(self, found: Exceptions, points: Any, now: int) -> Exemplars | None:
        """The spans of the exceptions, if that is configured."""
        has_trace = (found.trace_ids != 0).any(axis=1)
        if not self._config.exemplars.enabled or not has_trace.any():
            return None
        order = np.flatnonzero(has_trace)[np.argsort(points[has_trace], kind="stable")]
        return Exemplars(
            owner=points[order],
            times=np.full(len(order), now, np.uint64),
            values=np.ones(len(order)),
            trace_ids=found.trace_ids[order],
            span_ids=found.span_ids[order],
        )

    def _logs(self, batch: Batch, found: Exceptions) -> Batch:
        """One record for each exception, with the attributes of its span."""
        scopes = batch.ancestor("scopes")[found.spans]
        order = np.argsort(scopes, kind="stable")
        times = batch.field("time_unix_nano", "events")[found.rows]
        names, versions = (batch.field(name, "scopes").fill("").to_list() for name in ("name", "version"))
        builder = LogsBuilder(batch.context)
        used, firsts = np.unique(scopes[order], return_index=True)
        bounds = [*firsts.tolist(), len(order)]
        for place, number in enumerate(used.tolist()):
            rows = order[bounds[place] : bounds[place + 1]]
            builder.records(
                builder.scope(builder.resource(), names[number], versions[number]),
                times=times[rows],
                severity_numbers=np.full(len(rows), _SEVERITY_ERROR, np.int32),
                severity_texts="ERROR",
                trace_ids=found.trace_ids[rows],
                span_ids=found.span_ids[rows],
            )
        edit = builder.build().edit()
        spans = found.spans[order]
        keys = sorted(set(batch.attributes().key.distinct))
        if len(keys) > _ATTRIBUTES_MAX:
            self._log.warning(
                "spans have too many different attributes; records get the first of them", limit=_ATTRIBUTES_MAX
            )
        for key in keys[:_ATTRIBUTES_MAX]:
            edit.set(key, batch.attribute(key).take(spans))
        for name, column in found.dimensions.items():
            edit.set(name, column.take(order))
        edit.set(_STACKTRACE, found.stacktraces.take(order))
        return edit.apply()
