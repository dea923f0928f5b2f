"""Absolute caps on series per metric and group; what is over them is merged into one overflow series, so that sums stay true.

Named series pass untouched. Points whose attributes a rule has changed, and points over the limit, are folded (``fold``): each source's
gain goes into an accumulator, and accumulators are written every ``flush_interval`` under our own start time.
Source of the overflow attribute: OpenTelemetry metrics SDK specification, "Overflow attribute".
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.api import Component, ConsumeError, Host, Settings, Stage
from collector.model import (
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_INT,
    Batch,
    KeyTable,
    Metrics,
    Signal,
    combine_keys,
    groups,
    hash_text,
)
from collector.model.builders import Attributes
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.fold import FOLDABLE, Family, Fold
from processors.cardinality.report import Report
from processors.cardinality.rewrite import RUNGS, AttributeRewriter

__all__ = ["CardinalityProcessor", "create"]

I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

_OVERFLOW: Final = Attributes({"otel.metric.overflow": True})
_NONE: Final = Attributes({})
_NO_RECORDED_VALUE: Final = 1
_UNFOLDABLE: Final = {4: "exponential_histogram", 5: "summary"}
_MIB: Final = 1024 * 1024


class State:
    """What outlives a reload."""

    def __init__(self, fold: Fold) -> None:
        self.fold = fold
        self.named = KeyTable({"budget": np.int32, "seen": np.float64, "merged": np.uint8})
        self.budgets = KeyTable({"series": np.int32, "limit": np.int32, "seen": np.float64})
        self.budget_names: dict[int, str] = {}
        self.granted: dict[tuple[str, str], set[str]] = defaultdict(set)


class CardinalityProcessor(Stage):
    """See the module."""

    def __init__(self, settings: Settings, config: CardinalityConfig, previous: "CardinalityProcessor | None" = None) -> None:
        self._settings = settings
        self._config = config
        self._clock = settings.clock
        self._report = Report(config.top)
        self.config = config
        self.state = self._begin(previous)
        self._named, self._budgets, self._budget_names = self.state.named, self.state.budgets, self.state.budget_names
        self._fold = self.state.fold
        self._rewriter = AttributeRewriter(config, self.state.granted)
        self._new_rows = np.zeros(0, np.intp)
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        telemetry = settings.telemetry
        prefix = "tailrace_cardinality_"
        telemetry.gauge(prefix + "series", "Named series", read=lambda: float(len(self._named)))
        telemetry.gauge(prefix + "demand", "Series asked for: named ones and folded sources", read=lambda: float(self._demand()))
        telemetry.gauge(prefix + "limit", "Series allowed a metric and group", read=lambda: float(config.limit))
        telemetry.gauge(prefix + "state_bytes", "Memory of folded state", read=lambda: float(self._fold.state_bytes))
        telemetry.gauge(
            prefix + "attribute_values", "Distinct values of the worst attributes", ("metric", "attribute"), read=self._report.counts
        )
        self._folded = telemetry.counter(prefix + "folded_points", "Points merged into another series", ("rung",))
        self._inexact = telemetry.counter(prefix + "inexact_points", "Points that could not be merged exactly", ("reason",))
        self._freed = telemetry.counter(prefix + "slots_freed", "Named series that ended or fell silent")

    def _begin(self, previous: "CardinalityProcessor | None") -> State:
        """What is known at first: nothing, or what the object before a reload knows. Then no slot changes hands, no sum begins again."""
        config, now = self._config, self._clock.time_unix_nano()
        max_bytes = config.state_limit_mib * _MIB
        if previous is not None and previous.config.same_series(config):
            state = previous.state
            state.fold.configure(state_ttl_s=config.state_ttl, initial=config.initial, state_max_bytes=max_bytes)
            limits = state.budgets.column("limit")
            for slot, name in state.budget_names.items():
                limits[slot] = config.limit_of(name)
            return state
        # After a reload that changes what a series is, what was written before must not be continued.
        start = now if previous is not None else self._settings.start_time_unix_nano or now
        return State(Fold(start_time_unix_nano=start, state_ttl_s=config.state_ttl, initial=config.initial, state_max_bytes=max_bytes))

    async def start(self, host: Host) -> None:
        """Begin writing what is folded."""
        host.add_admin_route("/cardinality", self._show)
        self._task = asyncio.ensure_future(self._flush_regularly())

    async def shutdown(self) -> None:
        """Write once more what is folded."""
        if self._task is not None:
            task, self._task = self._task, None
            async with self._flushing:  # what is on its way gets there
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await self._flush()

    async def consume(self, batch: Batch) -> None:
        """Pass named series on, fold the others."""
        assert isinstance(batch, Metrics)
        passed = self._take(batch)
        if passed is not None and passed.item_count:
            await self._settings.outputs[Signal.METRICS].consume(passed)

    # One batch.

    def _take(self, batch: Metrics) -> Metrics | None:
        """What of the batch passes; the rest is folded or dropped, and counted."""
        now_s, now = self._clock.monotonic_s(), self._clock.time_unix_nano()
        rewritten, rung = self._rewriter.apply(batch)
        keys = batch.series_key()
        series = keys if rewritten is batch else rewritten.series_key()
        metrics = batch.table("metrics").rows
        metric = metrics[batch.table("points").parent]
        ended = batch.field("flags", "points") & _NO_RECORDED_VALUE != 0

        known_sources = self._fold.sources.find(keys) >= 0
        budgets = self._budgets_of(rewritten, now_s)
        named = self._admit(series, budgets, ~ended & ~known_sources, now_s)
        slots = self._named.find(series)
        rung = self._join(rung, slots, ended)
        merging = rung >= 0
        over = ~named & ~ended & ~(merging & known_sources)
        rung = np.where(over, RUNGS.index("overflow"), rung)
        gone = ended & (merging | known_sources)
        if ended.any():
            # The end of a series that never had a name is not a way around the limit.
            used, limits = self._budgets.column("series")[budgets], self._budgets.column("limit")[budgets]
            gone |= ended & (slots < 0) & (limits > 0) & (used >= limits)
            self._end(keys, series, ended, merging, known_sources, now)
        self._note_new(batch)
        if self._config.mode == "observe":
            self._count_rungs(rung[(rung >= 0) & ~ended])
            return batch
        folding = (rung >= 0) & ~ended
        dropped = self._drop_unfoldable(metric, folding)
        if self._fold.is_full:
            unheld = folding & ~dropped & ~known_sources
            if count := int(np.count_nonzero(unheld)):
                dropped |= unheld
                self._lose("state_full", count)
        rows = np.flatnonzero(folding & ~dropped)
        if len(rows):
            self._fold_rows(batch, rewritten, rows, keys, series, rung, budgets, metric, now, now_s)
        if gone.any():
            self._settings.telemetry.folded(Signal.METRICS, int(np.count_nonzero(gone)))
        passing = ~folding & ~gone
        return batch.select(passing) if passing.any() else None

    def _join(self, rung: I32, slots: I32, ended: Mask) -> I32:
        """The rungs, with those of points added whose series we write already because a rule merges others into it.

        A series has one writer: once ``/users/7`` has become ``/users/{id}``, a source that says ``/users/{id}`` itself is folded too.
        """
        merged = self._named.column("merged")
        marked = (rung >= 0) & (slots >= 0) & ~ended
        merged[slots[marked]] = rung[marked] + 1
        joining = (rung < 0) & (slots >= 0) & (merged[slots] > 0)
        return np.where(joining, merged[slots].astype(np.int32) - 1, rung)

    def _note_new(self, batch: Metrics) -> None:
        if len(self._new_rows):
            self._report.note(batch, self._new_rows)

    def _budgets_of(self, batch: Metrics, now_s: float) -> I32:
        """(points,) slot of the limit each point counts against: its metric in its group."""
        names = batch.field("name", "metrics")
        metric = batch.table("points").parent
        group = self._group_keys(batch)[batch.ancestor("resources", "metrics")]
        keys = combine_keys(hash_text(names), group)
        slots, is_new = self._budgets.insert(keys)
        limits = self._budgets.column("limit")
        for row in np.flatnonzero(is_new).tolist():
            name = names.distinct[names.codes[row]] if names.codes[row] >= 0 else ""
            self._budget_names[int(slots[row])] = name
            limits[slots[row]] = self._config.limit_of(name)
        self._budgets.column("seen")[slots] = now_s
        return slots[metric]

    def _group_keys(self, batch: Metrics) -> npt.NDArray[np.uint64]:
        """(resources, 2) key of the combination of ``group_by``."""
        count = batch.table("resources").row_count
        columns = [hash_text(batch.attribute(key, "resources").as_text()) for key in self._config.group_by]
        return combine_keys(*columns) if columns else np.zeros((count, 2), np.uint64)

    def _admit(self, series: npt.NDArray[np.uint64], budgets: I32, wanted: Mask, now_s: float) -> Mask:
        """(points,) whether the point's series has a name; new series are named while there is room, first come, first served."""
        slots = self._named.find(series)
        fresh = np.flatnonzero(wanted & (slots < 0))
        self._new_rows = fresh
        if len(fresh):
            distinct = groups(series[fresh])
            first = fresh[distinct.first]
            budget = budgets[first]
            used, limits = self._budgets.column("series"), self._budgets.column("limit")
            order = np.argsort(budget, kind="stable")
            ordered = budget[order]
            starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
            rank = np.empty(len(order), np.int64)
            rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
            room = (limits[budget] == 0) | (used[budget] + rank < limits[budget])
            room &= len(self._named) + np.cumsum(room) <= self._config.max_series
            chosen = first[room]
            if len(chosen):
                new_slots, _ = self._named.insert(series[chosen])
                self._named.column("budget")[new_slots] = budgets[chosen]
                np.add.at(self._budgets.column("series"), budgets[chosen], 1)
            slots = self._named.find(series)
        self._named.column("seen")[slots[slots >= 0]] = now_s
        return (slots >= 0) & wanted

    def _end(
        self,
        keys: npt.NDArray[np.uint64],
        series: npt.NDArray[np.uint64],
        ended: Mask,
        merging: Mask,
        known_sources: Mask,
        now: int,
    ) -> None:
        """NO_RECORDED_VALUE: a named series gives its slot back, a folded source is forgotten."""
        slots = self._named.find(series)
        named = ended & ~merging & (slots >= 0)
        self._fold.forget(keys[ended & (named | known_sources)], now)
        self._free(np.unique(slots[named]))

    def _free(self, slots: I32) -> None:
        if len(slots):
            np.subtract.at(self._budgets.column("series"), self._named.column("budget")[slots], 1)
            self._named.remove(slots)
            self._freed.add(len(slots))

    def _drop_unfoldable(self, metric: npt.NDArray[np.void], folding: Mask) -> Mask:
        """(points,) those that are over the limit and of a type that is not merged: dropped and counted, never summed blindly."""
        dropped = folding & ~np.isin(metric["type"], FOLDABLE)
        if dropped.any():
            for kind, reason in _UNFOLDABLE.items():
                if count := int(np.count_nonzero(dropped & (metric["type"] == kind))):
                    self._lose(reason, count)
            if other := int(np.count_nonzero(dropped & ~np.isin(metric["type"], list(_UNFOLDABLE)))):
                self._settings.telemetry.dropped(Signal.METRICS, other, "no_data")
        return dropped

    def _fold_rows(
        self,
        batch: Metrics,
        rewritten: Metrics,
        rows: npt.NDArray[np.intp],
        keys: npt.NDArray[np.uint64],
        series: npt.NDArray[np.uint64],
        rung: I32,
        budgets: I32,
        metric: npt.NDArray[np.void],
        now: int,
        now_s: float,
    ) -> None:
        overflow = rung[rows] == RUNGS.index("overflow")
        kinds = metric[rows]
        identity = combine_keys(
            self._budgets.keys(budgets[rows]),
            hash_text(batch.field("unit", "metrics"))[batch.table("points").parent[rows]],
            kinds["type"] * 64 + kinds["temporality"] * 8 + kinds["monotonic"],
        )
        # A source keeps the accumulator it began with: none is made for what it would be today.
        unknown = np.flatnonzero(self._fold.sources.find(keys[rows]) < 0)
        slots = np.full(len(rows), -1, np.int32)
        new_slots, is_new = self._fold.accumulators.insert(np.where(overflow[:, None], identity, series[rows])[unknown])
        slots[unknown] = new_slots
        for i in unknown[is_new].tolist():
            self._describe(rewritten, int(rows[i]), int(slots[i]), is_overflow=bool(overflow[i]))
        inexact_before = self._fold.inexact_bounds
        lost = self._fold.add(batch, rows, keys[rows], slots, kinds, now, now_s)
        for reason, count in lost.items():
            self._lose(reason, count)
        if (inexact := self._fold.inexact_bounds - inexact_before) > 0:
            self._inexact.add(inexact, reason="bounds")
        if folded := len(rows) - sum(lost.values()):
            self._settings.telemetry.folded(Signal.METRICS, folded)
        self._count_rungs(rung[rows])

    def _lose(self, reason: str, count: int) -> None:
        self._settings.telemetry.dropped(Signal.METRICS, count, reason)
        self._inexact.add(count, reason=reason)

    def _count_rungs(self, rungs: I32) -> None:
        for i, name in enumerate(RUNGS):
            if count := int(np.count_nonzero(rungs == i)):
                self._folded.add(count, rung=name)

    def _describe(self, batch: Metrics, row: int, slot: int, *, is_overflow: bool) -> None:
        """What the series of a new accumulator is: once a series we write."""
        parent = int(batch.table("points").parent[row])
        kind = batch.table("metrics").rows[parent]
        resource = _attributes(batch, "resources", int(batch.ancestor("resources", "points")[row]))
        scope_row = int(batch.ancestor("scopes", "points")[row])
        inner = Attributes(_attributes(batch, "scopes", scope_row))
        scope = (_text(batch, "name", "scopes", scope_row), _text(batch, "version", "scopes", scope_row), inner)
        if is_overflow:
            resource = {key: resource[key] for key in self._config.group_by if key in resource}
            resource["service.instance.id"] = self._settings.instance_id
            scope = ("tailrace/cardinality", "", _NONE)
        name, unit, description = (_text(batch, field, "metrics", parent) for field in ("name", "unit", "description"))
        family = Family(
            resource=Attributes(resource), scope=scope, name=name, unit=unit, description=description, type=int(kind["type"]),
            temporality=int(kind["temporality"]), monotonic=bool(kind["monotonic"]),
        )  # fmt: skip
        self._fold.new_accumulator(slot, family, _OVERFLOW if is_overflow else Attributes(_attributes(batch, "points", row)))

    # Time.

    async def _flush_regularly(self) -> None:
        while True:
            await self._clock.sleep(self._config.overflow.flush_interval)
            async with self._flushing:
                self._expire()
                await self._flush()

    def _expire(self) -> None:
        now_s = self._clock.monotonic_s()
        live = self._named.live()
        self._free(live[self._named.column("seen")[live] < now_s - self._config.window])
        self._fold.expire(
            now_s,
            self._clock.time_unix_nano(),
            ttl_s=self._config.state_ttl,
            stale_after_s=self._config.overflow.stale_after,
            window_s=self._config.window,
        )
        budgets = self._budgets.live()
        idle = self._budgets.column("seen")[budgets] < now_s - self._config.window
        unused = budgets[idle & (self._budgets.column("series")[budgets] <= 0)]
        self._budgets.remove(unused)
        for slot in unused.tolist():
            self._budget_names.pop(slot, None)

    async def _flush(self) -> None:
        batch = self._fold.flush(self._clock.time_unix_nano(), self._clock.monotonic_s(), self._config.overflow.stale_after)
        if batch is not None:
            self._settings.telemetry.created(Signal.METRICS, batch.item_count)
            # An exporter that waits for its backend may have given up. It has counted that; nobody is left to tell, and the next
            # flush must come.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.METRICS].consume(batch)

    # What operators ask.

    def _demand(self) -> int:
        return len(self._named) + len(self._fold.sources)

    async def _show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """``GET /cardinality``."""
        del query
        live = self._budgets.live()
        series, limits = self._budgets.column("series"), self._budgets.column("limit")
        top = live[np.argsort(-series[live], kind="stable")][: self._config.top.n].tolist()
        return {
            "mode": self._config.mode,
            "series": len(self._named),
            "demand": self._demand(),
            "folded_sources": len(self._fold.sources),
            "written_series": len(self._fold.accumulators),
            "state_bytes": self._fold.state_bytes,
            "metrics": [{"metric": self._budget_names[slot], "series": int(series[slot]), "limit": int(limits[slot])} for slot in top],
            "attributes": self._report.worst(),
        }


def _text(batch: Metrics, field: str, table: str, row: int) -> str:
    column = batch.field(field, table)
    return column.distinct[column.codes[row]] if column.codes[row] >= 0 else ""


def _attributes(batch: Metrics, table: str, row: int) -> dict[str, Any]:
    """One row's attributes with their kinds; the last of a key counts."""
    every = batch.attributes(table)
    texts = every.as_text()
    begin, end = np.searchsorted(every.owner, [row, row + 1]).tolist()
    found: dict[str, Any] = {}
    for i in range(begin, end):
        kind = int(every.kind[i])
        value: Any = texts.distinct[texts.codes[i]] if texts.codes[i] >= 0 else ""
        if kind == KIND_INT:
            value = int(every.int[i])
        elif kind == KIND_DOUBLE:
            value = float(every.double[i])
        elif kind == KIND_BOOL:
            value = bool(every.bool[i])
        found[every.key.distinct[every.key.codes[i]]] = value
    return found


def create(settings: Settings, config: CardinalityConfig, previous: Component | None) -> CardinalityProcessor:
    """The component; after a reload it goes on with what the one before knows."""
    return CardinalityProcessor(settings, config, previous if isinstance(previous, CardinalityProcessor) else None)
