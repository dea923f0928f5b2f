"""Connector ``span_metrics``: calls, errors and durations of spans, as metrics. Exact where it stands before sampling.

Counting is columns and tables (``dimensions``, ``series``); what happens in a flush is ``emit``.
Source of keys, names and defaults: opentelemetry-collector-contrib connector/spanmetricsconnector. What differs is in
README.md.
"""

import secrets
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.api import Connector, ConsumeError, Host, PeriodicTask, Settings
from collector.model import Batch, KeyTable, Metrics, Signal, Traces
from collector.model.arrays import F64, I32, U64, Mask
from collector.model.builders import Attributes
from collector.model.series import attribute_identity
from collector.model.values import any_value
from collector.tail_sampling.decision_registry import DECISIONS
from connectors.span_metrics.config import SpanMetricsConfig
from connectors.span_metrics.dimensions import KIND_NAMES, Dimensions, Span, text_keys
from connectors.span_metrics.emit import Emitter
from connectors.span_metrics.exemplars import Candidates
from connectors.span_metrics.exponential import ExponentialBuckets
from connectors.span_metrics.http import http_columns
from connectors.span_metrics.report import Report
from connectors.span_metrics.series import Budget, Family, Observed, Operation, Resource, Resources
from connectors.span_metrics.weights import weights_of

__all__ = ["SpanMetricsConnector"]

_STATUS_ERROR: Final = 2
_MILLISECOND: Final = 1_000_000
_RESOURCES_SPARE: Final = 2
"""Resources between two flushes, of those that are kept: further ones share one."""


class State:
    """What is counted; outlives a reload."""

    def __init__(self, config: SpanMetricsConfig, now: int) -> None:
        self.resources = Resources()
        self.families: dict[str, Family] = {}
        bounds = (
            None
            if config.histogram.disable or config.histogram.exponential
            else np.array(config.histogram.bounds, np.float64)
        )
        exponential = config.histogram.exponential
        buckets = (
            ExponentialBuckets(exponential.size) if exponential is not None and not config.histogram.disable else None
        )
        if config.calls_dimensions or config.histogram.dimensions:
            self.families["calls"] = Family("calls")
            if not config.histogram.disable:
                self.families["duration"] = Family("duration", bounds, buckets)
        else:
            self.families["red"] = Family("red", bounds, buckets)
        if config.events.enabled:
            self.families["events"] = Family("events")
        if config.is_delta:
            for family in self.families.values():
                family.last = KeyTable({"time": np.uint64, "seen": np.float64}, capacity=64)
        self.budget = Budget(config.aggregation_cardinality_limit, config.max_series)
        self.report = Report(self.families, config.histogram.nanoseconds / _MILLISECOND, now)
        self.last_flush = now
        self.random = np.random.default_rng(secrets.randbits(128))


