"""Limits the number of series per metric and group; series beyond a limit are merged into one overflow series.

Named series pass unchanged. Points of which an attribute rule changed an attribute, and points over a limit, are merged
(``fold``): the gain of each source is added to an accumulator, and the accumulators are written every
``flush_interval`` under a start time of our own. So the sum over all series stays true.

Rules are those of docs/reference/cardinality.md. With ``mode: observe`` everything is computed, but nothing is written
or dropped: the counters show what ``enforce`` would have done. Source of the overflow attribute: OpenTelemetry metrics
SDK specification, "Overflow attribute".
"""

import asyncio
import contextlib
from typing import Any, Final

import numpy as np

from collector.api import ConsumeError, Host, PeriodicTask, SavedState, Settings, Stage
from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    METRIC_SUMMARY,
    TEMPORALITY_DELTA,
    Batch,
    Metrics,
    Signal,
    combine_keys,
    hash_text,
)
from collector.model.arrays import I32, I64, U64, Indices, Mask
from collector.model.builders import Attributes
from collector.otlp.semantics import NO_RECORDED_VALUE
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.fold import MERGEABLE_TYPES
from processors.cardinality.identity import attributes_of, series_of, text_of
from processors.cardinality.limits import PROCESS_SERIES, PointBudgets
from processors.cardinality.overview import Overview
from processors.cardinality.records import ADDS, DROP_REASONS, FOLDS
from processors.cardinality.rewrite import MERGE_REASONS, OVERFLOW, AttributeRewriter
from processors.cardinality.state import VERSION, State
from processors.cardinality.written_metric import WrittenMetric

__all__ = ["CardinalityProcessor"]

_OVERFLOW_KEY: Final = "otel.metric.overflow"
_SCOPE: Final = "tailrace/cardinality"
_NO_ATTRIBUTES: Final = Attributes({})
_SERIES_MAX_BYTES: Final = 64 * 1024  # names and attributes of a series that the processor writes
_DESCRIPTION_MAX_CHARS: Final = 1024  # of written series; no backend shows more
_HISTOGRAM_SERIES: Final = 3  # Prometheus has one for each bound and for +Inf, sum and count
_SUMMARY_SERIES: Final = 2  # Prometheus has one for each quantile and for sum and count


class _Points:
    """What is known of the points of one batch. All arrays are (points,)."""

    __slots__ = (
        "batch",
        "budgets",
        "ended",
        "has_accumulator",
        "keys",
        "kinds",
        "merge_reason",
        "now",
        "now_s",
        "parent",
        "rewritten",
        "series",
        "slots",
        "sources",
        "stays_merged",
    )

    batch: Metrics
    rewritten: Metrics
    """After the attribute rules."""
    keys: U64
    """The keys of the sources: of the series as they were received."""
    series: U64
    """The keys of the series after the attribute rules."""
    parent: I32
    """Rows of the metrics."""
    kinds: I32
    """METRIC types."""
    ended: Mask
    merge_reason: I32
    """An index of ``MERGE_REASONS``; -1: the point is not merged."""
    sources: I32
    """Slots of the sources; -1: unknown."""
    has_accumulator: Mask
    stays_merged: Mask
    """The source stays in overflow, or in the series into which it was merged."""
    budgets: PointBudgets
    slots: I32
    """Slots of named series; -1: the series is not named."""
    now: int
    now_s: float


