"""Many sources into one series, correctly: what each source gained since its last point goes into an accumulator of ours.

Knows sources (128-bit keys of original series) and accumulators (slots of series we write), not limits or attributes. All state is in
columns; a point costs array work alone.

Rules (numbers of the processor's specification): 1 cumulative increments, 2 first sight, 3 our start, 4 delta, 5 histograms,
6 up-down counters (Σ of latest values), 7 NO_RECORDED_VALUE, 10 time.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.model import (
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    PRESENT_MAX,
    PRESENT_MIN,
    PRESENT_SUM,
    TEMPORALITY_CUMULATIVE,
    TEMPORALITY_DELTA,
    KeyTable,
    Metrics,
    MetricsBuilder,
)
from collector.model.builders import Attributes
from collector.wire.hash import dictionary

__all__ = ["FOLDABLE", "Family", "Fold"]

I32 = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

FOLDABLE: Final = (METRIC_GAUGE, METRIC_SUM, METRIC_HISTOGRAM)
_INT: Final = 1
_NS: Final = 1_000_000_000
_LATEST: Final = 2  # in "monotonic": a sum of latest values
_SET_BYTES: Final = 512  # what the objects of one set of bounds take, roughly
_BOUNDS_MAX: Final = 4096  # of a histogram; one with more keeps its count and sum alone


@dataclass(slots=True, eq=False)
class Family:
    """One metric of one resource and scope that we write, with its accumulators."""

    resource: Attributes
    scope: tuple[str, str, Attributes]
    name: str
    unit: str
    description: str
    type: int
    temporality: int
    monotonic: bool
    slots: list[int] = field(default_factory=list)
    attributes: list[Attributes] = field(default_factory=list)

    @property
    def key(self) -> tuple[Any, ...]:
        """What is one metric."""
        return self.resource, self.scope, self.name, self.unit, self.type, self.temporality, self.monotonic


class _Buckets:
    """Bucket counts of everything that shares one set of bounds: rows of sources or of accumulators."""

    def __init__(self, bounds: npt.NDArray[np.float64], width: int) -> None:
        self.bounds = bounds
        self.width = width
        self.counts = np.zeros((1, width), np.uint64)
        self.used = 0
        self._free: list[I32] = []

    @property
    def free_count(self) -> int:
        """Rows given back and not yet in use again."""
        return sum(len(rows) for rows in self._free)

    def allocate(self, count: int) -> I32:
        """Rows, zero; those given back first."""
        given: list[I32] = []
        needed = count
        while needed and self._free:
            rows = self._free.pop()
            if len(rows) > needed:
                self._free.append(rows[needed:])
                rows = rows[:needed]
            given.append(rows)
            needed -= len(rows)
        given.append(np.arange(self.used, self.used + needed, dtype=np.int32))
        self.used += needed
        if self.used > len(self.counts):
            grown = np.zeros((max(self.used, 2 * len(self.counts)), self.width), np.uint64)
            grown[: len(self.counts)] = self.counts
            self.counts = grown
        rows = np.concatenate(given)
        self.counts[rows] = 0
        return rows

    def release(self, rows: I32) -> None:
        """Give rows back. With the last one, all memory."""
        if len(rows):
            self._free.append(rows)
        if self.used and self.free_count == self.used:
            self.counts, self.used, self._free = np.zeros((1, self.width), np.uint64), 0, []


class Fold:
    """Sources and accumulators."""

    def __init__(self, *, start_time_unix_nano: int, state_ttl_s: float, initial: str, state_max_bytes: int) -> None:
        self._start = start_time_unix_nano
        self._state_ttl_ns = int(state_ttl_s * _NS)
        self._initial = initial
        self._state_max_bytes = state_max_bytes
        self._accumulators_start = start_time_unix_nano
        self.sources = KeyTable(
            {"accumulator": np.int32, "start": np.uint64, "time": np.uint64, "int": np.int64, "double": np.float64, "seen": np.float64,
             "count": np.uint64, "sum": np.float64, "set": np.int32, "row": np.int32},
            max_bytes=state_max_bytes,
        )  # fmt: skip
        self.accumulators = KeyTable(
            {"int": np.int64, "double": np.float64, "is_double": np.uint8, "time": np.uint64, "seen": np.float64, "touched": np.uint8,
             "count": np.uint64, "sum": np.float64, "lacks_sum": np.uint8, "set": np.int32, "row": np.int32, "monotonic": np.uint8,
             "start": np.uint64, "min": np.float64, "max": np.float64, "lacks_range": np.uint8},
        )  # fmt: skip
        self.ended = KeyTable({"time": np.uint64}, max_bytes=max(state_max_bytes // 4, 65_536))
        """Series that ended (NO_RECORDED_VALUE) or lost their slot, and when: what they counted until then is counted."""
        self._families: list[Family] = []
        self._by_key: dict[tuple[Any, ...], Family] = {}
        self._sets: dict[tuple[bytes, int], int] = {}
        self._free_sets: list[int] = []
        self._source_buckets: list[_Buckets] = []
        self._accumulator_buckets: list[_Buckets] = []
        self._last_flush = start_time_unix_nano
        self._bounds_bytes = 0
        self.inexact_bounds = 0
        """Points folded without their buckets: their bounds are not their accumulator's."""

    def configure(self, *, state_ttl_s: float, initial: str, state_max_bytes: int) -> None:
        """Other settings for the same state (a reload)."""
        self._state_ttl_ns, self._initial, self._state_max_bytes = int(state_ttl_s * _NS), initial, state_max_bytes

    @property
    def state_bytes(self) -> int:
        """Memory of sources and accumulators."""
        buckets = sum(store.counts.nbytes for store in (*self._source_buckets, *self._accumulator_buckets))
        return self.sources.memory_bytes + self.accumulators.memory_bytes + self.ended.memory_bytes + self._bounds_bytes + buckets

    @property
    def is_full(self) -> bool:
        """No source is taken that is not known."""
        return self.state_bytes >= self._state_max_bytes

    def new_accumulator(self, slot: int, family: Family, attributes: Attributes) -> None:
        """Describe the series of an accumulator just inserted."""
        known = self._by_key.get(family.key)
        if known is None:
            known = self._by_key[family.key] = family
            self._families.append(family)
        known.slots.append(slot)
        known.attributes.append(attributes)
        self.accumulators.column("set")[slot] = -1
        self.accumulators.column("monotonic")[slot] = family.monotonic
        self.accumulators.column("start")[slot] = self._accumulators_start
        self.accumulators.column("min")[slot] = np.inf
        self.accumulators.column("max")[slot] = -np.inf

    # Taking points.

    def forget(self, keys: npt.NDArray[np.uint64], now_unix_nano: int) -> None:
        """Rule 7: these series ended; what folded ones had is theirs no more (sums of latest values lose it).

        Should one come back under its old start time, its old total is not counted a second time.
        """
        slots = self.sources.find(keys)
        self._remove(np.unique(slots[slots >= 0]))
        ended, _ = self.ended.insert(keys)
        self.ended.column("time")[ended[ended >= 0]] = now_unix_nano

    def expire(self, now_s: float, now_unix_nano: int, *, ttl_s: float, stale_after_s: float, window_s: float) -> None:
        """Forget sources that have been silent for ``ttl_s`` (of sums of latest values: ``stale_after_s``).

        Accumulators without news for ``window_s`` go too: the series they wrote has given its slot back.
        """
        live = self.sources.live()
        silent_s = now_s - self.sources.column("seen")[live]
        latest = self.accumulators.column("monotonic")[self.sources.column("accumulator")[live]] == _LATEST
        self._remove(live[(silent_s > ttl_s) | (latest & (silent_s > stale_after_s))])
        ended = self.ended.live()
        self.ended.remove(ended[self.ended.column("time")[ended] + np.uint64(self._state_ttl_ns) < now_unix_nano])
        accumulators = self.accumulators.live()
        self._remove_accumulators(accumulators[now_s - self.accumulators.column("seen")[accumulators] > window_s])
        self._release_sets()

    def _remove_accumulators(self, slots: I32) -> None:
        if not len(slots):
            return
        # A series written anew begins where the old one was written last, so that nobody takes one for the other.
        self._accumulators_start = max(self._accumulators_start, self._last_flush)
        self._give_rows_back(self.accumulators, self._accumulator_buckets, slots)
        gone = set(slots.tolist())
        for family in self._families:
            if not gone.isdisjoint(family.slots):
                kept = [i for i, slot in enumerate(family.slots) if slot not in gone]
                family.slots = [family.slots[i] for i in kept]
                family.attributes = [family.attributes[i] for i in kept]
        self._families = [family for family in self._families if family.slots]
        self._by_key = {family.key: family for family in self._families}
        self.accumulators.remove(slots)

    def _give_rows_back(self, table: KeyTable, stores: list["_Buckets"], slots: I32) -> None:
        sets, rows = table.column("set")[slots], table.column("row")[slots]
        for set_ in np.unique(sets[sets >= 0]).tolist():
            stores[set_].release(rows[sets == set_])

    def _release_sets(self) -> None:
        """Bounds that nobody uses make room for others."""
        for (bounds, width), number in list(self._sets.items()):
            if bounds and not self._source_buckets[number].used and not self._accumulator_buckets[number].used:
                del self._sets[bounds, width]
                self._bounds_bytes -= _SET_BYTES + 3 * len(bounds)
                self._free_sets.append(number)

    def _remove(self, slots: I32) -> None:
        if not len(slots):
            return
        source, accumulator = self.sources.column, self.accumulators.column
        target = source("accumulator")[slots]
        latest = accumulator("monotonic")[target] == _LATEST
        np.subtract.at(accumulator("int"), target[latest], source("int")[slots[latest]])
        np.subtract.at(accumulator("double"), target[latest], source("double")[slots[latest]])
        self._give_rows_back(self.sources, self._source_buckets, slots)
        self.sources.remove(slots)

    def add(
        self,
        batch: Metrics,
        rows: npt.NDArray[np.intp],
        keys: npt.NDArray[np.uint64],
        targets: I32,
        metric: npt.NDArray[np.void],
        now_unix_nano: int,
        now_s: float,
    ) -> dict[str, int]:
        """Fold ``rows`` of the batch's points. Returns points that were not added, by reason.

        ``keys`` (n, 2) are their sources', ``targets`` (n,) accumulators for sources not seen before, ``metric`` (n,) their metric rows.
        """
        lost: dict[str, int] = {}
        values = batch.table("points").rows[rows]
        finite = (metric["type"] != METRIC_SUM) | (values["value_kind"] == _INT) | np.isfinite(values["double_value"])
        if not finite.all():  # one NaN would be in the sum for ever
            lost["not_finite"] = int(np.count_nonzero(~finite))
            rows, keys, targets, metric = rows[finite], keys[finite], targets[finite], metric[finite]
        slots, is_new = self.sources.insert(keys)
        held = slots >= 0
        if not held.all():
            lost["state_full"] = int(np.count_nonzero(~held))
            rows, slots, is_new, targets, metric = rows[held], slots[held], is_new[held], targets[held], metric[held]
            keys = keys[held]
        source = self.sources.column
        fresh = slots[is_new]
        source("accumulator")[fresh] = targets[is_new]
        source("set")[fresh] = -1
        was_new = np.zeros(len(source("start")), bool)
        was_new[fresh] = True
        source("seen")[slots] = now_s
        points = batch.table("points").rows[rows]

        order = np.lexsort((points["time"], slots))
        slots, points, metric, keys = slots[order], points[order], metric[order], keys[order]
        late = ~was_new[slots] & (points["time"] <= source("time")[slots])
        repeated = np.zeros(len(slots), bool)
        repeated[:-1] = (slots[:-1] == slots[1:]) & (points["time"][:-1] == points["time"][1:])
        ignored = late | repeated
        if ignored.any():
            lost["out_of_order"] = int(np.count_nonzero(ignored))
            slots, points, metric, keys = slots[~ignored], points[~ignored], metric[~ignored], keys[~ignored]
        if not len(slots):
            return lost
        first = np.ones(len(slots), bool)
        first[1:] = slots[1:] != slots[:-1]
        unseen = first & was_new[slots]
        cumulative = metric["temporality"] == TEMPORALITY_CUMULATIVE
        full = self._first_in_full(points["start_time"], now_unix_nano)
        if len(self.ended):
            ended = self.ended.find(keys)
            full &= (ended < 0) | (points["start_time"] > self.ended.column("time")[ended])
        target = source("accumulator")[slots]
        started_anew = points["start_time"] != _previous(points["start_time"], source("start")[slots], first)

        numbers = metric["type"] == METRIC_SUM
        if numbers.any():
            self._add_numbers(slots, points, metric, numbers, first, unseen, full, cumulative, started_anew, target)
        gauges = metric["type"] == METRIC_GAUGE
        if gauges.any():
            self._add_gauges(points[gauges], target[gauges])
        histograms = metric["type"] == METRIC_HISTOGRAM
        if histograms.any():
            chosen = np.flatnonzero(histograms)
            self._add_histograms(batch.wire, chosen, slots, points, first, unseen, full, cumulative, started_anew, target)
        last = np.ones(len(slots), bool)
        last[:-1] = slots[1:] != slots[:-1]
        source("start")[slots[last]] = points["start_time"][last]
        source("time")[slots[last]] = points["time"][last]
        accumulator = self.accumulators.column
        accumulator("touched")[target] = 1
        accumulator("seen")[target] = now_s
        return lost

    def _first_in_full(self, start: npt.NDArray[np.uint64], now_unix_nano: int) -> Mask:
        """Rule 2: whether a source seen for the first time counts with its whole value."""
        if self._initial != "auto":
            return np.full(len(start), self._initial == "full")
        return start >= np.uint64(max(self._start, now_unix_nano - self._state_ttl_ns, 1))

    def _add_numbers(
        self,
        slots: I32,
        points: npt.NDArray[np.void],
        metric: npt.NDArray[np.void],
        numbers: Mask,
        first: Mask,
        unseen: Mask,
        full: Mask,
        cumulative: Mask,
        started_anew: Mask,
        target: I32,
    ) -> None:
        """Sums. Ints and doubles have an accumulator each, so that ints stay exact."""
        source, accumulator = self.sources.column, self.accumulators.column
        monotonic = metric["monotonic"] != 0
        is_int = points["value_kind"] == _INT
        values: dict[str, npt.NDArray[Any]] = {
            "int": np.where(is_int, points["int_value"], 0),
            "double": np.where(is_int, 0.0, points["double_value"]),
        }
        before = {name: _previous(value, source(name)[slots], first) for name, value in values.items()}
        fell = np.where(
            (before["double"] == 0) & is_int, values["int"] < before["int"], sum(values.values()) < before["int"] + before["double"]
        )
        # Whole value: delta, a restarted source, a new one that began after us; its gain otherwise. A sum of latest values (not
        # monotonic) starts each source at nothing and follows it up and down.
        whole = ~cumulative | (monotonic & ((unseen & full) | (~unseen & (started_anew | fell))))
        nothing = cumulative & monotonic & unseen & ~full
        for name, value in values.items():
            base = np.where(whole | (unseen & ~monotonic), 0, before[name])
            gain = np.where(nothing, 0, value - base).astype(value.dtype)
            np.add.at(accumulator(name), target[numbers], gain[numbers])
        accumulator("is_double")[target[numbers & (~is_int | (before["double"] != 0))]] = 1
        accumulator("monotonic")[target[numbers & cumulative & ~monotonic]] = _LATEST
        last = np.ones(len(slots), bool)
        last[:-1] = slots[1:] != slots[:-1]
        keep = last & numbers
        for name, value in values.items():
            source(name)[slots[keep]] = value[keep]

    def _add_gauges(self, points: npt.NDArray[np.void], target: I32) -> None:
        """The value with the latest time."""
        accumulator = self.accumulators.column
        order = np.lexsort((points["time"], target))
        points, target = points[order], target[order]
        last = np.ones(len(target), bool)
        last[:-1] = target[1:] != target[:-1]
        points, target = points[last], target[last]
        newer = points["time"] >= accumulator("time")[target]
        points, target = points[newer], target[newer]
        is_int = points["value_kind"] == _INT
        accumulator("int")[target] = np.where(is_int, points["int_value"], 0)
        accumulator("double")[target] = np.where(is_int, 0.0, points["double_value"])
        accumulator("is_double")[target] = ~is_int
        accumulator("time")[target] = points["time"]

    def _add_histograms(
        self,
        wire: bytes,
        chosen: npt.NDArray[np.intp],
        slots: I32,
        points: npt.NDArray[np.void],
        first: Mask,
        unseen: Mask,
        full: Mask,
        cumulative: Mask,
        started_anew: Mask,
        target: I32,
    ) -> None:
        """Counts, sums and buckets. Points whose bounds are not their accumulator's count into +Inf."""
        source, accumulator = self.sources.column, self.accumulators.column
        slots, points, first, unseen, full = slots[chosen], points[chosen], first[chosen], unseen[chosen], full[chosen]
        cumulative, started_anew, target = cumulative[chosen], started_anew[chosen], target[chosen]
        sets = self._sets_of(wire, points)
        before_set = _previous(sets, source("set")[slots], first)
        counts = points["count"]
        has_sum = (points["present"] & PRESENT_SUM != 0) & np.isfinite(points["sum"])
        sums = np.where(has_sum, points["sum"], 0.0)
        before_count = _previous(counts, source("count")[slots], first)
        before_sum = _previous(sums, source("sum")[slots], first)
        whole = ~cumulative | (unseen & full) | (~unseen & (started_anew | (counts < before_count)))
        rebounded = ~whole & ~unseen & (sets != before_set)  # the gain has no buckets: what was before had others
        nothing = cumulative & unseen & ~full
        gain_count = np.where(nothing, np.uint64(0), counts - np.where(whole, np.uint64(0), before_count))
        gain_sum = np.where(nothing, 0.0, sums - np.where(whole, 0.0, before_sum))
        np.add.at(accumulator("count"), target, gain_count)
        np.add.at(accumulator("sum"), target, gain_sum)
        accumulator("lacks_sum")[target[~has_sum]] = 1
        ranged = points["present"] & (PRESENT_MIN | PRESENT_MAX) == PRESENT_MIN | PRESENT_MAX
        accumulator("lacks_range")[target[cumulative | ~ranged]] = 1
        np.minimum.at(accumulator("min"), target[ranged], points["min"][ranged])
        np.maximum.at(accumulator("max"), target[ranged], points["max"][ranged])
        unset = accumulator("set")[target] < 0
        accumulator("set")[target[unset]] = sets[unset]
        fresh = np.unique(target[unset])
        for set_ in np.unique(accumulator("set")[fresh]).tolist():
            these = fresh[accumulator("set")[fresh] == set_]
            accumulator("row")[these] = self._accumulator_buckets[set_].allocate(len(these))
        last = np.ones(len(slots), bool)
        last[:-1] = slots[1:] != slots[:-1]
        stored = source("set")[slots], source("row")[slots]
        for set_ in np.unique(sets).tolist():
            here = np.flatnonzero(sets == set_)
            self._add_buckets(wire, set_, here, slots, points, first, whole, nothing, rebounded, target, last, gain_count, stored)
        source("count")[slots[last]] = counts[last]
        source("sum")[slots[last]] = sums[last]

    def _add_buckets(
        self,
        wire: bytes,
        set_: int,
        here: npt.NDArray[np.intp],
        slots: I32,
        points: npt.NDArray[np.void],
        first: Mask,
        whole: Mask,
        nothing: Mask,
        rebounded: Mask,
        target: I32,
        last: Mask,
        gain_count: npt.NDArray[np.uint64],
        stored: tuple[I32, I32],
    ) -> None:
        """Bucket counts of the points ``here``, which share one set of bounds; ``stored`` are set and row of each point's source."""
        source, accumulator = self.sources.column, self.accumulators.column
        store, sums = self._source_buckets[set_], self._accumulator_buckets[set_]
        had, row = stored[0][here], stored[1][here]
        same = (accumulator("set")[target[here]] == set_) & ~rebounded[here]
        keep = last[here]
        keepers = slots[here[keep]]
        if store.width:
            at = points["buckets"][here][:, None] + np.arange(store.width * 8)
            counts = np.ascontiguousarray(np.frombuffer(wire, np.uint8)[at]).view("<u8")
            before = store.counts[np.where(had == set_, row, 0)]
            inside = ~first[here]
            previous = np.flatnonzero(inside)
            before[previous] = counts[previous - 1]  # the rows of one source follow each other
            gain = np.where(whole[here][:, None], counts, counts - np.minimum(before, counts))
            gain[nothing[here]] = 0
            np.add.at(sums.counts, accumulator("row")[target[here][same]], gain[same])
        moved = had[keep] != set_
        old_sets, old_rows = had[keep][moved], row[keep][moved]
        source("row")[keepers[moved]] = store.allocate(int(np.count_nonzero(moved)))
        source("set")[keepers[moved]] = set_
        if store.width:
            store.counts[source("row")[keepers]] = counts[keep]
        for old in np.unique(old_sets[old_sets >= 0]).tolist():
            self._source_buckets[old].release(old_rows[old_sets == old])
        if not same.all():
            other = here[~same]
            for other_set in np.unique(accumulator("set")[target[other]]).tolist():
                into = other[accumulator("set")[target[other]] == other_set]
                wide = self._accumulator_buckets[other_set]
                if wide.width:
                    np.add.at(wide.counts, (accumulator("row")[target[into]], wide.width - 1), gain_count[into])
            self.inexact_bounds += len(other)

    def _sets_of(self, wire: bytes, points: npt.NDArray[np.void]) -> I32:
        """(n,) number of each point's set of bounds."""
        fits = points["buckets_len"] == points["bounds_len"] + 8
        lengths = np.where(fits, points["bounds_len"], 0).astype(np.int32)
        codes, first = dictionary(wire, np.where(lengths > 0, points["bounds"], -1).astype(np.int32), lengths)
        numbers = np.empty(len(first) + 2, np.int32)
        for code, row in enumerate(first.tolist()):
            start = int(points["bounds"][row])
            numbers[code] = self._set(wire[start : start + int(lengths[row])], int(lengths[row]) // 8 + 1)
        numbers[-1], numbers[-2] = self._set(b"", 0), self._set(b"", 1)
        return numbers[np.where(codes >= 0, codes, np.where(fits, len(first), len(first) + 1))]

    def _set(self, bounds: bytes, width: int) -> int:
        """The number of these bounds; of no bounds at all where there is no room for more of them."""
        number = self._sets.get((bounds, width))
        if number is not None:
            return number
        if bounds and (width > _BOUNDS_MAX + 1 or self.is_full):
            return self._set(b"", 0)
        values = np.frombuffer(bounds, "<f8")
        if self._free_sets:
            number = self._free_sets.pop()
            self._source_buckets[number], self._accumulator_buckets[number] = _Buckets(values, width), _Buckets(values, width)
        else:
            number = len(self._source_buckets)
            self._source_buckets.append(_Buckets(values, width))
            self._accumulator_buckets.append(_Buckets(values, width))
        self._sets[bounds, width] = number
        if bounds:
            self._bounds_bytes += _SET_BYTES + 3 * len(bounds)
        return number

    # Giving points.

    def flush(self, now_unix_nano: int, now_s: float, stale_after_s: float) -> Metrics | None:
        """Everything the accumulators have to say now; None for nothing. Times increase from flush to flush."""
        now = max(now_unix_nano, self._last_flush + 1_000_000)
        builder = MetricsBuilder()
        scopes: dict[tuple[Attributes, tuple[str, str, Attributes]], int] = {}
        wrote = False
        for family in self._families:
            slots = np.array(family.slots, np.int32)
            column = self.accumulators.column
            due = np.ones(len(slots), bool)
            if family.temporality == TEMPORALITY_DELTA:
                due = column("touched")[slots] != 0
            elif family.type == METRIC_GAUGE or (family.type == METRIC_SUM and not family.monotonic):
                due = column("seen")[slots] >= now_s - stale_after_s
            if not due.any():
                continue
            scope = scopes.get((family.resource, family.scope))
            if scope is None:
                scope = scopes[family.resource, family.scope] = builder.scope(builder.resource(family.resource), *family.scope)
            codes = np.flatnonzero(due).astype(np.int32)
            self._write(builder, scope, family, slots[due], (codes, family.attributes), now)
            wrote = True
        self._last_flush = now
        return builder.build() if wrote else None

    def _write(
        self, builder: MetricsBuilder, scope: int, family: Family, slots: I32, attributes: tuple[I32, list[Attributes]], now: int
    ) -> None:
        column = self.accumulators.column
        count = len(slots)
        is_delta = family.temporality == TEMPORALITY_DELTA
        times = np.full(count, now, np.uint64)
        starts = np.full(count, self._last_flush, np.uint64) if is_delta else column("start")[slots]
        if family.type == METRIC_HISTOGRAM:
            self._write_histograms(builder, scope, family, slots, attributes, times, starts)
        else:
            doubles = column("is_double")[slots] != 0
            for chosen in (doubles, ~doubles):
                if not chosen.any():
                    continue
                some = slots[chosen]
                is_double = bool(doubles[chosen][0])
                values = column("double")[some] + column("int")[some] if is_double else column("int")[some]
                codes = (attributes[0][chosen], attributes[1])
                if family.type == METRIC_GAUGE:
                    builder.gauge(
                        scope, family.name, times=times[chosen], values=values, attributes=codes, unit=family.unit,
                        description=family.description,
                    )  # fmt: skip
                else:
                    builder.sum(
                        scope, family.name, temporality=family.temporality, monotonic=family.monotonic, times=times[chosen],
                        start_times=starts[chosen], values=values, attributes=codes, unit=family.unit, description=family.description,
                    )  # fmt: skip
        if is_delta:
            for name in ("int", "double", "count", "sum", "touched", "lacks_sum", "lacks_range"):
                column(name)[slots] = 0
            column("min")[slots], column("max")[slots] = np.inf, -np.inf

    def _write_histograms(
        self,
        builder: MetricsBuilder,
        scope: int,
        family: Family,
        slots: I32,
        attributes: tuple[I32, list[Attributes]],
        times: npt.NDArray[np.uint64],
        starts: npt.NDArray[np.uint64],
    ) -> None:
        column = self.accumulators.column
        sets, lacks = column("set")[slots], column("lacks_sum")[slots] != 0
        for set_ in np.unique(sets[sets >= 0]).tolist():
            chosen = sets == set_
            if chosen.any():
                store, some = self._accumulator_buckets[set_], slots[chosen]
                no_range = column("lacks_range")[some] != 0
                rows = column("row")[some]
                builder.histogram(
                    scope, family.name, temporality=family.temporality, times=times[chosen], start_times=starts[chosen],
                    counts=column("count")[some], sums=np.ma.array(column("sum")[some], mask=lacks[chosen]),
                    bucket_counts=store.counts[rows],
                    mins=np.ma.array(column("min")[some], mask=no_range), maxs=np.ma.array(column("max")[some], mask=no_range),
                    bounds=store.bounds, attributes=(attributes[0][chosen], attributes[1]), unit=family.unit,
                    description=family.description,
                )  # fmt: skip
                if family.temporality == TEMPORALITY_DELTA:
                    store.counts[rows] = 0


def _previous(values: npt.NDArray[Any], stored: npt.NDArray[Any], first: Mask) -> npt.NDArray[Any]:
    """What each row's source had before it: the row above, or what is stored."""
    shifted = np.empty_like(values)
    shifted[1:] = values[:-1]
    shifted[:1] = values[:1]
    return np.where(first, stored, shifted)
