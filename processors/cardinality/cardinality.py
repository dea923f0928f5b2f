"""Absolute caps on series per metric and group; what is over them is merged into one overflow series, so that sums stay true.

Named series pass untouched. Points whose attributes a rule has changed, and points over the limit, are folded
(``fold``): each source's gain goes into an accumulator, and accumulators are written every ``flush_interval`` under our
own start time.

``mode: observe`` does all of that and writes none of it: what it counts is what ``enforce`` would have done.
Source of the overflow attribute: OpenTelemetry metrics SDK specification, "Overflow attribute".
"""

import contextlib
from typing import Any, Final

import numpy as np

from collector.api import ConsumeError, Host, PeriodicTask, Settings, Stage
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
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.fold import FOLDABLE
from processors.cardinality.identity import attributes_of, series_of, text_of
from processors.cardinality.limits import PROCESS_SERIES, Budgets
from processors.cardinality.overview import Overview
from processors.cardinality.rewrite import OVERFLOW, RUNGS, AttributeRewriter
from processors.cardinality.state import State
from processors.cardinality.stores import ADDS, FOLDS, REASONS
from processors.cardinality.writer import Family

__all__ = ["CardinalityProcessor"]

_OVERFLOW_KEY: Final = "otel.metric.overflow"
_SCOPE: Final = "tailrace/cardinality"
_NONE: Final = Attributes({})
_NO_RECORDED_VALUE: Final = 1
_HISTOGRAM_SERIES: Final = 3  # Prometheus: +Inf, sum and count beside the bounds
_SUMMARY_SERIES: Final = 2  # sum and count beside the quantiles


class _Points:
    """One batch on its way: what is known of each point. All arrays are (points,)."""

    __slots__ = (
        "batch", "bound", "budgets", "ended", "has_accumulator", "keys", "kinds", "now", "now_s", "parent", "rewritten", "rung", "series",
        "slots", "sources",
    )  # fmt: skip

    batch: Metrics
    rewritten: Metrics
    """After the attribute rules."""
    keys: U64
    """Sources: the series as they came."""
    series: U64
    """The series after the rules."""
    parent: I32
    """Metrics."""
    kinds: I32
    """METRIC types."""
    ended: Mask
    rung: I32
    sources: I32
    has_accumulator: Mask
    bound: Mask
    """The source stays in overflow, or in the series it was merged into."""
    budgets: Budgets
    slots: I32
    """Named series."""
    now: int
    now_s: float