class CardinalityProcessor(Stage):
    """One processor in one pipeline."""

    def __init__(self, settings: Settings, config: CardinalityConfig) -> None:
        self._settings, self._config, self._clock = settings, config, settings.clock
        self._use(self._new_state(settings.start_time_unix_nano or self._clock.time_unix_nano()))
        self._enforces = config.mode == "enforce"
        self._is_handed_over = self._is_taken_over = False
        self._saved = SavedState(settings, "processors", kind="cardinality", version=VERSION)
        self._flush_task = PeriodicTask(self._expire_and_flush, config.overflow.flush_interval, self._clock)
        telemetry, prefix = settings.telemetry, "tailrace_cardinality_"
        self._folded = telemetry.counter(
            prefix + "folded_points", "Points merged into another series", ("merge_reason",)
        )
        self._inexact = telemetry.counter(
            prefix + "inexact_points", "Points that could not be merged exactly", ("reason",)
        )
        self._freed = telemetry.counter(
            prefix + "slots_freed", "Named series that ended, became idle or lost their slot to a lower limit"
        )

    def _new_state(self, start_time_unix_nano: int) -> State:
        settings = self._settings
        # Unique, so that replicas, pipelines and successive processors each write overflow series of their own.
        writer_id = f"{settings.instance_id}/{settings.pipeline}/{settings.id}"
        return State(self._config, start_time_unix_nano, settings.shared.get(PROCESS_SERIES), writer_id)

    def _use(self, state: State) -> None:
        self.state = state
        self._limits, self._fold = state.limits, state.fold
        self._rewriter = AttributeRewriter(self._config, state.allowed)
        settings = self._settings
        self._overview = Overview(f"{settings.id}@{settings.pipeline}", state, self._config)
        self._overview.register(settings.telemetry)

    def hand_over(self, config: CardinalityConfig) -> State:
        """Everything that is known between batches."""
        self._is_handed_over = self.state.config.same_series(config)
        return self.state

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's series, or start afresh if the configuration makes other series of the same data.

        In the second case the new start time makes all known sources baselines, so that nothing is counted twice.
        """
        if not isinstance(state, State):
            return False
        if state.config.same_series(self._config):
            self._use(state)
        else:
            self._use(self._new_state(self._clock.time_unix_nano()))
        self._is_taken_over = True
        return True

    async def start(self, host: Host) -> None:
        """Start expiring and flushing."""
        for key, glob, reason in self._config.unmatchable():
            self._settings.telemetry.log.warning(
                "a glob of metric names can never match", key=key, glob=glob, reason=reason
            )
        if self._config.storage:
            await self._open_state(host)
        self.state.process.join(self._limits)
        self.state.configure(self._config)
        host.add_admin_route("/cardinality", self._overview.show)
        self._flush_task.start()

    async def _open_state(self, host: Host) -> None:
        """Continue the series of the process before."""
        parts = await self._saved.open(
            host, self._config.storage, fingerprint=self._config.fingerprint, restores=not self._is_taken_over
        )
        if parts is None:
            return
        state = self._new_state(self._settings.start_time_unix_nano or self._clock.time_unix_nano())
        try:
            state.restore(parts, self._saved.elapsed(parts))
        except (KeyError, TypeError, ValueError) as error:
            self._saved.refuse(error)
        else:
            self._use(state)

    async def shutdown(self) -> None:
        """Flush once more and end the written series, unless a successor or a storage continues them."""
        if await self._flush_task.stop():
            await self._flush()
            if self._saved.is_open:
                self._saved.save_now(self.state.parts())
            elif not self._is_handed_over:
                await self._emit(self.state.writer.end_all(self._clock.time_unix_nano()))
        self.state.process.leave(self._limits)

    async def consume(self, batch: Batch) -> None:
        """Pass named series on and merge the others."""
        assert isinstance(batch, Metrics)
        passed = self._process(batch)
        if passed is not None and passed.item_count:
            await self._settings.outputs[Signal.METRICS].consume(passed)

    # One batch.

    def _process(self, batch: Metrics) -> Metrics | None:
        """The points that pass; the others are merged or dropped, and counted."""
        if not batch.item_count:
            return None
        points = self._analyse(batch)
        may_be_named = ~points.ended & ~points.stays_merged
        self._name(points, may_be_named)
        is_named = (points.slots >= 0) & may_be_named
        self._join_written_series(points)
        has_rule = points.merge_reason >= 0
        is_over = ~is_named & ~points.ended & ~(has_rule & points.has_accumulator)
        points.merge_reason = np.where(is_over, OVERFLOW, points.merge_reason).astype(np.int32)
        self._limits.count_rejected(points.series[is_over], points.budgets.metric[is_over])
        ends_here = self._end(points, has_rule) if points.ended.any() else np.zeros(len(has_rule), bool)
        is_merged = (points.merge_reason >= 0) & ~points.ended
        is_dropped = self._drop_unmergeable(points, is_merged)
        self._fold_points(points, is_merged & ~is_dropped, is_named & (points.merge_reason < 0))
        self._count_merged(points, is_merged)
        if count := int(np.count_nonzero(ends_here)):
            self._settle(folded=count)
        if not self._enforces:
            return batch
        passes = ~is_merged & ~ends_here
        return batch.select(passes) if passes.any() else None

    def _analyse(self, batch: Metrics) -> _Points:
        points = _Points()
        points.batch, points.now, points.now_s = batch, self._clock.time_unix_nano(), self._clock.monotonic_s()
        points.rewritten, points.merge_reason = self._rewriter.apply(batch, points.now_s)
        _, context = self.state.contexts.key(batch.context)
        points.keys = series_of(batch)
        points.series = points.keys if points.rewritten is batch else series_of(points.rewritten)
        if context is not None:
            points.keys, points.series = points.keys ^ context, points.series ^ context
        points.parent = batch.table("points").parent
        points.kinds = batch.table("metrics").rows["type"][points.parent]
        points.ended = batch.field("flags", "points") & NO_RECORDED_VALUE != 0
        points.sources = self._fold.sources.find(points.keys)
        points.has_accumulator, points.stays_merged = self._fold.placement_of(points.sources)
        unknown = np.flatnonzero((points.sources < 0) & self._is_added_up(batch)[points.parent])
        if len(unknown):
            start_times = batch.table("points").rows["start_time"][unknown]
            points.stays_merged[unknown] = self._fold.were_merged(points.keys[unknown], start_times)
        points.budgets = self._limits.budgets_of(points.rewritten, context, points.now_s)
        return points

    def _name(self, points: _Points, may_be_named: Mask) -> None:
        """Name new series while there is room."""
        weights = self._weights(points)
        points.slots, rows, slots = self._limits.admit(
            points.series, weights, points.budgets, may_be_named, points.now_s
        )
        if self._config.count != "points":
            self._limits.raise_weights(points.slots, weights)
        is_new = points.slots < 0
        is_new[rows] = True
        self.state.report.note(points.batch, np.flatnonzero(may_be_named & (points.sources < 0) & is_new))
        # The ends of series that the processor writes itself are written by the writer.
        passes = points.merge_reason[rows] < 0
        room = self._fold.room_for_named()
        if passes.any() and self._enforces and room > 0:
            passes &= _described_bytes(points.batch)[rows] <= _SERIES_MAX_BYTES
            order = np.argsort(rows[passes], kind="stable")
            if len(order):
                self._limits.first_points.add(points.batch, rows[passes][order], slots[passes][order], max_bytes=room)
        state = self.state
        self._fold.other_bytes = self._limits.memory_bytes + state.report.memory_bytes + state.writer.memory_bytes

    def _weights(self, points: _Points) -> I64:
        """(points,) for how much each series counts."""
        weights = np.ones(len(points.kinds), np.int64)
        if self._config.count == "prometheus_series":
            rows, kinds = points.batch.table("points").rows, points.kinds
            weights = np.where(kinds == METRIC_HISTOGRAM, rows["bounds_len"] // 8 + _HISTOGRAM_SERIES, weights)
            weights = np.where(kinds == METRIC_SUMMARY, rows["quantile_count"] + _SUMMARY_SERIES, weights)
        return weights

    def _join_written_series(self, points: _Points) -> None:
        """Merge points of named series that the processor writes already, because a rule merges others into them.

        A series has one writer: once ``/users/7`` has become ``/users/{id}``, a source that sends ``/users/{id}``
        itself is merged into that series as well.
        """
        merged, slots, merge_reason = self._limits.named.column("merged"), points.slots, points.merge_reason
        has_rule = (merge_reason >= 0) & (slots >= 0) & ~points.ended
        merged[slots[has_rule]] = merge_reason[has_rule] + 1
        joins = (merge_reason < 0) & (slots >= 0) & (merged[slots] > 0)
        points.merge_reason = np.where(joins, merged[slots].astype(np.int32) - 1, merge_reason).astype(np.int32)

    def _end(self, points: _Points, has_rule: Mask) -> Mask:
        """Rule 7, NO_RECORDED_VALUE: free the slots of named series and end merged sources.

        Returns:
            (points,) which of the ended ones do not pass.
        """
        ended, slots = points.ended, points.slots
        ends_here = ended & (has_rule | points.stays_merged)
        # While a limit is reached, ends of series that were never named must not bypass it.
        column = self._limits.budgets.column
        for budgets in points.budgets.columns():
            used, limits = column("series")[budgets], column("limit")[budgets]
            ends_here |= ended & (slots < 0) & (budgets >= 0) & (limits > 0) & (used >= limits)
        is_named = ended & ~has_rule & (slots >= 0)
        is_tracked = ended & (is_named | points.has_accumulator)
        self._fold.end(points.keys[is_tracked], points.sources[is_tracked], points.now)
        if is_named.any():
            freed = np.unique(slots[is_named])
            self._limits.first_points.remove(freed)
            self._limits.free(freed)
            self._freed.add(len(freed))
        return ends_here

    def _drop_unmergeable(self, points: _Points, is_merged: Mask) -> Mask:
        """Drop and count points of types that cannot be merged, and of new sources for which there is no room.

        Returns:
            (points,) which were dropped.
        """
        kinds = points.kinds
        is_mergeable = np.isin(points.batch.table("metrics").rows["type"], MERGEABLE_TYPES)
        is_dropped = is_merged & ~is_mergeable[points.parent]
        if is_dropped.any():
            if count := int(np.count_nonzero(is_dropped & (kinds == METRIC_SUMMARY))):
                self._drop("summary", count)
            if count := int(np.count_nonzero(is_dropped & (kinds != METRIC_SUMMARY))):
                self._settle(dropped=count, reason="no_data")
        has_no_accumulator = is_merged & ~points.has_accumulator
        if has_no_accumulator.any():
            is_too_long = has_no_accumulator & ~is_dropped & (_described_bytes(points.batch) > _SERIES_MAX_BYTES)
            if count := int(np.count_nonzero(is_too_long)):
                is_dropped |= is_too_long
                self._drop("too_long", count)
        has_no_room = has_no_accumulator & ~is_dropped & (points.budgets.metric < 0)
        if self._fold.is_full:
            has_no_room |= is_merged & ~is_dropped & (points.sources < 0)
        if count := int(np.count_nonzero(has_no_room)):
            is_dropped |= has_no_room
            self._drop("state_full", count)
        return is_dropped

    def _fold_points(self, points: _Points, is_merged: Mask, is_named: Mask) -> None:
        """Add merged points to their accumulators, and store last values and times of named series (rules 8 and 10)."""
        is_stored = is_named & self._is_added_up(points.batch)[points.parent]
        if self._fold.room_for_named() <= 0:
            is_stored &= points.sources >= 0
        rows = np.flatnonzero(is_merged | is_stored)
        if not len(rows):
            return
        is_folded = is_merged[rows]
        targets = np.full(len(rows), -1, np.int32)
        targets[is_folded] = self._accumulators_of(points, rows[is_folded])
        own_name = is_folded & (points.merge_reason[rows] != OVERFLOW)
        sources = points.sources[rows]
        reasons, inexact = self._fold.add(
            points.batch, rows, points.keys, sources, targets, own_name, points.now, points.now_s
        )
        for number in np.unique(reasons[is_folded]).tolist():
            if number:
                self._drop(DROP_REASONS[number], int(np.count_nonzero(is_folded & (reasons == number))))
        for reason, count in inexact.items():
            if count:
                self._inexact.add(count, reason=reason)
        is_used = is_folded & (reasons == 0)
        if count := int(np.count_nonzero(is_used)):
            self._settle(folded=count)
            self._fold.exemplars.note(
                points.batch, rows[is_used], self._fold.sources.column("accumulator")[sources[is_used]]
            )

    @staticmethod
    def _is_added_up(batch: Metrics) -> Mask:
        """(metrics,) whether values add up, so that none may be counted twice; other types have only a latest value."""
        metric = batch.table("metrics").rows
        kinds = metric["type"]
        is_sum = (kinds == METRIC_SUM) & ((metric["monotonic"] != 0) | (metric["temporality"] == TEMPORALITY_DELTA))
        added_up: Mask = is_sum | (kinds == METRIC_HISTOGRAM) | (kinds == METRIC_EXPONENTIAL_HISTOGRAM)
        return added_up

    def _accumulators_of(self, points: _Points, rows: Indices) -> I32:
        """(rows,) the accumulator for each source that has none; a source keeps the accumulator that it has."""
        slots = np.full(len(rows), -1, np.int32)
        missing = np.flatnonzero(~points.has_accumulator[rows])
        if not len(missing):
            return slots
        point_rows = rows[missing]
        is_overflow = points.merge_reason[point_rows] == OVERFLOW
        metric, parent = points.batch.table("metrics").rows, points.parent[point_rows]
        kind = metric["type"] * 64 + metric["temporality"] * 8 + metric["monotonic"]
        unit = hash_text(points.batch.field("unit", "metrics"))
        parts = [
            self._limits.budgets.keys(np.maximum(points.budgets.metric[point_rows], 0)),
            unit[parent],
            kind[parent],
        ]
        if points.budgets.tenant_names is not None:
            parts.append(hash_text(points.budgets.tenant_names)[point_rows])
        keys = np.where(is_overflow[:, None], combine_keys(*parts), points.series[point_rows])
        new_slots, is_new = self._fold.accumulators.insert(keys)
        slots[missing] = new_slots
        for i in np.flatnonzero(is_new).tolist():
            self._begin_series(points, int(point_rows[i]), int(new_slots[i]), is_overflow=bool(is_overflow[i]))
        return slots

    def _begin_series(self, points: _Points, row: int, slot: int, *, is_overflow: bool) -> None:
        """Initialise a new accumulator and the series that is written for it, from the first point merged into it."""
        batch = points.rewritten
        parent = int(points.parent[row])
        record = points.batch.table("metrics").rows[parent]
        # By hand: ``ancestor`` computes the rows of all points.
        scope_row = int(batch.table("metrics").parent[int(batch.table("points").parent[row])])
        resource = attributes_of(batch, "resources", int(batch.table("scopes").parent[scope_row]))
        name, unit, description = (
            text_of(batch, field, "metrics", parent) for field in ("name", "unit", "description")
        )
        if is_overflow:
            resource = {key: resource[key] for key in self._config.group_by if key in resource}
            resource["service.instance.id"] = self.state.writer_id
            scope = (_SCOPE, "", _NO_ATTRIBUTES)
            attributes: dict[str, Any] = {_OVERFLOW_KEY: True}
            tenants = points.budgets.tenant_names
            if self._config.tenant is not None and tenants is not None and tenants.codes[row] >= 0:
                attributes[self._config.tenant.attribute] = tenants.distinct[tenants.codes[row]]
        else:
            scope_name, scope_version = (text_of(batch, field, "scopes", scope_row) for field in ("name", "version"))
            scope = (scope_name, scope_version, Attributes(attributes_of(batch, "scopes", scope_row)))
            attributes = attributes_of(batch, "points", row)
        context, _ = self.state.contexts.key(batch.context)
        metric = WrittenMetric(
            context=context,
            resource=Attributes(resource),
            scope=scope,
            name=name,
            unit=unit,
            description=description[:_DESCRIPTION_MAX_CHARS],
            type=int(record["type"]),
            temporality=int(record["temporality"]),
            monotonic=bool(record["monotonic"]),
        )
        self._fold.new_accumulator(slot, kind=metric.type, fold=self._fold_number(metric), now_unix_nano=points.now)
        self.state.writer.add_series(slot, metric, attributes)

    def _fold_number(self, metric: WrittenMetric) -> int:
        """The index of ``FOLDS`` for the accumulators of a metric."""
        if metric.type == METRIC_GAUGE:
            return FOLDS.index(self._config.fold_of(metric.name))
        is_latest = metric.type == METRIC_SUM and not metric.monotonic and metric.temporality != TEMPORALITY_DELTA
        return FOLDS.index("sum") if is_latest else ADDS

    # Counting.

    def _count_merged(self, points: _Points, is_merged: Mask) -> None:
        column = self._limits.budgets.column
        for name, mask in (("folded", is_merged), ("overflow", is_merged & (points.merge_reason == OVERFLOW))):
            budgets = points.budgets.metric[mask]
            np.add.at(column(name), budgets[budgets >= 0], 1)
        for number, reason in enumerate(MERGE_REASONS):
            if count := int(np.count_nonzero(points.merge_reason[is_merged] == number)):
                self._folded.add(count, merge_reason=reason)

    def _drop(self, reason: str, count: int) -> None:
        self._settle(dropped=count, reason=reason)
        self._inexact.add(count, reason=reason)

    def _settle(self, *, folded: int = 0, dropped: int = 0, reason: str = "") -> None:
        """Report points to the ledger; with ``mode: observe`` all points pass, so there is nothing to report."""
        if not self._enforces:
            return
        if folded:
            self._settings.telemetry.folded(Signal.METRICS, folded)
        if dropped:
            self._settings.telemetry.dropped(Signal.METRICS, dropped, reason)

    # Time.

    async def _expire_and_flush(self) -> None:
        await self._emit(self._expire())
        await self._flush()

    def _expire(self) -> list[Metrics]:
        """Forget what is too old; returns the end markers of named series that lost their slots."""
        now, now_s = self._clock.time_unix_nano(), self._clock.monotonic_s()
        state, limits = self.state, self._limits
        freed = np.unique(np.concatenate((limits.silent(now_s), limits.excess())))
        markers = limits.first_points.take_end_markers(freed, now) if len(freed) else []
        state.free(freed, now, now_s)
        limits.first_points.compact()
        if len(freed):
            self._freed.add(len(freed))
        unused = self._fold.expire(now_s, now, ttl_s=self._config.state_ttl, window_s=self._config.window)
        state.writer.remove(unused)
        self._fold.remove_accumulators(unused)
        limits.expire(now_s)
        state.allowed.expire(now_s - self._config.window)
        state.rotate(now_s)
        self._fold.other_bytes = limits.memory_bytes + state.report.memory_bytes + state.writer.memory_bytes
        return markers

    async def _flush(self) -> None:
        stale_after = self._config.overflow.stale_after
        flush = self.state.writer.begin_flush(self._clock.time_unix_nano(), self._clock.monotonic_s(), stale_after)
        for _ in flush.parts():
            await asyncio.sleep(0)  # with many metrics a flush takes seconds, and the data must not wait for it
        batches = flush.finish()
        if self._saved.is_open:
            # Before they are emitted: after a crash, no value is lower than one that a backend has.
            await self._saved.save(self.state.parts())
        await self._emit(batches)

    async def _emit(self, batches: list[Metrics]) -> None:
        if not self._enforces:
            return
        for batch in batches:
            self._settings.telemetry.created(Signal.METRICS, batch.item_count)
            # The component that refused the batch has counted it, and no sender waits for the result; flushing
            # continues.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.METRICS].consume(batch)


def _described_bytes(batch: Metrics) -> I64:
    """(points,) the size of what describes the series of each point: resource, scope, names and attributes."""
    resources, scopes, metrics = (batch.table(name).rows for name in ("resources", "scopes", "metrics"))
    by_resource = np.maximum(resources["inner_end"] - resources["inner_start"], 0).astype(np.int64)
    by_scope = by_resource[batch.table("scopes").parent] + np.maximum(scopes["inner_end"] - scopes["inner_start"], 0)
    by_metric = by_scope[batch.table("metrics").parent] + metrics["name_len"] + metrics["unit_len"]
    points = batch.table("points").rows
    buckets = sum(np.maximum(points[name], 0) for name in ("buckets_len", "bounds_len", "positive_len", "negative_len"))
    sizes: I64 = by_metric[batch.table("points").parent] + (points["end"] - points["start"] - buckets)
    return sizes
