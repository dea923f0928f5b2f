"""Drops the rows for which a condition holds, or those that ``include`` does not match or ``exclude`` matches.

Conditions are evaluated by ``collector.ottl``, ``include`` and ``exclude`` by ``collector.ottl.match``.
"""

from collector.api import Settings, Transform
from collector.model import Batch, Signal
from collector.ottl import Context
from collector.ottl.match import MatchConfig, Matcher
from processors.filter.conditions import ConditionFilter
from processors.filter.config import FilterConfig

__all__ = ["FilterProcessor"]

_LOG_INTERVAL_S = 60.0
_ITEM_NAMES = {Signal.TRACES: "spans", Signal.METRICS: "datapoints", Signal.LOGS: "logs"}
"""The names of items in the Collector's metrics."""


class FilterProcessor(Transform):
    """The processor of one pipeline."""

    drop_reason = "filtered"

    def __init__(self, settings: Settings, config: FilterConfig) -> None:
        (signal,) = settings.signals
        groups = config.groups(signal)
        self._conditions = ConditionFilter(groups, signal, self._report) if groups else None
        self._matcher = Matcher(*_include_and_exclude(config, signal), signal)
        self._clock = settings.clock
        self._log = settings.telemetry.log
        self._logged_s = -_LOG_INTERVAL_S
        self._unlogged_row_count = 0
        name = _ITEM_NAMES[signal]
        self._filtered = settings.telemetry.counter(
            f"otelcol_processor_filter_{name}_filtered",
            f"Number of {name} dropped by the filter processor",
            ("filter",),
        )
        self._failed = settings.telemetry.counter(
            "tailrace_filter_failed_conditions", "Rows for which a condition could not be evaluated", ("context",)
        )
        self._label = str(settings.id)

    def transform(self, batch: Batch) -> Batch | None:
        """The batch without the dropped rows; the same object if none is dropped, None if nothing remains."""
        remaining = self._remaining(batch)
        if remaining is not batch:
            self._filtered.add(batch.item_count - remaining.item_count, filter=self._label)
        return remaining if remaining.item_count else None

    def _remaining(self, batch: Batch) -> Batch:
        if self._conditions is not None:
            return self._conditions.apply(batch)
        rows = self._matcher.rows(batch)
        return batch if rows is None else batch.select(rows)

    def _report(self, context: Context, row_count: int, *, silent: bool) -> None:
        """Count rows for which a condition failed, and log them unless silent, at most once per minute."""
        self._failed.add(row_count, context=context)
        if silent:
            return
        self._unlogged_row_count += row_count
        now_s = self._clock.monotonic_s()
        if now_s - self._logged_s >= _LOG_INTERVAL_S:
            self._log.warning(
                "a condition could not be evaluated; the rows are kept", context=context, rows=self._unlogged_row_count
            )
            self._logged_s, self._unlogged_row_count = now_s, 0


def _include_and_exclude(config: FilterConfig, signal: Signal) -> tuple[MatchConfig | None, MatchConfig | None]:
    """``include`` and ``exclude`` for one signal."""
    if signal is Signal.TRACES:
        return config.spans.include, config.spans.exclude
    section = config.metrics if signal is Signal.METRICS else config.logs
    include, exclude = section.include, section.exclude
    return include.match() if include is not None else None, exclude.match() if exclude is not None else None
