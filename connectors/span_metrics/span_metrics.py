"""Connector ``span_metrics``: calls, errors and durations of spans as metrics; exact if it sees spans before sampling.

A batch becomes columns (``dimensions``), which are counted in tables (``series``); a flush writes them as metrics
(``emit``).

Source of keys, names and defaults: opentelemetry-collector-contrib connector/spanmetricsconnector. README.md lists the
differences.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.api import Connector, ConsumeError, Host, PeriodicTask, SavedState, Settings
from collector.model import Batch, Metrics, Signal, Traces
from collector.model.arrays import F64, I32, U64, Mask
from collector.model.builders import Attributes
from collector.model.series import attribute_identity
from collector.model.values import any_value
from collector.otlp.semantics import SPAN_KINDS, STATUS_CODE_ERROR
from collector.otlp.span_durations import span_durations
from collector.tail_sampling.decision_registry import DECISIONS
from connectors.span_metrics.checkpoint import VERSION, parts_of, restore
from connectors.span_metrics.config import SpanMetricsConfig
from connectors.span_metrics.dimensions import Dimensions, SpanColumns, text_keys
from connectors.span_metrics.emit import Emitter
from connectors.span_metrics.exemplars import ExemplarCandidates
from connectors.span_metrics.http import http_columns
from connectors.span_metrics.series import MetricFamily, Observations, OperationOf, Resource
from connectors.span_metrics.state import State
from connectors.span_metrics.weights import weights_of

__all__ = ["SpanMetricsConnector"]

_RESOURCES_BETWEEN_FLUSHES: Final = 2
"""Between two flushes there may be so many times the resources that are kept; further ones share one."""


class SpanMetricsConnector(Connector):
    """Counts spans and emits the metrics on every flush."""

    def __init__(self, settings: Settings, config: SpanMetricsConfig) -> None:
        self._settings, self.config, self._clock = settings, config, settings.clock
        self._saved = SavedState(settings, "connectors", kind="span_metrics", version=VERSION)
        self._is_taken_over = False
        self._use(State(config, self._clock.time_unix_nano(), settings.instance_id))
        exemplars = config.exemplars
        self._decisions = settings.shared.get(DECISIONS)
        self._candidates = {
            name: ExemplarCandidates(exemplars.max_per_data_point, exemplars.only_kept, self._decisions)
            for name in self.state.families
            if exemplars.enabled and exemplars.max_per_data_point
        }
        self._emitter = Emitter(config, settings.version)
        self._kinds = np.array([name in config.counted_kinds for name in SPAN_KINDS] + [False])
        self._warned: set[str] = set()
        self._is_stopping = False
        self._flush_task = PeriodicTask(self._flush, config.metrics_flush_interval, self._clock)
        telemetry = settings.telemetry
        prefix = "tailrace_span_metrics_"
        telemetry.gauge(
            prefix + "series",
            "Series with labels of their own, not counting overflow series",
            read=lambda: float(self.state.budget.used),
        )
        telemetry.gauge(prefix + "resources", "Resources", read=lambda: float(len(self.state.resources.known) - 1))
        telemetry.gauge(
            prefix + "state_bytes",
            "Memory used by the series tables, in bytes",
            read=lambda: float(sum(family.table.memory_bytes for family in self.state.families.values())),
        )
        self._overflowed = telemetry.counter(
            prefix + "overflowed_items", "Spans and events counted in an overflow series"
        )
        self._invalid_durations = telemetry.counter(
            prefix + "invalid_durations", "Spans counted with a duration of 0 because their times are not believed"
        )
        self._uncounted = telemetry.counter(prefix + "uncounted_spans", "Spans that were not counted", ("reason",))

    def _use(self, state: State) -> None:
        self.state = state
        lists = {
            "red": (self.config.dimensions,),
            "calls": (self.config.dimensions, self.config.calls_dimensions),
            "duration": (self.config.dimensions, self.config.histogram.dimensions),
            "events": (self.config.dimensions, self.config.events.dimensions),
        }
        self._dimensions = {
            name: Dimensions(self.config, lists[name], state.instance_id, self._too_many_keys)
            for name in state.families
        }

    def hand_over(self, config: SpanMetricsConfig) -> State | None:
        """The series and their counts, if the successor would make the same series."""
        return self.state if self.config.same_series(config) else None

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's series."""
        if not isinstance(state, State):
            return False
        self._use(state)
        state.budget.limit, state.budget.total = self.config.aggregation_cardinality_limit, self.config.max_series
        self._is_taken_over = True
        return True

    def _too_many_keys(self, key: str) -> None:
        self._warn_once(
            "glob", "globs match more attribute keys than can become dimensions; further keys are ignored", key=key
        )

    def _warn_once(self, topic: str, sentence: str, **fields: Any) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            self._settings.telemetry.log.warning(sentence, **fields)

    async def start(self, host: Host) -> None:
        """Start flushing."""
        if self.config.dimensions_cache_size:
            self._settings.telemetry.log.warning(
                "dimensions_cache_size is deprecated and has no effect; use aggregation_cardinality_limit instead"
            )
        host.add_admin_route("/span_metrics", self._show)
        self._is_stopping = False
        if self.config.storage:
            await self._open_state(host)
        self.state.report.begin_rates(self._clock.monotonic_s())
        self._flush_task.start()

    async def _open_state(self, host: Host) -> None:
        """Continue what the process before has counted."""
        parts = await self._saved.open(
            host, self.config.storage, fingerprint=self.config.fingerprint, restores=not self._is_taken_over
        )
        if parts is None:
            return
        state = State(self.config, self._clock.time_unix_nano(), self._settings.instance_id)
        try:
            restore(state, parts, self._saved.elapsed(parts))
        except (KeyError, TypeError, ValueError) as error:
            self._saved.refuse(error)
        else:
            self._use(state)

    async def shutdown(self) -> None:
        """Flush once more, and save what has been counted."""
        if await self._flush_task.stop():
            self._is_stopping = True
            await self._flush()
            self._saved.save_now(parts_of(self.state))

    async def consume(self, batch: Batch) -> None:
        """Count the spans. Only numbers are kept of them and, for exemplars, ids."""
        assert isinstance(batch, Traces)
        telemetry = self._settings.telemetry
        nameless = self._count(batch)
        if nameless:
            telemetry.dropped(Signal.TRACES, nameless, "no_service_name")
        telemetry.folded(Signal.TRACES, batch.item_count - nameless)

    # One batch.

    def _count(self, batch: Traces) -> int:
        """Count a batch; returns how many of its spans have no service name."""
        has_service = batch.attribute("service.name", "resources").present[batch.ancestor("resources")]
        nameless = int(batch.item_count - np.count_nonzero(has_service))
        is_counted = has_service
        if nameless:
            self._uncounted.add(nameless, reason="no_service_name")
        if self.config.counted_kinds:
            is_counted = self._only(is_counted, self._kinds[np.clip(batch.field("kind"), -1, len(SPAN_KINDS))], "kind")
        http = None
        if self.config.names == "http":
            http = http_columns(batch)
            is_counted = self._only(is_counted, http.method.present, "no_http")
        rows = None if is_counted.all() else np.flatnonzero(is_counted)
        if rows is not None and not len(rows):
            return nameless
        trace_states = batch.field("trace_state")
        if rows is not None:
            trace_states = trace_states.take(rows)
            http = None if http is None else http.take(rows)
        self._count_spans(SpanColumns(batch, rows, weights_of(trace_states, self.state.random), http))
        return nameless

    def _only(self, is_counted: Mask, is_wanted: Mask, reason: str) -> Mask:
        """The spans that are still counted; the others are reported under ``reason``."""
        both = is_counted & is_wanted
        uncounted = int(np.count_nonzero(is_counted) - np.count_nonzero(both))
        if uncounted:
            self._uncounted.add(uncounted, reason=reason)
        return both

    def _count_spans(self, spans: SpanColumns) -> None:
        config, state = self.config, self.state
        now_s, now = self._clock.monotonic_s(), self._clock.time_unix_nano()
        slots, keys = self._resource_slots(spans.batch, now_s)
        resource, resource_keys = slots[spans.resource_rows], keys[spans.resource_rows]
        ends = spans.field("end_time_unix_nano")
        durations_ns, is_invalid = span_durations(spans.field("start_time_unix_nano"), ends)
        if is_invalid.any():
            self._invalid_durations.add(int(np.count_nonzero(is_invalid)))
        durations = durations_ns.astype(np.float64) / config.histogram.nanoseconds
        is_error = spans.field("status_code") == STATUS_CODE_ERROR
        if spans.http is not None:
            is_error = is_error | spans.http.is_error
        observations = Observations(spans.weights, is_error, durations)
        overflowed = state.budget.overflowed
        for name, family in state.families.items():
            if name == "events":
                self._count_events(spans, resource, resource_keys, durations, family, now, now_s)
                continue
            rows = self._dimensions[name].of_spans(spans, resource)
            series = rows.grouped()
            operation_of = _operation_of(spans, state)
            by_series = family.slots_of(
                rows, series, resource_keys[series.first], state.budget, operation_of, now, now_s
            )
            slots = by_series[series.codes]
            family.add(slots, observations)
            if name in self._candidates:
                self._candidates[name].add(
                    family.table,
                    slots,
                    spans.field("trace_id"),
                    spans.field("span_id"),
                    np.minimum(ends, np.uint64(now)),
                    durations,
                    now_s,
                )
        if state.budget.overflowed > overflowed:
            self._overflowed.add(state.budget.overflowed - overflowed)

    def _count_events(
        self,
        spans: SpanColumns,
        resource: I32,
        resource_keys: U64,
        durations: F64,
        family: MetricFamily,
        now: int,
        now_s: float,
    ) -> None:
        span_rows = spans.batch.table("events").parent
        if not len(span_rows):
            return
        counted_index = np.arange(spans.batch.item_count)
        if spans.rows is not None:
            counted_index = np.full(spans.batch.item_count, -1)
            counted_index[spans.rows] = np.arange(len(spans.rows))
        owner = counted_index[span_rows]
        events = np.flatnonzero(owner >= 0)
        owner = owner[events]
        if not len(events):
            return
        rows = self._dimensions["events"].of_events(spans, events, owner, resource[owner])
        series = rows.grouped()
        owner_keys = resource_keys[owner[series.first]]
        slots = family.slots_of(rows, series, owner_keys, self.state.budget, None, now, now_s)[series.codes]
        family.add(slots, Observations(spans.weights.take(owner)))
        if "events" in self._candidates:
            times = np.minimum(spans.batch.field("time_unix_nano", "events")[events], np.uint64(now))
            self._candidates["events"].add(
                family.table,
                slots,
                spans.field("trace_id")[owner],
                spans.field("span_id")[owner],
                times,
                durations[owner],
                now_s,
            )

    def _resource_slots(self, batch: Traces, now_s: float) -> tuple[I32, U64]:
        """I32[r] and U64[r,2]: the slot and the key of each resource of the batch."""
        names = self.config.resource_metrics_key_attributes
        if names:
            count = batch.table("resources").row_count
            keys = text_keys(
                [(name, batch.attribute(name, "resources").as_text()) for name in dict.fromkeys(names)], count
            )
        else:
            keys = attribute_identity(batch, "resources")
        keys = keys + np.array([1, 0], np.uint64)  # (0, 0) is the key of the shared resource
        room = _RESOURCES_BETWEEN_FLUSHES * self.config.resource_metrics_cache_size
        slots = self.state.resources.slots_of(keys, lambda row: _describe(batch, row), now_s, room)
        keys[slots == self.state.resources.common] = 0
        return slots, keys

    # Flushing.

    async def _flush(self) -> None:
        """Emit what has been counted, then forget what is old."""
        metrics = self._build_metrics()
        if metrics is None:
            return
        if self._saved.is_open:
            # Before it is emitted: after a crash, no value is lower than one that a backend has.
            await self._saved.save(parts_of(self.state))
        telemetry = self._settings.telemetry
        telemetry.created(Signal.METRICS, metrics.item_count)
        try:
            await self._settings.outputs[Signal.METRICS].consume(metrics)
        except ConsumeError as error:
            # The component that refused the batch has counted it; the next flush writes cumulative series again.
            telemetry.log.warning("a flush was refused downstream", reason=error.reason)

    def _build_metrics(self) -> Metrics | None:
        """The points of this flush, None if there are none; afterwards old series and resources are gone."""
        state, now_s = self.state, self._clock.monotonic_s()
        now = max(self._clock.time_unix_nano(), state.last_flush + 1)  # also if the clock was set back
        exemplars = {
            name: candidates.take_for_flush(state.families[name].table, now_s)
            for name, candidates in self._candidates.items()
        }
        only_kept = self.config.exemplars.only_kept
        # At the last flush the samplers, which are upstream, have stopped already.
        is_missing = not self._is_stopping and only_kept and not self._decisions.is_registered(only_kept)
        if self._candidates and is_missing:
            self._warn_once(
                "only_kept",
                "exemplars.only_kept is not the id of a running sampling processor; no exemplars are attached",
                only_kept=only_kept,
            )
        is_empty = not any(len(family.table) for family in state.families.values())
        metrics = None if is_empty else self._emitter.build(state.families, state.resources, exemplars, now)
        state.last_flush = now
        state.report.flushed(now_s)
        self._forget(now, now_s)
        return metrics

    def _forget(self, now: int, now_s: float) -> None:
        """Remove old series and resources; delta series are all removed, only their flush times are remembered."""
        config, state = self.config, self.state
        old_resources = self._old_resources(now_s)
        for family in state.families.values():
            live = family.table.live()
            if config.is_delta:
                removed = live
                self._remember_flush(family, live, now, now_s)
            else:
                old = np.isin(family.table.column("resource")[live], old_resources)
                if config.series_expiration:
                    old |= now_s - family.table.column("seen")[live] >= config.series_expiration
                removed = live[old]
                family.restart_full(live[~old], now)
            if len(removed):
                state.report.keep_totals(family, removed)
                family.remove(removed, state.budget)
        state.resources.remove(old_resources)

    def _old_resources(self, now_s: float) -> I32:
        """Resources that were silent for too long, or that are too many: then those seen longest ago."""
        config, resources = self.config, self.state.resources
        live = resources.table.live()
        live = live[live != resources.common]
        seen = resources.table.column("seen")[live]
        old = np.zeros(len(live), np.bool_)
        if config.metrics_expiration:
            old = now_s - seen >= config.metrics_expiration
        surplus = len(live) - config.resource_metrics_cache_size
        if surplus > 0:
            old[np.argsort(seen, kind="stable")[:surplus]] = True
        slots: I32 = live[old]
        return slots

    def _remember_flush(self, family: MetricFamily, slots: I32, now: int, now_s: float) -> None:
        """Delta: the next point of each series begins now."""
        times = family.flush_times
        if times is None or not len(slots):
            return
        known, _ = times.insert(family.table.keys(slots))
        times.column("time")[known], times.column("seen")[known] = now, now_s
        surplus = len(times) - self.config.timestamp_cache_size
        if surplus > 0:
            live = times.live()
            times.remove(live[np.argsort(times.column("seen")[live], kind="stable")[:surplus]])

    async def _show(self, query: Mapping[str, str]) -> dict[str, Any]:
        del query
        return {str(self._settings.id): self.state.report.document()}


