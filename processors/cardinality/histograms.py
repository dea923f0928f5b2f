"""Histograms with bounds (rule 5): same bounds add; others go to the bounds both share, else into +Inf, and that is counted.

A written histogram keeps the bounds of its first source. The count of a bucket it does not have goes up to the next bound both share: the
cumulative counts at shared bounds stay exact, at others they are too small, never too large.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from collector.model import PRESENT_MAX, PRESENT_MIN, PRESENT_SUM, KeyTable
from collector.wire.hash import dictionary
from processors.cardinality.stores import I32, U64, Lines, Mask, Rows, add_rows, previous

__all__ = ["Histograms", "add_totals", "place", "put_place", "totals_of"]

_SET_BYTES: Final = 512  # what the objects of one set of bounds take, roughly
_BOUNDS_MAX: Final = 4096  # of a histogram; one with more keeps its count and sum alone
_NO_BUCKETS: Final = (b"", 0)
_MAPS_MAX: Final = 4096  # pairs of bounds whose shared ones are remembered


def place(sources: KeyTable, slots: I32) -> tuple[I32, I32]:
    """(set, row) of each source's buckets; (-1, -1) before there are any. They stand in the column that holds the value of sums."""
    pairs = sources.column("value").view(np.int32).reshape(-1, 2)[slots]
    return pairs[:, 0], pairs[:, 1]


def put_place(sources: KeyTable, slots: I32, sets: I32 | int, rows: I32 | int) -> None:
    """Set what ``place`` reads."""
    pairs = sources.column("value").view(np.int32).reshape(-1, 2)
    pairs[slots, 0], pairs[slots, 1] = sets, rows


