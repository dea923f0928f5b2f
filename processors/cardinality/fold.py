"""Many sources into one series, correctly: what each source gained since its last point goes into an accumulator of ours.

Knows sources (128-bit keys of original series) and accumulators (slots of series we write), not limits or attributes. All state is in
columns; a point costs array work alone. The arithmetic of each type is in ``sums``, ``histograms`` and ``exponential``, what is written in
``writer``.

Rules (numbers of the processor's specification): 1 cumulative increments, 2 first sight, 3 our start, 4 delta, 5 histograms,
6 sums of latest values, 7 NO_RECORDED_VALUE, 8 slots freed, 10 time.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    TEMPORALITY_DELTA,
    KeyTable,
    Metrics,
)
from processors.cardinality.exemplars import ExemplarPool
from processors.cardinality.exponential import ExponentialHistograms
from processors.cardinality.histograms import Histograms, put_place
from processors.cardinality.stores import I32, I64, U64, Lines, Mask, previous
from processors.cardinality.sums import add_sums, remember_values

__all__ = ["ADDS", "FOLDABLE", "FOLDS", "REASONS", "Fold"]

FOLDABLE: Final = (METRIC_GAUGE, METRIC_SUM, METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
FOLDS: Final = ("", "last", "sum", "max", "min", "mean")
"""What an accumulator's column ``fold`` means: 0 adds up, the others are made of the latest values of live sources."""
ADDS: Final = 0
REASONS: Final = ("", "not_finite", "out_of_range", "exponential", "state_full", "out_of_order")
"""Why a point was not folded."""
_NOT_FINITE, _OUT_OF_RANGE, _EXPONENTIAL, _STATE_FULL, _OUT_OF_ORDER = range(1, 6)
_INT: Final = 1
_NS: Final = 1_000_000_000
_LIVE, _ENDED, _FREED = 0, 1, 2  # the column "status" of sources
_COUNT_MAX: Final = np.uint64(1 << 48)  # observations of one histogram point; more are no measurement, and their sums could wrap
_TOTAL_MAX: Final = 2.0**62
_NAMED_SHARE: Final = 0.5  # of the state limit, for what is remembered of named series
_ACCUMULATOR_BYTES: Final = 600  # the objects that describe a written series, roughly


