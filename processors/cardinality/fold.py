"""Many sources into one series, correctly: what each source gained since its last point goes into an accumulator of ours.

Knows sources (128-bit keys of original series) and accumulators (slots of series we write), not limits or attributes.
All state is in columns; a point costs compiled or array work alone. The arithmetic of each type is in ``_fold`` and
``exponential``, what is written in ``writer``.

Rules (numbers of the processor's specification): 1 cumulative increments, 2 first sight, 3 our start, 4 delta, 5
histograms, 6 sums of latest values, 7 NO_RECORDED_VALUE, 8 slots freed, 10 time.
"""

from typing import Any, Final

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    KeyTable,
    Metrics,
)
from collector.model.arrays import F64, U8, Indices
from processors.cardinality._fold import add_numbers, take_lines
from processors.cardinality.exemplars import ExemplarPool
from processors.cardinality.exponential import ExponentialHistograms
from processors.cardinality.histograms import Histograms
from processors.cardinality.stores import (
    ACCUMULATOR,
    ADDS,
    ENDED,
    FOLDS,
    FREED,
    I32,
    I64,
    LIVE,
    NEW,
    REASONS,
    SOURCE,
    U64,
    Mask,
    chosen,
)  # fmt: skip

__all__ = ["FOLDABLE", "Fold"]