class Histograms:
    """Buckets of sources and of accumulators, by set of bounds."""

    def __init__(self, sources: KeyTable, accumulators: KeyTable) -> None:
        self._sources, self._accumulators = sources, accumulators
        self._numbers: dict[tuple[bytes, int], int] = {}
        self._free: list[int] = []
        self.bounds: list[npt.NDArray[np.float64]] = []
        self._keys: list[tuple[bytes, int]] = []
        self.source_rows: list[Rows] = []
        self.accumulator_rows: list[Rows] = []
        self._maps: dict[tuple[int, int], tuple[I32, bool]] = {}
        self._bounds_bytes = 0

    @property
    def nbytes(self) -> int:
        """Memory of buckets and bounds."""
        return self._bounds_bytes + sum(rows.nbytes for rows in (*self.source_rows, *self.accumulator_rows))

    def add(self, wire: bytes, lines: Lines, *, may_grow: bool) -> int:
        """Adds the gains of ``lines``; returns how many of them are not in every bucket they belong to."""
        sources, points = self._sources, lines.points
        sets = self._sets_of(wire, points, may_grow=may_grow)
        stored_set, stored_row = place(sources, lines.slots)
        target = lines.target
        own = self._accumulator_sets(target, sets)
        counts = points["count"]
        before_count, before_sum = self._before(lines, stored_set, stored_row)
        has_sum, sums = totals_of(points)
        before_count, before_sum = previous(counts, before_count, lines.first), previous(sums, before_sum, lines.first)
        whole = (~lines.cumulative) | (lines.fresh & lines.full) | lines.overwrites
        whole |= ~lines.fresh & (lines.started_anew | (counts < before_count))
        adds = (target >= 0) & ~(lines.cumulative & lines.fresh & ~lines.full & ~lines.overwrites)
        inexact = np.zeros(len(target), bool)
        gains = []
        # Where the series has its name nothing is added: the line's own bounds do to remember it.
        space = np.where(target >= 0, own, sets)
        for set_ in np.unique(space[adds]).tolist():
            here = np.flatnonzero((space == set_) & adds)
            now, now_inexact = self._project(wire, points[here], sets[here], set_)
            stored = self._stored(stored_set[here], stored_row[here], set_)
            above = here - 1
            inside = ~lines.first[here]
            if inside.any():
                stored[inside] = self._project(wire, points[above[inside]], sets[above[inside]], set_)[0]
            fell = ~whole[here] & ~lines.fresh[here] & (now < stored).any(axis=1)
            earlier_set = np.where(inside, sets[above], stored_set[here])
            rebounded = fell & (sets[here] != earlier_set) & (sets[here] != set_)
            anew = fell & ~rebounded
            anew &= sets[here] == earlier_set
            lost = fell & ~anew
            whole[here[anew]] = True  # a bucket that fell is a restart, whatever the count says
            gain = now - np.where(whole[here][:, None], np.uint64(0), stored)
            if lost.any():
                gain[lost] = 0
                gain[lost, -1:] = (counts - before_count)[here[lost]][:, None]
            inexact[here] = now_inexact | lost
            gains.append((set_, here, gain))
        for set_, here, gain in gains:
            rows = self._accumulators.column("row")[target[here]]
            add_rows(self.accumulator_rows[set_]["counts"], rows, gain)
        base_count, base_sum = np.where(whole, np.uint64(0), before_count), np.where(whole, 0.0, before_sum)
        add_totals(self._accumulators, lines.take(adds), (counts - base_count)[adds], (sums - base_sum)[adds], has_sum[adds])
        self._remember(wire, lines, sets, sums)
        return int(np.count_nonzero(inexact & adds))

    def _accumulator_sets(self, target: I32, sets: I32) -> I32:
        """(n,) the set of each line's accumulator; one that has none takes the line's."""
        column, row = self._accumulators.column("set"), self._accumulators.column("row")
        unset = (target >= 0) & (column[target] < 0)
        if unset.any():
            first = target[unset][::-1]
            column[first] = sets[unset][::-1]
            fresh = np.unique(first)
            for set_ in np.unique(column[fresh]).tolist():
                these = fresh[column[fresh] == set_]
                row[these] = self.accumulator_rows[set_].allocate(len(these))
        return np.where(target >= 0, column[target], -1).astype(np.int32)

    def _before(self, lines: Lines, sets: I32, rows: I32) -> tuple[U64, npt.NDArray[np.float64]]:
        """Stored count and sum of each line's source."""
        counts, sums = np.zeros(len(sets), np.uint64), np.zeros(len(sets))
        for set_ in np.unique(sets[sets >= 0]).tolist():
            here = sets == set_
            counts[here] = self.source_rows[set_]["count"][rows[here]]
            sums[here] = self.source_rows[set_]["sum"][rows[here]]
        return counts, sums

    def _project(self, wire: bytes, points: npt.NDArray[np.void], sets: I32, into: int) -> tuple[U64, Mask]:
        """(n, width) bucket counts of ``points`` in the buckets of the set ``into``, and which are not exact there."""
        width = self._keys[into][1]
        found, inexact = np.zeros((len(points), width), np.uint64), np.zeros(len(points), bool)
        for set_ in np.unique(sets).tolist():
            here = np.flatnonzero(sets == set_)
            if set_ == into:
                found[here] = self._counts(wire, points[here], set_)
                continue
            if self._keys[set_][1] == 0:
                if width:
                    found[here, -1] = points["count"][here]
                    inexact[here] = len(self.bounds[into]) > 0
                else:
                    inexact[here] = False
                continue
            places, is_exact = self._map(set_, into)
            inexact[here] = not is_exact
            found[here] = _binned(self._counts(wire, points[here], set_), places, width)
        return found, inexact

    def _stored(self, sets: I32, rows: I32, into: int) -> U64:
        """(n, width) what is stored of sources, in the buckets of ``into``."""
        width = self._keys[into][1]
        found = np.zeros((len(sets), width), np.uint64)
        for set_ in np.unique(sets[sets >= 0]).tolist():
            here = np.flatnonzero(sets == set_)
            store = self.source_rows[set_]
            if set_ == into:
                found[here] = store["counts"][rows[here]]
            elif self._keys[set_][1] == 0:
                if width:
                    found[here, -1] = store["count"][rows[here]]
            else:
                found[here] = _binned(store["counts"][rows[here]], self._map(set_, into)[0], width)
        return found

    def _counts(self, wire: bytes, points: npt.NDArray[np.void], set_: int) -> U64:
        """(n, width) the points' own bucket counts."""
        width = self._keys[set_][1]
        if not width or not len(points):
            return np.zeros((len(points), width), np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(np.frombuffer(wire, np.uint8), width * 8)
        return np.ascontiguousarray(windows[points["buckets"]]).view("<u8").astype(np.uint64, copy=False)

    def _map(self, set_: int, into: int) -> tuple[I32, bool]:
        """Where each bucket of ``set_`` goes in ``into``: up to the next bound both have; and whether ``into`` loses nothing by that."""
        known = self._maps.get((set_, into))
        if known is None:
            if len(self._maps) >= _MAPS_MAX:
                self._maps.clear()
            bounds, wanted = self.bounds[set_], self.bounds[into]
            shared = np.intersect1d(bounds, wanted)
            upper = np.searchsorted(shared, bounds)  # index of the shared bound at or above each of ours
            places = np.append(np.searchsorted(wanted, shared), len(wanted))[np.append(upper, len(shared))]
            known = self._maps[set_, into] = places.astype(np.int32), len(shared) == len(wanted)
        return known

    def _remember(self, wire: bytes, lines: Lines, sets: I32, sums: npt.NDArray[np.float64]) -> None:
        """The last counts of each source."""
        keep = np.flatnonzero(lines.last & lines.cumulative)
        slots, kept = lines.slots[keep], sets[keep]
        had, had_row = place(self._sources, slots)
        had, had_row = had.copy(), had_row.copy()
        for set_ in np.unique(kept).tolist():
            here = kept == set_
            store = self.source_rows[set_]
            moved = here & (had != set_)
            put_place(self._sources, slots[moved], set_, store.allocate(int(np.count_nonzero(moved))))
            rows = place(self._sources, slots[here])[1]
            points = lines.points[keep[here]]
            store["count"][rows], store["sum"][rows] = points["count"], sums[keep[here]]
            if self._keys[set_][1]:
                store["counts"][rows] = self._counts(wire, points, set_)
        gone = (had >= 0) & (had != kept)
        for set_ in np.unique(had[gone]).tolist():
            self.source_rows[set_].release(had_row[gone & (had == set_)])

    # Sets of bounds.

    def _sets_of(self, wire: bytes, points: npt.NDArray[np.void], *, may_grow: bool) -> I32:
        """(n,) number of each point's set of bounds."""
        fits = points["buckets_len"] == points["bounds_len"] + 8
        lengths = np.where(fits, points["bounds_len"], 0).astype(np.int32)
        codes, first = dictionary(wire, np.where(lengths > 0, points["bounds"], -1).astype(np.int32), lengths)
        numbers = np.empty(len(first) + 2, np.int32)
        for code, row in enumerate(first.tolist()):
            start = int(points["bounds"][row])
            numbers[code] = self._set(wire[start : start + int(lengths[row])], int(lengths[row]) // 8 + 1, may_grow=may_grow)
        numbers[-1], numbers[-2] = self._set(*_NO_BUCKETS, may_grow=True), self._set(b"", 1, may_grow=True)
        sets: I32 = numbers[np.where(codes >= 0, codes, np.where(fits, len(first), len(first) + 1))]
        for set_ in np.unique(sets).tolist():  # buckets that do not add up to the count would break every sum they are part of
            here = np.flatnonzero(sets == set_)
            if self._keys[set_][1]:
                counts = self._counts(wire, points[here], set_)
                wrong = (counts > points["count"][here][:, None]).any(axis=1) | (counts.sum(axis=1, dtype=np.uint64) != points["count"][here])
                sets[here[wrong]] = numbers[-1]
        return sets

    def _set(self, bounds: bytes, width: int, *, may_grow: bool) -> int:
        """The number of these bounds; of no buckets at all where they are none or there is no room for more of them."""
        number = self._numbers.get((bounds, width))
        if number is not None:
            return number
        values = np.frombuffer(bounds, "<f8")
        if bounds and (width > _BOUNDS_MAX + 1 or not may_grow or not np.isfinite(values).all() or not (np.diff(values) > 0).all()):
            return self._set(*_NO_BUCKETS, may_grow=True)
        store = Rows(counts=(np.uint64, (width,)), count=np.uint64, sum=np.float64)
        sums = Rows(counts=(np.uint64, (width,)))
        if self._free:
            number = self._free.pop()
            self.bounds[number], self._keys[number] = values, (bounds, width)
            self.source_rows[number], self.accumulator_rows[number] = store, sums
        else:
            number = len(self._keys)
            self.bounds.append(values)
            self._keys.append((bounds, width))
            self.source_rows.append(store)
            self.accumulator_rows.append(sums)
        self._numbers[bounds, width] = number
        if bounds:
            self._bounds_bytes += _SET_BYTES + 3 * len(bounds)
        return number

    def release_sources(self, slots: I32) -> None:
        """Sources that are forgotten give their rows back."""
        sets, rows = place(self._sources, slots)
        for set_ in np.unique(sets[sets >= 0]).tolist():
            self.source_rows[set_].release(rows[sets == set_])

    def release_accumulators(self, slots: I32) -> None:
        """Accumulators that are forgotten give their rows back."""
        sets, rows = self._accumulators.column("set")[slots], self._accumulators.column("row")[slots]
        for set_ in np.unique(sets[sets >= 0]).tolist():
            self.accumulator_rows[set_].release(rows[sets == set_])

    def release_sets(self) -> None:
        """Bounds that nobody uses make room for others."""
        for (bounds, width), number in list(self._numbers.items()):
            if bounds and not self.source_rows[number].used and not self.accumulator_rows[number].used:
                del self._numbers[bounds, width]
                self._bounds_bytes -= _SET_BYTES + 3 * len(bounds)
                self._free.append(number)
                self._maps = {pair: places for pair, places in self._maps.items() if number not in pair}


def _binned(counts: U64, places: I32, width: int) -> U64:
    """(n, width): each column of ``counts`` added to the column ``places`` says; places never fall."""
    starts = np.flatnonzero(np.concatenate(([True], places[1:] != places[:-1])))
    found = np.zeros((len(counts), width), np.uint64)
    found[:, places[starts]] = np.add.reduceat(counts, starts, axis=1)
    return found


def totals_of(points: npt.NDArray[np.void]) -> tuple[Mask, npt.NDArray[np.float64]]:
    """Which points have a sum that is a number, and the sums, 0 elsewhere."""
    has_sum = (points["present"] & PRESENT_SUM != 0) & np.isfinite(points["sum"])
    return has_sum, np.where(has_sum, points["sum"], 0.0)


def add_totals(accumulators: KeyTable, lines: Lines, counts: U64, sums: npt.NDArray[np.float64], has_sum: Mask) -> None:
    """Counts, sums, minima and maxima, the same for both kinds of histogram.

    ``sum`` is written only while every point had one, minimum and maximum only of delta (a cumulative one would be for ever).
    """
    column, target, points = accumulators.column, lines.target, lines.points
    np.add.at(column("count"), target, counts)
    np.add.at(column("sum"), target, sums)
    column("lacks_sum")[target[~has_sum]] = 1
    ranged = points["present"] & (PRESENT_MIN | PRESENT_MAX) == PRESENT_MIN | PRESENT_MAX
    column("lacks_range")[target[lines.cumulative | ~ranged]] = 1
    np.minimum.at(column("min"), target[ranged], points["min"][ranged])
    np.maximum.at(column("max"), target[ranged], points["max"][ranged])