class Fold:
    """Sources and accumulators."""

    def __init__(self, *, start_time_unix_nano: int, state_ttl_s: float, initial: str, state_max_bytes: int, exemplars: ExemplarPool) -> None:
        self.start_time_unix_nano = start_time_unix_nano
        self.accumulators_start = start_time_unix_nano
        self.last_flush = start_time_unix_nano
        self.exemplars = exemplars
        self.sources = KeyTable(
            {"accumulator": np.int32, "status": np.uint8, "is_double": np.uint8, "start": np.uint64, "time": np.uint64, "value": np.int64,
             "seen": np.float32, "mark": np.int32},
        )  # fmt: skip
        self.accumulators = KeyTable(
            {"int": np.int64, "double": np.float64, "is_double": np.uint8, "seen": np.float64, "touched": np.uint8, "fold": np.uint8,
             "count": np.uint64, "sum": np.float64, "lacks_sum": np.uint8, "set": np.int32, "row": np.int32, "kind": np.uint8,
             "start": np.uint64, "min": np.float64, "max": np.float64, "lacks_range": np.uint8},
            capacity=64,
        )  # fmt: skip
        self.untracked = KeyTable({"time": np.uint64}, capacity=64, max_bytes=max(state_max_bytes // 16, 65_536))
        """Series that ended and of which no last value is known, and when: what they counted until then is counted."""
        self.histograms = Histograms(self.sources, self.accumulators)
        self.exponential = ExponentialHistograms(self.sources, self.accumulators)
        self._slot_bytes = self.sources.memory_bytes // len(self.sources.column("start"))
        self.other_bytes = 0
        """Memory of what else belongs to the state: first points of named series, sketches."""
        self.configure(state_ttl_s=state_ttl_s, initial=initial, state_max_bytes=state_max_bytes)

    def configure(self, *, state_ttl_s: float, initial: str, state_max_bytes: int) -> None:
        """Other settings for the same state (a reload)."""
        self._state_ttl_ns, self._initial, self._state_max_bytes = int(state_ttl_s * _NS), initial, state_max_bytes

    @property
    def state_bytes(self) -> int:
        """Memory of sources, accumulators, their buckets and exemplars."""
        tables = self.sources.memory_bytes + self.accumulators.memory_bytes + self.untracked.memory_bytes
        buckets = self.histograms.nbytes + self.exponential.nbytes
        return tables + buckets + self.other_bytes + self.exemplars.memory_bytes + _ACCUMULATOR_BYTES * len(self.accumulators)

    @property
    def is_full(self) -> bool:
        """No source is taken that is not known."""
        return len(self.sources) >= self._source_limit()

    def may_follow(self) -> bool:
        """Whether there is room to remember the values of more named series."""
        used = len(self.sources) * self._slot_bytes + self.histograms.nbytes + self.exponential.nbytes + self.other_bytes
        return used < _NAMED_SHARE * self._state_max_bytes

    def _source_limit(self) -> int:
        """How many sources there may be: the table doubles as long as the state then has room for it."""
        capacity = len(self.sources.column("start"))
        room = self._state_max_bytes - self.state_bytes
        if room <= 0:
            return len(self.sources)
        limit = capacity
        while (2 * limit - capacity) * self._slot_bytes <= room:
            limit *= 2
        return limit

    # What is known of sources.

    def follows(self, sources: I32) -> tuple[Mask, Mask]:
        """(n,) of source slots (-1: unknown): those with an accumulator, and those that stay in overflow (with one, or their slot freed)."""
        known = sources >= 0
        has_accumulator = known & (self.sources.column("accumulator")[sources] >= 0)
        return has_accumulator, has_accumulator | (known & (self.sources.column("status")[sources] == _FREED))

    def new_accumulator(self, slot: int, *, kind: int, fold: int) -> None:
        """Begin the accumulator just inserted: ``kind`` is its METRIC type, ``fold`` an index of ``FOLDS``."""
        column = self.accumulators.column
        column("set")[slot] = -1
        column("kind")[slot], column("fold")[slot] = kind, fold
        column("start")[slot] = self.accumulators_start
        column("min")[slot], column("max")[slot] = np.inf, -np.inf

    def end(self, keys: U64, sources: I32, now_unix_nano: int) -> None:
        """Rule 7: these series said NO_RECORDED_VALUE. Their accumulators keep what they had; sums of latest values lose it.

        Start and last value are kept: should one come back under its old start time, only what it gained is added.
        """
        self._stop(keys, sources, now_unix_nano, _ENDED)

    def free(self, keys: U64, now_unix_nano: int, now_s: float) -> None:
        """Rule 8: these series lost their name; what they gain from here on is folded."""
        sources = self.sources.find(keys)
        self._stop(keys, sources, now_unix_nano, _FREED)
        self.sources.column("seen")[sources[sources >= 0]] = now_s

    def demote(self, accumulators: I32, now_s: float) -> None:
        """Rule 8 for series that we write: their sources go on in overflow."""
        if not len(accumulators):
            return
        live = self.sources.live()
        theirs = live[np.isin(self.sources.column("accumulator")[live], accumulators)]
        column = self.sources.column
        column("accumulator")[theirs], column("status")[theirs], column("seen")[theirs] = -1, _FREED, now_s
        self.remove_accumulators(accumulators)

    def _stop(self, keys: U64, sources: I32, now_unix_nano: int, status: int) -> None:
        known = sources >= 0
        self.sources.column("status")[sources[known]] = status
        if not known.all():
            slots, _ = self.untracked.insert(keys[~known])
            self.untracked.column("time")[slots[slots >= 0]] = now_unix_nano

    def expire(self, now_s: float, now_unix_nano: int, *, ttl_s: float, window_s: float) -> I32:
        """Forget sources that have been silent for ``ttl_s``. Returns accumulators without news for ``window_s``: theirs to remove."""
        live = self.sources.live()
        gone = live[now_s - self.sources.column("seen")[live] > ttl_s]
        kinds = self._kinds(gone)
        self.histograms.release_sources(gone[kinds == METRIC_HISTOGRAM])
        self.exponential.release_sources(gone[kinds == METRIC_EXPONENTIAL_HISTOGRAM])
        self.sources.remove(gone)
        ended = self.untracked.live()
        self.untracked.remove(ended[self.untracked.column("time")[ended] + np.uint64(self._state_ttl_ns) < now_unix_nano])
        target = self.sources.column("accumulator")[self.sources.live()]
        used = np.zeros(len(self.accumulators.column("seen")), bool)
        used[target[target >= 0]] = True
        accumulators = self.accumulators.live()
        return accumulators[(now_s - self.accumulators.column("seen")[accumulators] > window_s) & ~used[accumulators]]

    def remove_accumulators(self, slots: I32) -> None:
        """Forget accumulators that no source has."""
        # A series written anew begins where the old one was written last, so that nobody takes one for the other.
        self.accumulators_start = max(self.accumulators_start, self.last_flush)
        kinds = self.accumulators.column("kind")[slots]
        self.histograms.release_accumulators(slots[kinds == METRIC_HISTOGRAM])
        self.exponential.release_accumulators(slots[kinds == METRIC_EXPONENTIAL_HISTOGRAM])
        self.accumulators.remove(slots)
        self.exemplars.drop(slots)
        self.histograms.release_sets()

    def _kinds(self, sources: I32) -> npt.NDArray[np.uint8]:
        """The METRIC type of each source; kept in the high bits of the column ``is_double``."""
        kinds: npt.NDArray[np.uint8] = self.sources.column("is_double")[sources] >> 1
        return kinds

    # Taking points.

    def add(
        self, batch: Metrics, rows: npt.NDArray[np.intp], keys: U64, targets: I32, own_name: Mask, metric: npt.NDArray[np.void],
        now_unix_nano: int, now_s: float,
    ) -> tuple[npt.NDArray[np.uint8], dict[str, int]]:  # fmt: skip
        """Fold ``rows`` of the batch's points, or follow them.

        Args:
            batch: The original points.
            rows: Rows of its points, ascending.
            keys: (n, 2) their sources.
            targets: (n,) the accumulator for sources that have none; -1: the series has its name, its value is remembered.
            own_name: (n,) the accumulator writes under the name the source had until now.
            metric: (n,) metric rows.
            now_unix_nano: Wall clock.
            now_s: Monotonic clock.

        Returns:
            (n,) why a row was not taken (index of ``REASONS``; of followed rows nobody need know), and how many were taken inexactly.
        """
        reasons = np.zeros(len(rows), np.uint8)
        points = batch.table("points").rows[rows]
        reasons[self._uncountable(points, metric)] = _OUT_OF_RANGE
        reasons[self._unusable(points, metric, targets)] = _NOT_FINITE
        exponential = np.flatnonzero((reasons == 0) & (metric["type"] == METRIC_EXPONENTIAL_HISTOGRAM))
        if len(exponential):
            reasons[exponential[~self.exponential.valid(batch.wire, points[exponential])]] = _EXPONENTIAL
        at = np.flatnonzero(reasons == 0)
        slots, is_new = self.sources.insert(keys[at], limit=max(self._source_limit(), 1))
        held = slots >= 0
        reasons[at[~held]] = _STATE_FULL
        lines = self._lines(at[held], slots[held], is_new[held], rows, points, metric, targets, own_name, now_unix_nano, now_s, keys, reasons)
        inexact: dict[str, int] = {}
        if lines is None:
            return reasons, inexact
        source = self.sources.column
        kinds = lines.metric["type"]
        for kind in np.unique(kinds).tolist():
            mine = lines if (kinds == kind).all() else lines.take(kinds == kind)
            if kind == METRIC_HISTOGRAM:
                may_grow = self.state_bytes < self._state_max_bytes
                inexact["bounds"] = self.histograms.add(batch.wire, mine, may_grow=may_grow)
            elif kind == METRIC_EXPONENTIAL_HISTOGRAM:
                self.exponential.add(batch.wire, mine)
            elif kind == METRIC_SUM:
                inexact["integer_overflow"] = add_sums(self.sources, self.accumulators, mine)
            else:
                remember_values(self.sources, mine)
            flags = source("is_double")
            flags[mine.slots] = (flags[mine.slots] & 1) | (kind << 1)
        last = lines.last
        source("start")[lines.slots[last]] = lines.points["start_time"][last]
        source("time")[lines.slots[last]] = lines.points["time"][last]
        target = lines.target[lines.target >= 0]
        self.accumulators.column("touched")[target] = 1
        self.accumulators.column("seen")[target] = now_s
        return reasons, inexact

    def _unusable(self, points: npt.NDArray[np.void], metric: npt.NDArray[np.void], targets: I32) -> Mask:
        """Numbers that are none: one NaN would be in a sum for ever. A gauge's latest value may be one."""
        numbers = (metric["type"] == METRIC_SUM) | ((metric["type"] == METRIC_GAUGE) & (self.accumulators.column("fold")[targets] > 1))
        return numbers & (points["value_kind"] != _INT) & ~np.isfinite(points["double_value"])

    def _uncountable(self, points: npt.NDArray[np.void], metric: npt.NDArray[np.void]) -> Mask:
        """Histogram points with more observations than there can be."""
        histograms = (metric["type"] == METRIC_HISTOGRAM) | (metric["type"] == METRIC_EXPONENTIAL_HISTOGRAM)
        return histograms & (points["count"] > _COUNT_MAX)

    def _lines(
        self, at: npt.NDArray[np.intp], slots: I32, is_new: Mask, rows: npt.NDArray[np.intp], points: npt.NDArray[np.void],
        metric: npt.NDArray[np.void], targets: I32, own_name: Mask, now_unix_nano: int, now_s: float, keys: U64,
        reasons: npt.NDArray[np.uint8],
    ) -> Lines | None:  # fmt: skip
        """The lines to add, ordered; those that come too late get their reason. Sources have their accumulators afterwards."""
        source = self.sources.column
        fresh_slots = slots[is_new]
        source("accumulator")[fresh_slots] = -1
        histograms = np.isin(metric["type"][at[is_new]], (METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM))
        put_place(self.sources, fresh_slots[histograms], -1, -1)
        was_new = np.zeros(len(slots), bool)
        if len(fresh_slots):
            marked = source("mark")
            marked[slots] = 0
            marked[fresh_slots] = 1
            was_new = marked[slots] == 1
        source("seen")[slots] = now_s
        times = points["time"][at]
        ordered = self._in_order(slots)
        order = ordered if ordered is not None else np.lexsort((times, slots))
        at, slots, was_new, times = at[order], slots[order], was_new[order], times[order]
        ignored = ~was_new & (times <= source("time")[slots])
        if ordered is None:
            repeated = np.zeros(len(slots), bool)
            repeated[:-1] = (slots[:-1] == slots[1:]) & (times[:-1] == times[1:])
            ignored |= repeated
        reasons[at[ignored]] = _OUT_OF_ORDER
        given = targets[at]
        before = source("accumulator")[slots]
        target = np.where(before >= 0, before, given).astype(np.int32)
        self._bound_totals(target, points[at], metric[at], ignored, reasons, at)
        if ignored.any():
            keep = ~ignored
            if len(orphans := np.setdiff1d(slots[was_new & ignored], slots[keep])):
                self.sources.remove(orphans)  # of which nothing is known after all
            at, slots, was_new, target, before = at[keep], slots[keep], was_new[keep], target[keep], before[keep]
        if not len(at):
            return None
        lines = Lines()
        lines.slots, lines.rows, lines.points, lines.metric, lines.target = slots, rows[at], points[at], metric[at], target
        lines.first, lines.last = np.ones(len(slots), bool), np.ones(len(slots), bool)
        if ordered is None:
            lines.first[1:] = slots[1:] != slots[:-1]
            lines.last[:-1] = lines.first[1:]
        lines.fresh = lines.first & was_new
        lines.cumulative = lines.metric["temporality"] != TEMPORALITY_DELTA
        lines.overwrites = lines.first & ~was_new & (before < 0) & own_name[at] & (source("status")[slots] != _FREED) & lines.cumulative
        lines.full = self._first_in_full(lines.points["start_time"], keys[at], now_unix_nano)
        lines.started_anew = lines.points["start_time"] != previous(lines.points["start_time"], source("start")[slots], lines.first)
        source("accumulator")[slots] = target
        source("status")[slots] = _LIVE
        return lines

    def _in_order(self, slots: I32) -> npt.NDArray[np.intp] | None:
        """The rows as they are if no source stands twice, which is the commonest case; else None."""
        mark = self.sources.column("mark")
        numbers = np.arange(len(slots), dtype=np.int32)
        mark[slots] = numbers
        return numbers.astype(np.intp) if (mark[slots] == numbers).all() else None

    def _bound_totals(
        self, target: I32, points: npt.NDArray[np.void], metric: npt.NDArray[np.void], ignored: Mask, reasons: npt.NDArray[np.uint8],
        at: npt.NDArray[np.intp],
    ) -> None:  # fmt: skip
        """An accumulator whose count would leave 64 bits takes no more: its points are dropped and counted, never wrapped."""
        mine = np.isin(metric["type"], (METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)) & (target >= 0) & ~ignored
        if not mine.any():
            return
        held = self.accumulators.column("count")
        reached = np.zeros(len(held))
        np.add.at(reached, target[mine], points["count"][mine].astype(np.float64))
        over = mine & ((held.astype(np.float64) + reached)[target] >= _TOTAL_MAX)
        reasons[at[over]] = _OUT_OF_RANGE
        ignored |= over

    def _first_in_full(self, start: U64, keys: U64, now_unix_nano: int) -> Mask:
        """Rule 2: whether a source seen for the first time counts with its whole value."""
        full = np.full(len(start), self._initial == "full")
        if self._initial == "auto":
            full = start >= np.uint64(max(self.start_time_unix_nano, now_unix_nano - self._state_ttl_ns, 1))
        if len(self.untracked):
            ended = self.untracked.find(keys)
            full &= (ended < 0) | (start > self.untracked.column("time")[ended])
        return full

    # Giving values.

    def latest(self, now_s: float, stale_after_s: float) -> tuple[I64, npt.NDArray[np.float64], Mask, Mask]:
        """Rule 6, by accumulator slot: int and double part of what the live sources say now, whether it is a double, whether there is one."""
        size = len(self.accumulators.column("fold"))
        ints, doubles = np.zeros(size, np.int64), np.zeros(size)
        is_double, due = np.zeros(size, bool), np.zeros(size, bool)
        fold = self.accumulators.column("fold")
        live = self.sources.live()
        target = self.sources.column("accumulator")[live]
        status, seen = self.sources.column("status")[live], self.sources.column("seen")[live]
        mine = (target >= 0) & (fold[target] > ADDS) & (status == _LIVE) & (seen >= now_s - stale_after_s)
        live, target = live[mine], target[mine]
        due[target] = True
        bits, flag = self.sources.column("value")[live], self.sources.column("is_double")[live] & 1 != 0
        values: Any = np.where(flag, bits.view(np.float64), bits.astype(np.float64))
        np.logical_or.at(is_double, target, flag)
        for number, name in enumerate(FOLDS):
            here = fold[target] == number
            if name and here.any():
                _LATEST[name](
                    target[here], values[here], bits[here], flag[here], self.sources.column("time")[live[here]], ints, doubles, is_double
                )
        return ints, doubles, is_double, due


def _latest_sum(target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any) -> None:
    del times
    reached = np.zeros(len(ints))
    np.add.at(reached, target[~flag], np.abs(values[~flag]))
    wide = reached >= _TOTAL_MAX  # would leave 64 bits: as doubles
    is_double |= wide
    whole = ~flag & ~wide[target]
    np.add.at(ints, target[whole], bits[whole])
    np.add.at(doubles, target[~whole], values[~whole])


def _latest_of(last: Any, target: Any, values: Any, bits: Any, flag: Any, ints: Any, doubles: Any, is_double: Any) -> None:
    """The line ``last`` of each target is its value."""
    target, values, bits, flag = target[last], values[last], bits[last], flag[last]
    ints[target], doubles[target], is_double[target] = np.where(flag, 0, bits), np.where(flag, values, 0.0), flag


def _ends(target: Any) -> Any:
    return np.append(target[1:] != target[:-1], True)


def _latest_last(target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any) -> None:
    order = np.lexsort((times, target))
    _latest_of(order[_ends(target[order])], target, values, bits, flag, ints, doubles, is_double)


def _latest_max(target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any) -> None:
    del times
    order = np.lexsort((np.where(flag, 0, bits), values, target))  # ints beyond 2^53 by themselves
    _latest_of(order[_ends(target[order])], target, values, bits, flag, ints, doubles, is_double)


def _latest_min(target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any) -> None:
    del times
    order = np.lexsort((np.where(flag, 0, bits), values, target))
    _latest_of(order[np.append(True, target[order][1:] != target[order][:-1])], target, values, bits, flag, ints, doubles, is_double)


def _latest_mean(target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any) -> None:
    del times, bits, flag, ints
    count = np.bincount(target, minlength=len(doubles))
    np.add.at(doubles, target, values)
    some = count > 0
    doubles[some] /= count[some]
    is_double |= some


_LATEST: Final = {"sum": _latest_sum, "last": _latest_last, "max": _latest_max, "min": _latest_min, "mean": _latest_mean}