FOLDABLE: Final = (METRIC_GAUGE, METRIC_SUM, METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
_EXPONENTIAL: Final = REASONS.index("exponential")
_NS: Final = 1_000_000_000
_TOTAL_MAX: Final = 2.0**62
_NAMED_SHARE: Final = 0.5  # of the state limit, for what is remembered of named series
_ACCUMULATOR_BYTES: Final = 600  # the objects that describe a written series, roughly


class Fold:
    """Sources and accumulators."""

    def __init__(
        self,
        *,
        start_time_unix_nano: int,
        state_ttl_s: float,
        initial: str,
        state_max_bytes: int,
        exemplars: ExemplarPool,
    ) -> None:
        self.start_time_unix_nano = start_time_unix_nano
        self.accumulators_start = start_time_unix_nano
        self.last_flush = start_time_unix_nano
        self.exemplars = exemplars
        self.sources = KeyTable(SOURCE)
        self.accumulators = KeyTable(ACCUMULATOR, capacity=64)
        self.untracked = KeyTable({"time": np.uint64}, capacity=64, max_bytes=max(state_max_bytes // 16, 65_536))
        """Series that ended and of which no last value is known, and when: what they counted until then is counted."""
        self.histograms = Histograms(self.sources, self.accumulators)
        self.exponential = ExponentialHistograms(self.sources, self.accumulators)
        self._slot_bytes = self.sources.memory_bytes // len(self.sources.records)
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
        return (
            tables
            + buckets
            + self.other_bytes
            + self.exemplars.memory_bytes
            + _ACCUMULATOR_BYTES * len(self.accumulators)
        )

    @property
    def is_full(self) -> bool:
        """No source is taken that is not known."""
        return len(self.sources) >= self._source_limit()

    def may_follow(self) -> bool:
        """Whether there is room to remember the values of more named series."""
        used = (
            len(self.sources) * self._slot_bytes + self.histograms.nbytes + self.exponential.nbytes + self.other_bytes
        )
        return used < _NAMED_SHARE * self._state_max_bytes

    def _source_limit(self) -> int:
        """How many sources there may be: the table doubles as long as the state then has room for it."""
        capacity = len(self.sources.records)
        room = self._state_max_bytes - self.state_bytes
        if room <= 0:
            return len(self.sources)
        limit = capacity
        while (2 * limit - capacity) * self._slot_bytes <= room:
            limit *= 2
        return limit

    # What is known of sources.

    def follows(self, sources: I32) -> tuple[Mask, Mask]:
        """(n,) of source slots (-1: unknown): those with an accumulator, and those that stay in overflow (that or freed)."""
        known = sources >= 0
        has_accumulator = known & (self.sources.column("accumulator")[sources] >= 0)
        return has_accumulator, has_accumulator | (known & (self.sources.column("status")[sources] == FREED))

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
        self._stop(keys, sources, now_unix_nano, ENDED)

    def free(self, keys: U64, now_unix_nano: int, now_s: float) -> None:
        """Rule 8: these series lost their name; what they gain from here on is folded."""
        sources = self.sources.find(keys)
        self._stop(keys, sources, now_unix_nano, FREED)
        self.sources.column("seen")[sources[sources >= 0]] = now_s

    def demote(self, accumulators: I32, now_s: float) -> None:
        """Rule 8 for series that we write: their sources go on in overflow."""
        if not len(accumulators):
            return
        live = self.sources.live()
        theirs = live[np.isin(self.sources.column("accumulator")[live], accumulators)]
        column = self.sources.column
        column("accumulator")[theirs], column("status")[theirs], column("seen")[theirs] = -1, FREED, now_s
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
        kinds = self.sources.column("kind")[gone]
        self.histograms.release_sources(gone[kinds == METRIC_HISTOGRAM])
        self.exponential.release_sources(gone[kinds == METRIC_EXPONENTIAL_HISTOGRAM])
        self.sources.remove(gone)
        ended = self.untracked.live()
        self.untracked.remove(
            ended[self.untracked.column("time")[ended] + np.uint64(self._state_ttl_ns) < now_unix_nano]
        )
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

    # Taking points.

    def add(
        self, batch: Metrics, rows: Indices, keys: U64, slots: I32, targets: I32, own_name: Mask, now_unix_nano: int,
        now_s: float,
    ) -> tuple[U8, dict[str, int]]:  # fmt: skip
        """Fold ``rows`` of the batch's points, or follow them.

        Args:
            batch: The original points.
            rows: Rows of its points, ascending.
            keys: (points, 2) the sources of all points of the batch.
            slots: (n,) the slots of the rows' sources, -1: it is not known; overwritten with those they get.
            targets: (n,) the accumulator for sources that have none; -1: the series has its name, its value is
                remembered.
            own_name: (n,) the accumulator writes under the name the source had until now.
            now_unix_nano: Wall clock.
            now_s: Monotonic clock.

        Returns:
            (n,) why a row was not taken (index of ``REASONS``; of followed rows nobody need know), and how many were
            taken inexactly.
        """
        points, metrics = batch.table("points").rows, batch.table("metrics").rows
        reasons = np.zeros(len(rows), np.uint8)
        exponential = metrics["type"] == METRIC_EXPONENTIAL_HISTOGRAM
        if exponential.any():
            mine = np.flatnonzero(exponential[points["parent"][rows]])
            reasons[mine[~self.exponential.valid(batch.wire, chosen(points, rows[mine]))]] = _EXPONENTIAL
        unknown = np.flatnonzero(slots < 0)
        fresh = slots[unknown]
        if len(unknown):
            slots[unknown], is_new = self.sources.insert(keys[rows[unknown]], limit=max(self._source_limit(), 1))
            fresh = slots[unknown[is_new]]
        lines = take_lines(
            points, metrics, rows, slots, targets, own_name.view(np.uint8), self.sources.records, self.accumulators.records, reasons,
            full_from=self._full_from(now_unix_nano), never_full=self._initial == "zero", ended=self._ended(keys, rows), now_s=now_s,
        )  # fmt: skip
        self.sources.remove(fresh[self.sources.column("status")[fresh] == NEW])  # of which nothing is known after all
        inexact: dict[str, int] = {}
        if len(lines):
            inexact["integer_overflow"] = add_numbers(
                points, metrics, lines, self.sources.records, self.accumulators.records
            )
            kinds = lines["kind"]
            if (histograms := kinds == METRIC_HISTOGRAM).any():
                may_grow = self.state_bytes < self._state_max_bytes
                inexact["bounds"] = self.histograms.add(
                    batch.wire, points, chosen(lines, histograms), may_grow=may_grow
                )
            if (exponentials := kinds == METRIC_EXPONENTIAL_HISTOGRAM).any():
                self.exponential.add(batch.wire, points, chosen(lines, exponentials))
        return reasons, inexact

    def _full_from(self, now_unix_nano: int) -> int:
        """Rule 2: a source seen for the first time counts with its whole value if it started then or later."""
        return 0 if self._initial == "full" else max(self.start_time_unix_nano, now_unix_nano - self._state_ttl_ns, 1)

    def _ended(self, keys: U64, rows: Indices) -> U64 | None:
        """(n,) when each source ended of which no last value is known, 0: it did not; None: none did."""
        if not len(self.untracked):
            return None
        slots = self.untracked.find(keys[rows])
        return np.where(slots >= 0, self.untracked.column("time")[slots], 0).astype(np.uint64)

    # Giving values.

    def latest(self, now_s: float, stale_after_s: float) -> tuple[I64, F64, Mask, Mask]:
        """Rule 6, by accumulator slot: int and double part of what live sources say now, whether it is a double, and is."""
        size = len(self.accumulators.column("fold"))
        ints, doubles = np.zeros(size, np.int64), np.zeros(size)
        is_double, due = np.zeros(size, bool), np.zeros(size, bool)
        fold = self.accumulators.column("fold")
        live = self.sources.live()
        target = self.sources.column("accumulator")[live]
        status, seen = self.sources.column("status")[live], self.sources.column("seen")[live]
        mine = (target >= 0) & (fold[target] > ADDS) & (status == LIVE) & (seen >= now_s - stale_after_s)
        live, target = live[mine], target[mine]
        due[target] = True
        bits, flag = self.sources.column("value")[live], self.sources.column("is_double")[live] != 0
        values: Any = np.where(flag, bits.view(np.float64), bits.astype(np.float64))
        np.logical_or.at(is_double, target, flag)
        for number, name in enumerate(FOLDS):
            here = fold[target] == number
            if name and here.any():
                _LATEST[name](
                    target[here],
                    values[here],
                    bits[here],
                    flag[here],
                    self.sources.column("time")[live[here]],
                    ints,
                    doubles,
                    is_double,
                )
        return ints, doubles, is_double, due


def _latest_sum(
    target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any
) -> None:
    del times
    reached = np.zeros(len(ints))
    np.add.at(reached, target[~flag], np.abs(values[~flag]))
    wide = reached >= _TOTAL_MAX  # would leave 64 bits: as doubles
    is_double |= wide
    whole = ~flag & ~wide[target]
    np.add.at(ints, target[whole], bits[whole])
    np.add.at(doubles, target[~whole], values[~whole])


def _latest_of(
    last: Any, target: Any, values: Any, bits: Any, flag: Any, ints: Any, doubles: Any, is_double: Any
) -> None:
    """The line ``last`` of each target is its value."""
    target, values, bits, flag = target[last], values[last], bits[last], flag[last]
    ints[target], doubles[target], is_double[target] = np.where(flag, 0, bits), np.where(flag, values, 0.0), flag


def _ends(target: Any) -> Any:
    return np.append(target[1:] != target[:-1], True)


def _latest_last(
    target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any
) -> None:
    order = np.lexsort((times, target))
    _latest_of(order[_ends(target[order])], target, values, bits, flag, ints, doubles, is_double)


def _latest_max(
    target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any
) -> None:
    del times
    order = np.lexsort((np.where(flag, 0, bits), values, target))  # ints beyond 2^53 by themselves
    _latest_of(order[_ends(target[order])], target, values, bits, flag, ints, doubles, is_double)


def _latest_min(
    target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any
) -> None:
    del times
    order = np.lexsort((np.where(flag, 0, bits), values, target))
    _latest_of(
        order[np.append(True, target[order][1:] != target[order][:-1])],
        target,
        values,
        bits,
        flag,
        ints,
        doubles,
        is_double,
    )


def _latest_mean(
    target: Any, values: Any, bits: Any, flag: Any, times: Any, ints: Any, doubles: Any, is_double: Any
) -> None:
    del times, bits, flag, ints
    count = np.bincount(target, minlength=len(doubles))
    np.add.at(doubles, target, values)
    some = count > 0
    doubles[some] /= count[some]
    is_double |= some


_LATEST: Final = {
    "sum": _latest_sum,
    "last": _latest_last,
    "max": _latest_max,
    "min": _latest_min,
    "mean": _latest_mean,
}