class SpanMetricsConnector(Connector):
    """See the module."""

    def __init__(self, settings: Settings, config: SpanMetricsConfig) -> None:
        self._settings, self.config, self._clock = settings, config, settings.clock
        self.state = State(config, self._clock.time_unix_nano())
        lists = {
            "red": (config.dimensions,),
            "calls": (config.dimensions, config.calls_dimensions),
            "duration": (config.dimensions, config.histogram.dimensions),
            "events": (config.dimensions, config.events.dimensions),
        }
        self._dimensions = {
            name: Dimensions(config, lists[name], settings.instance_id, self._too_many_keys)
            for name in self.state.families
        }
        exemplars = config.exemplars
        self._decisions = settings.shared.get(DECISIONS)
        self._candidates = {
            name: Candidates(exemplars.max_per_data_point, exemplars.only_kept, self._decisions)
            for name in self.state.families
            if exemplars.enabled and exemplars.max_per_data_point
        }
        self._emitter = Emitter(config, settings.version)
        self._kinds = np.array([name in config.counted_kinds for name in KIND_NAMES] + [False])
        self._warned: set[str] = set()
        self._flush_task = PeriodicTask(self._flush, config.metrics_flush_interval, self._clock)
        telemetry = settings.telemetry
        prefix = "tailrace_span_metrics_"
        telemetry.gauge(prefix + "series", "Series with a name", read=lambda: float(self.state.budget.used))
        telemetry.gauge(prefix + "resources", "Resources", read=lambda: float(len(self.state.resources.known) - 1))
        telemetry.gauge(
            prefix + "state_bytes",
            "Memory of the tables",
            read=lambda: float(sum(f.table.memory_bytes for f in self.state.families.values())),
        )
        self._overflowed = telemetry.counter(
            prefix + "overflowed_items", "Spans and events counted in an overflow series"
        )
        self._uncounted = telemetry.counter(prefix + "uncounted_spans", "Spans that make no metric", ("reason",))

    def hand_over(self, config: SpanMetricsConfig) -> State | None:
        """The series and their counts, if the successor makes the same series."""
        return self.state if self.config.same_series(config) else None

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's series."""
        if not isinstance(state, State):
            return False
        self.state = state
        state.budget.limit, state.budget.total = self.config.aggregation_cardinality_limit, self.config.max_series
        return True

    def _too_many_keys(self, key: str) -> None:
        self._warn_once("glob", "a glob matches too many attribute keys; further ones are no dimensions", key=key)

    def _warn_once(self, what: str, sentence: str, **fields: Any) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self._settings.telemetry.log.warning(sentence, **fields)

    async def start(self, host: Host) -> None:
        """Begin to flush."""
        if self.config.dimensions_cache_size:
            self._settings.telemetry.log.warning(
                "dimensions_cache_size is deprecated and without effect; write aggregation_cardinality_limit"
            )
        host.add_admin_route("/span_metrics", self._show)
        self.state.report.begin_rates(self._clock.monotonic_s())
        self._flush_task.start()

    async def shutdown(self) -> None:
        """Flush once more."""
        if await self._flush_task.stop():
            await self._flush()

    async def consume(self, batch: Batch) -> None:
        """Count the spans; nothing of them is kept but numbers and, as exemplars, ids."""
        assert isinstance(batch, Traces)
        telemetry = self._settings.telemetry
        nameless = self._count(batch)
        if nameless:
            telemetry.dropped(Signal.TRACES, nameless, "no_service_name")
        telemetry.folded(Signal.TRACES, batch.item_count - nameless)

    # One batch.

    def _count(self, batch: Traces) -> int:
        """Count a batch; returns how many of its spans have no service."""
        has_service = batch.attribute("service.name", "resources").present[batch.ancestor("resources")]
        nameless = int(batch.item_count - np.count_nonzero(has_service))
        counts = has_service
        if nameless:
            self._uncounted.add(nameless, reason="no_service_name")
        if self.config.counted_kinds:
            counts = self._only(counts, self._kinds[np.clip(batch.field("kind"), -1, len(KIND_NAMES))], "kind")
        http = None
        if self.config.names == "http":
            http = http_columns(batch)
            counts = self._only(counts, http.method.present, "no_http")
        rows = None if counts.all() else np.flatnonzero(counts)
        if rows is not None and not len(rows):
            return nameless
        trace_states = batch.field("trace_state")
        if rows is not None:
            trace_states = trace_states.take(rows)
            http = None if http is None else http.take(rows)
        span = Span(batch, rows, weights_of(trace_states, self.state.random), http)
        self._count_spans(span)
        return nameless

    def _only(self, counts: Mask, wanted: Mask, reason: str) -> Mask:
        left = counts & wanted
        lost = int(np.count_nonzero(counts) - np.count_nonzero(left))
        if lost:
            self._uncounted.add(lost, reason=reason)
        return left

    def _count_spans(self, span: Span) -> None:
        config, state = self.config, self.state
        now_s, now = self._clock.monotonic_s(), self._clock.time_unix_nano()
        slots, keys = self._resource_slots(span.batch, now_s)
        resource, resource_keys = slots[span.resource_rows], keys[span.resource_rows]
        starts, ends = span.field("start_time_unix_nano"), span.field("end_time_unix_nano")
        durations = (
            np.where(ends > starts, ends - starts, np.uint64(0)).astype(np.float64) / config.histogram.nanoseconds
        )
        is_error = span.field("status_code") == _STATUS_ERROR
        if span.http is not None:
            is_error = is_error | span.http.is_error
        observed = Observed(span.weights, is_error, durations)
        overflowed = state.budget.overflowed
        for name, family in state.families.items():
            if name == "events":
                self._count_events(span, resource, resource_keys, durations, family, now, now_s)
                continue
            rows = self._dimensions[name].of_spans(span, resource)
            found = rows.grouped()
            operation = _operation_of(span, state) if name in {"red", "calls", "duration"} else None
            slots = family.slots_of(rows, found, resource_keys[found.first], state.budget, operation, now, now_s)[
                found.codes
            ]
            family.add(slots, observed)
            if name in self._candidates:
                self._candidates[name].add(
                    family.table,
                    slots,
                    span.field("trace_id"),
                    span.field("span_id"),
                    np.minimum(ends, np.uint64(now)),
                    durations,
                    now_s,
                )
        if state.budget.overflowed > overflowed:
            self._overflowed.add(state.budget.overflowed - overflowed)

    def _count_events(
        self, span: Span, resource: I32, resource_keys: U64, durations: F64,
        family: Family, now: int, now_s: float,
    ) -> None:  # fmt: skip
        events = span.batch.table("events").parent
        if not len(events):
            return
        place = np.arange(span.batch.item_count)
        if span.rows is not None:
            place = np.full(span.batch.item_count, -1)
            place[span.rows] = np.arange(len(span.rows))
        owner = place[events]
        chosen = np.flatnonzero(owner >= 0)
        owner = owner[chosen]
        if not len(chosen):
            return
        rows = self._dimensions["events"].of_events(span, chosen, owner, resource[owner])
        found = rows.grouped()
        slots = family.slots_of(rows, found, resource_keys[owner[found.first]], self.state.budget, None, now, now_s)[
            found.codes
        ]
        family.add(slots, Observed(span.weights.take(owner)))
        if "events" in self._candidates:
            times = np.minimum(span.batch.field("time_unix_nano", "events")[chosen], np.uint64(now))
            self._candidates["events"].add(
                family.table,
                slots,
                span.field("trace_id")[owner],
                span.field("span_id")[owner],
                times,
                durations[owner],
                now_s,
            )

    def _resource_slots(self, batch: Traces, now_s: float) -> tuple[I32, U64]:
        """The slot of each of the batch's resources, I32[r], and its key, U64[r,2]."""
        names = self.config.resource_metrics_key_attributes
        if names:
            count = batch.table("resources").row_count
            keys = text_keys(
                [(name, batch.attribute(name, "resources").as_text()) for name in dict.fromkeys(names)], count
            )
        else:
            keys = attribute_identity(batch, "resources")
        keys = keys + np.array([1, 0], np.uint64)  # (0, 0) is the common one's
        room = _RESOURCES_SPARE * self.config.resource_metrics_cache_size
        slots = self.state.resources.slots_of(keys, lambda row: _describe(batch, row), now_s, room)
        keys[slots == self.state.resources.common] = 0
        return slots, keys

    # Flushing.

    async def _flush(self) -> None:
        """Emit what has been counted, then forget what is old."""
        metrics = self._take()
        if metrics is None:
            return
        telemetry = self._settings.telemetry
        telemetry.created(Signal.METRICS, metrics.item_count)
        try:
            await self._settings.outputs[Signal.METRICS].consume(metrics)
        except ConsumeError as error:
            # Whoever refused has counted it; cumulative series are written again next time.
            telemetry.log.warning("metrics were refused downstream", reason=error.reason)

    def _take(self) -> Metrics | None:
        state, now_s = self.state, self._clock.monotonic_s()
        now = max(self._clock.time_unix_nano(), state.last_flush + 1)  # a clock set back makes no time run backwards
        chosen = {
            name: candidates.choose(state.families[name].table, now_s) for name, candidates in self._candidates.items()
        }
        if (
            self._candidates
            and (wanted := self.config.exemplars.only_kept)
            and not self._decisions.is_registered(wanted)
        ):
            self._warn_once(
                "only_kept", "no sampling processor answers under this id: no exemplar is attached", only_kept=wanted
            )
        is_empty = not any(len(family.table) for family in state.families.values())
        metrics = None if is_empty else self._emitter.build(state.families, state.resources, chosen, now)
        state.last_flush = now
        state.report.flushed(now_s)
        self._forget(now, now_s)
        return metrics

    def _forget(self, now: int, now_s: float) -> None:
        config, state = self.config, self.state
        gone = self._old_resources(now_s)
        for family in state.families.values():
            live = family.table.live()
            if config.is_delta:
                leaving = live
                self._remember(family, live, now, now_s)
            else:
                old = np.isin(family.table.column("resource")[live], gone)
                if config.series_expiration:
                    old |= now_s - family.table.column("seen")[live] >= config.series_expiration
                leaving = live[old]
                family.restart_full(live[~old], now)
            if len(leaving):
                state.report.leaving(family, leaving)
                family.remove(leaving, state.budget)
        state.resources.remove(gone)

    def _old_resources(self, now_s: float) -> I32:
        """Silent too long, or too many: those seen longest ago."""
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
        gone: I32 = live[old]
        return gone

    def _remember(self, family: Family, slots: I32, now: int, now_s: float) -> None:
        """Delta: where the next point of each series begins."""
        last = family.last
        if last is None or not len(slots):
            return
        known, _ = last.insert(family.table.keys(slots))
        last.column("time")[known], last.column("seen")[known] = now, now_s
        surplus = len(last) - self.config.timestamp_cache_size
        if surplus > 0:
            live = last.live()
            last.remove(live[np.argsort(last.column("seen")[live], kind="stable")[:surplus]])

    async def _show(self, query: Mapping[str, str]) -> dict[str, Any]:
        del query
        return {str(self._settings.id): self.state.report.document()}


def _operation_of(span: Span, state: State) -> Operation:
    """What the report calls a row."""
    names = span.field("name") if span.http is None else span.http.endpoint
    kinds = span.field("kind")

    def operation(row: int, resource: int) -> int:
        service = state.resources.known[resource].service
        if row < 0:
            return state.report.code_of(service, "(overflow)", "")
        code, kind = int(names.codes[row]), int(kinds[row])
        name = str(names.distinct[code]) if code >= 0 else ""
        if span.http is not None:
            method = int(span.http.method.codes[row])
            name = f"{span.http.method.distinct[method]} {name}"
        return state.report.code_of(service, name, KIND_NAMES[kind] if 0 <= kind < len(KIND_NAMES) else "")

    return operation


def _describe(batch: Traces, row: int) -> Resource:
    """What a new resource's series say of it."""
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