def _operation_of(spans: SpanColumns, state: State) -> OperationOf:
    """The operation that the report shows for a row."""
    names = spans.field("name") if spans.http is None else spans.http.endpoint
    kinds = spans.field("kind")

    def operation_of(row: int, resource: int) -> int:
        service = state.resources.known[resource].service
        if row < 0:
            return state.report.code_of(service, "(overflow)", "")
        code, kind = int(names.codes[row]), int(kinds[row])
        name = str(names.distinct[code]) if code >= 0 else ""
        if spans.http is not None:
            method = int(spans.http.method.codes[row])
            name = f"{spans.http.method.distinct[method]} {name}"
        return state.report.code_of(service, name, SPAN_KINDS[kind] if 0 <= kind < len(SPAN_KINDS) else "")

    return operation_of


def _describe(batch: Traces, row: int) -> Resource:
    """The attributes and the service of a new resource."""
    table = batch.attributes("resources")
    values: dict[str, Any] = {}
    for record in table.rows[table.owner == row]:
        content = table.source[record["any"] : record["any"] + record["any_len"]] if record["any_len"] > 0 else b""
        value = any_value(content)
        if value is not None:
            values[table.keys[int(record["key_code"])].decode("utf-8", "replace")] = value
    column = batch.attribute("service.name", "resources").as_text()
    code = int(column.codes[row])
    return Resource(Attributes(values), str(column.distinct[code]) if code >= 0 else "")