class CardinalityProcessor(Stage):
    """See the module."""

    def __init__(self, settings: Settings, config: CardinalityConfig) -> None:
        self._settings, self._config, self._clock = settings, config, settings.clock
        start_time = settings.start_time_unix_nano or self._clock.time_unix_nano()
        self._use(State(config, start_time, settings.shared.get(PROCESS_SERIES)))
        self._enforces = config.mode == "enforce"
        # Ours alone: replicas, pipelines and processors after each other each write overflow series of their own.
        self._writer_id = f"{settings.instance_id}/{settings.pipeline}/{settings.id}"
        self._flush_task = PeriodicTask(self._expire_and_flush, config.overflow.flush_interval, self._clock)
        telemetry, prefix = settings.telemetry, "tailrace_cardinality_"
        self._folded = telemetry.counter(prefix + "folded_points", "Points merged into another series", ("rung",))
        self._inexact = telemetry.counter(
            prefix + "inexact_points", "Points that could not be merged exactly", ("reason",)
        )
        self._freed = telemetry.counter(
            prefix + "slots_freed", "Named series that ended, fell silent or lost their slot"
        )

    def _use(self, state: State) -> None:
        self.state = state
        self._limits, self._fold = state.limits, state.fold
        self._rewriter = AttributeRewriter(self._config, state.granted)
        settings = self._settings
        self._overview = Overview(f"{settings.id}@{settings.pipeline}", state, self._config)
        self._overview.register(settings.telemetry)

    def hand_over(self, config: CardinalityConfig) -> State:  # noqa: ARG002 - the successor compares the configurations
        """Everything known between batches."""
        return self.state

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's series, or start anew where the configuration makes other series of the same data.

        In that case what was written before is not continued: the new start time makes the known sources baselines, so
        that nothing is counted twice.
        """
        if not isinstance(state, State):
            return False
        if state.config.same_series(self._config):
            self._use(state)
        else:
            self._use(State(self._config, self._clock.time_unix_nano(), state.process))
        return True

    async def start(self, host: Host) -> None:
        """Begin writing what is folded."""
        for key, glob, why in self._config.unmatchable():
            self._settings.telemetry.log.warning(
                "a glob of metric names can match nothing", key=key, glob=glob, why=why
            )
        self.state.process.join(self._limits)
        self.state.configure(self._config)
        host.add_admin_route("/cardinality", self._overview.show)
        self._flush_task.start()

    async def shutdown(self) -> None:
        """Write once more what is folded."""
        if await self._flush_task.stop():
            await self._flush()
        self.state.process.leave(self._limits)

    async def consume(self, batch: Batch) -> None:
        """Pass named series on, fold the others."""
        assert isinstance(batch, Metrics)
        passed = self._take(batch)
        if passed is not None and passed.item_count:
            await self._settings.outputs[Signal.METRICS].consume(passed)

    # One batch.

    def _take(self, batch: Metrics) -> Metrics | None:
        """What of the batch passes; the rest is folded or dropped, and counted."""
        if not batch.item_count:
            return None
        points = self._known(batch)
        wanted = ~points.ended & ~points.bound
        self._name(points, wanted)
        named = (points.slots >= 0) & wanted
        self._join(points)
        merging = points.rung >= 0
        over = ~named & ~points.ended & ~(merging & points.has_accumulator)
        points.rung = np.where(over, OVERFLOW, points.rung).astype(np.int32)
        self._limits.reject(points.series[over], points.budgets.budget[over])
        gone = self._end(points, merging) if points.ended.any() else np.zeros(len(merging), bool)
        folding = (points.rung >= 0) & ~points.ended
        dropped = self._drop_unfoldable(points, folding)
        self._fold_rows(points, folding & ~dropped, named & ~merging & (points.rung < 0))
        self._count_rungs(points, folding)
        if count := int(np.count_nonzero(gone)):
            self._settle(folded=count)
        if not self._enforces:
            return batch
        passing = ~folding & ~gone
        return batch.select(passing) if passing.any() else None

    def _known(self, batch: Metrics) -> _Points:
        points = _Points()
        points.batch, points.now, points.now_s = batch, self._clock.time_unix_nano(), self._clock.monotonic_s()
        points.rewritten, points.rung = self._rewriter.apply(batch, points.now_s)
        _, context = self.state.contexts.key(batch.context)
        points.keys = series_of(batch)
        points.series = points.keys if points.rewritten is batch else series_of(points.rewritten)
        if context is not None:
            points.keys, points.series = points.keys ^ context, points.series ^ context
        points.parent = batch.table("points").parent
        points.kinds = batch.table("metrics").rows["type"][points.parent]
        points.ended = batch.field("flags", "points") & _NO_RECORDED_VALUE != 0
        points.sources = self._fold.sources.find(points.keys)
        points.has_accumulator, points.bound = self._fold.follows(points.sources)
        points.budgets = self._limits.of(points.rewritten, context, points.now_s)
        return points

    def _name(self, points: _Points, wanted: Mask) -> None:
        """Gives new series names while there is room."""
        weights = self._weights(points)
        points.slots, rows, slots = self._limits.admit(points.series, weights, points.budgets, wanted, points.now_s)
        if self._config.count != "points":
            self._limits.grow(points.slots, weights)
        unseen = np.flatnonzero(wanted & (points.sources < 0) & ((points.slots < 0) | _in(rows, len(wanted))))
        self.state.report.note(points.batch, unseen)
        # Of series that we write ourselves the end is written by the writer.
        own = points.rung[rows] < 0
        if own.any() and self._enforces and self._fold.may_follow():
            order = np.argsort(rows[own], kind="stable")
            self._limits.births.add(points.batch, rows[own][order], slots[own][order])
        self._fold.other_bytes = self._limits.memory_bytes + self.state.report.memory_bytes

    def _weights(self, points: _Points) -> I64:
        """(points,) what each series counts for."""
        weights = np.ones(len(points.kinds), np.int64)
        if self._config.count == "prometheus_series":
            rows, kinds = points.batch.table("points").rows, points.kinds
            weights = np.where(kinds == METRIC_HISTOGRAM, rows["bounds_len"] // 8 + _HISTOGRAM_SERIES, weights)
            weights = np.where(kinds == METRIC_SUMMARY, rows["quantile_count"] + _SUMMARY_SERIES, weights)
        return weights

    def _join(self, points: _Points) -> None:
        """Points of series that we write already, because a rule merges others into them, are merged too.

        A series has one writer: once ``/users/7`` has become ``/users/{id}``, a source that says ``/users/{id}`` itself
        is folded.
        """
        merged, slots, rung = self._limits.named.column("merged"), points.slots, points.rung
        marked = (rung >= 0) & (slots >= 0) & ~points.ended
        merged[slots[marked]] = rung[marked] + 1
        joining = (rung < 0) & (slots >= 0) & (merged[slots] > 0)
        points.rung = np.where(joining, merged[slots].astype(np.int32) - 1, rung).astype(np.int32)

    def _end(self, points: _Points, merging: Mask) -> Mask:
        """Rule 7, NO_RECORDED_VALUE: a named series gives its slot back, a folded source is forgotten. Returns which do not pass."""
        ended, slots = points.ended, points.slots
        gone = ended & (merging | points.bound)
        # The end of a series that never had a name is not a way around the limit.
        for of in points.budgets.all():
            used, limits = self._limits.budgets.column("series")[of], self._limits.budgets.column("limit")[of]
            gone |= ended & (slots < 0) & (of >= 0) & (limits > 0) & (used >= limits)
        named = ended & ~merging & (slots >= 0)
        told = ended & (named | points.has_accumulator)
        self._fold.end(points.keys[told], points.sources[told], points.now)
        if named.any():
            freed = np.unique(slots[named])
            self._limits.births.forget(freed)
            self._limits.free(freed)
            self._freed.add(len(freed))
        return gone

    def _drop_unfoldable(self, points: _Points, folding: Mask) -> Mask:
        """(points,) those that are over the limit and of a type that is not merged: dropped and counted, never summed blindly."""
        kinds = points.kinds
        foldable = np.isin(points.batch.table("metrics").rows["type"], FOLDABLE)
        dropped = folding & ~foldable[points.parent]
        if dropped.any():
            if count := int(np.count_nonzero(dropped & (kinds == METRIC_SUMMARY))):
                self._lose("summary", count)
            if other := int(np.count_nonzero(dropped & (kinds != METRIC_SUMMARY))):
                self._settle(dropped=other, reason="no_data")
        if self._fold.is_full:
            unheld = folding & ~dropped & (points.sources < 0)
            if count := int(np.count_nonzero(unheld)):
                dropped |= unheld
                self._lose("state_full", count)
        return dropped

    def _fold_rows(self, points: _Points, folding: Mask, named: Mask) -> None:
        """Adds up the folded points, and remembers the last values and times of named series (rules 8 and 10)."""
        follows = named & self._is_added(points.batch)[points.parent]
        if not self._fold.may_follow():
            follows &= points.sources >= 0
        rows = np.flatnonzero(folding | follows)
        if not len(rows):
            return
        folded = folding[rows]
        targets = np.full(len(rows), -1, np.int32)
        targets[folded] = self._accumulators_of(points, rows[folded])
        own_name = folded & (points.rung[rows] != OVERFLOW)
        sources = points.sources[rows]
        reasons, inexact = self._fold.add(
            points.batch, rows, points.keys, sources, targets, own_name, points.now, points.now_s
        )
        for number in np.unique(reasons[folded]).tolist():
            if number:
                self._lose(REASONS[number], int(np.count_nonzero(folded & (reasons == number))))
        for reason, count in inexact.items():
            if count:
                self._inexact.add(count, reason=reason)
        taken = folded & (reasons == 0)
        if count := int(np.count_nonzero(taken)):
            self._settle(folded=count)
            self._fold.exemplars.note(
                points.batch, rows[taken], self._fold.sources.column("accumulator")[sources[taken]]
            )

    @staticmethod
    def _is_added(batch: Metrics) -> Mask:
        """(metrics,) those whose type adds up, of which nothing must be counted twice; the others are what they say now."""
        metric = batch.table("metrics").rows
        kinds = metric["type"]
        adds = (kinds == METRIC_SUM) & ((metric["monotonic"] != 0) | (metric["temporality"] == TEMPORALITY_DELTA))
        added: Mask = adds | (kinds == METRIC_HISTOGRAM) | (kinds == METRIC_EXPONENTIAL_HISTOGRAM)
        return added

    def _accumulators_of(self, points: _Points, rows: Indices) -> I32:
        """(rows,) the accumulator of each source that has none; what a source began with it keeps."""
        slots = np.full(len(rows), -1, np.int32)
        unknown = np.flatnonzero(~points.has_accumulator[rows])
        if not len(unknown):
            return slots
        mine = rows[unknown]
        overflow = points.rung[mine] == OVERFLOW
        metric, parent = points.batch.table("metrics").rows, points.parent[mine]
        kind = metric["type"] * 64 + metric["temporality"] * 8 + metric["monotonic"]
        unit = hash_text(points.batch.field("unit", "metrics"))
        parts = [self._limits.budgets.keys(np.maximum(points.budgets.budget[mine], 0)), unit[parent], kind[parent]]
        if points.budgets.values is not None:
            parts.append(hash_text(points.budgets.values)[mine])
        keys = np.where(overflow[:, None], combine_keys(*parts), points.series[mine])
        new_slots, is_new = self._fold.accumulators.insert(keys)
        slots[unknown] = new_slots
        for i in np.flatnonzero(is_new).tolist():
            self._describe(points, int(mine[i]), int(new_slots[i]), is_overflow=bool(overflow[i]))
        return slots

    def _describe(self, points: _Points, row: int, slot: int, *, is_overflow: bool) -> None:
        """What the series of a new accumulator is: once a series we write."""
        batch = points.rewritten
        parent = int(points.parent[row])
        kind = points.batch.table("metrics").rows[parent]
        resource = attributes_of(batch, "resources", int(batch.ancestor("resources", "points")[row]))
        name, unit, description = (
            text_of(batch, field, "metrics", parent) for field in ("name", "unit", "description")
        )
        if is_overflow:
            resource = {key: resource[key] for key in self._config.group_by if key in resource}
            resource["service.instance.id"] = self._writer_id
            scope = (_SCOPE, "", _NONE)
            attributes: dict[str, Any] = {_OVERFLOW_KEY: True}
            values = points.budgets.values
            if self._config.tenant is not None and values is not None and values.codes[row] >= 0:
                attributes[self._config.tenant.attribute] = values.distinct[values.codes[row]]
        else:
            scope_row = int(batch.ancestor("scopes", "points")[row])
            inner = Attributes(attributes_of(batch, "scopes", scope_row))
            scope = (text_of(batch, "name", "scopes", scope_row), text_of(batch, "version", "scopes", scope_row), inner)
            attributes = attributes_of(batch, "points", row)
        context, _ = self.state.contexts.key(batch.context)
        family = Family(
            context=context, resource=Attributes(resource), scope=scope, name=name, unit=unit, description=description,
            type=int(kind["type"]), temporality=int(kind["temporality"]), monotonic=bool(kind["monotonic"]),
        )  # fmt: skip
        self._fold.new_accumulator(slot, kind=family.type, fold=self._fold_number(family))
        self.state.writer.describe(slot, family, attributes)

    def _fold_number(self, family: Family) -> int:
        if family.type == METRIC_GAUGE:
            return FOLDS.index(self._config.fold_of(family.name))
        is_latest = family.type == METRIC_SUM and not family.monotonic and family.temporality != TEMPORALITY_DELTA
        return FOLDS.index("sum") if is_latest else ADDS

    # Counting.

    def _count_rungs(self, points: _Points, folding: Mask) -> None:
        column = self._limits.budgets.column
        for name, mask in (("folded", folding), ("overflow", folding & (points.rung == OVERFLOW))):
            of = points.budgets.budget[mask]
            np.add.at(column(name), of[of >= 0], 1)
        for i, name in enumerate(RUNGS):
            if count := int(np.count_nonzero(points.rung[folding] == i)):
                self._folded.add(count, rung=name)

    def _lose(self, reason: str, count: int) -> None:
        self._settle(dropped=count, reason=reason)
        self._inexact.add(count, reason=reason)

    def _settle(self, *, folded: int = 0, dropped: int = 0, reason: str = "") -> None:
        """Into the ledger; observing, everything passes and nothing is."""
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
        """Forgets what is too old; returns the ends of named series that lost their slots."""
        now, now_s = self._clock.time_unix_nano(), self._clock.monotonic_s()
        state, limits = self.state, self._limits
        freed = np.unique(np.concatenate((limits.silent(now_s), limits.over())))
        ends = limits.births.end(freed, now) if len(freed) else []
        state.free(freed, now, now_s)
        limits.births.thin()
        if len(freed):
            self._freed.add(len(freed))
        old = self._fold.expire(now_s, now, ttl_s=self._config.state_ttl, window_s=self._config.window)
        state.writer.remove(old)
        self._fold.remove_accumulators(old)
        limits.expire(now_s)
        state.granted.expire(now_s - self._config.window)
        state.turn(now_s)
        self._fold.other_bytes = limits.memory_bytes + state.report.memory_bytes
        return ends

    async def _flush(self) -> None:
        stale_after = self._config.overflow.stale_after
        await self._emit(self.state.writer.flush(self._clock.time_unix_nano(), self._clock.monotonic_s(), stale_after))

    async def _emit(self, batches: list[Metrics]) -> None:
        if not self._enforces:
            return
        for batch in batches:
            self._settings.telemetry.created(Signal.METRICS, batch.item_count)
            # An exporter that waits for its backend may have given up. It has counted that; nobody is left to tell, and
            # the next flush must come.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.METRICS].consume(batch)


def _in(rows: Indices, count: int) -> Mask:
    found = np.zeros(count, bool)
    found[rows] = True
    return found
