"""Histograms with bounds (rule 5): same bounds add; others go to the bounds both share, else into +Inf, and that is counted.

A written histogram keeps the bounds of its first source. The count of a bucket it does not have goes up to the next
bound both share: the cumulative counts at shared bounds stay exact, at others they are too small, never too large.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from collector.model import KeyTable
from collector.model.arrays import F64, I32
from collector.wire.hash import dictionary
from processors.cardinality._fold import add_histograms, bounds_of, wrong_buckets
from processors.cardinality.stores import Rows

__all__ = ["Histograms", "place", "put_place"]

_SET_BYTES: Final = 512  # what the objects of one set of bounds take, roughly
_BOUNDS_MAX: Final = 4096  # of a histogram; one with more keeps its count and sum alone
_NO_BUCKETS: Final = (b"", 0)
_MAPS_MAX: Final = 4096  # pairs of bounds whose shared ones are remembered


def place(sources: KeyTable, slots: I32) -> tuple[I32, I32]:
    """(set, row) of each source's buckets; (-1, -1) before there are any. They stand in the column that holds the value of sums."""
    pairs = sources.column("value")[slots].view(np.int32).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def put_place(sources: KeyTable, slots: I32, number: int, rows: I32) -> None:
    """Set what ``place`` reads."""
    pairs = np.column_stack((np.full(len(rows), number, np.int32), rows))
    sources.column("value")[slots] = pairs.view(np.int64)[:, 0]


class Histograms:
    """Buckets of sources and of accumulators, by set of bounds."""

    def __init__(self, sources: KeyTable, accumulators: KeyTable) -> None:
        self._sources, self._accumulators = sources, accumulators
        self._numbers: dict[tuple[bytes, int], int] = {}
        self._free: list[int] = []
        self.bounds: list[F64] = []
        self._keys: list[tuple[bytes, int]] = []
        self.source_rows: list[Rows] = []
        self.accumulator_rows: list[Rows] = []
        self._maps: dict[tuple[int, int], tuple[I32, bool]] = {}
        self._bounds_bytes = 0

    @property
    def nbytes(self) -> int:
        """Memory of buckets and bounds."""
        return self._bounds_bytes + sum(rows.nbytes for rows in (*self.source_rows, *self.accumulator_rows))

    def add(self, wire: bytes, points: npt.NDArray[np.void], lines: npt.NDArray[np.void], *, may_grow: bool) -> int:
        """Adds the gains of ``lines`` (``stores.LINE``) of ``points``; returns how many are not in every bucket they belong to."""
        sets = self._sets_of(wire, points, lines, may_grow=may_grow)
        self._accumulator_sets(lines["target"], sets)
        had, had_row = place(self._sources, lines["slot"])
        rows = had_row.copy()
        moves = np.flatnonzero(lines["last"] & lines["cumulative"] & (had != sets))
        for set_ in np.unique(sets[moves]).tolist():
            these = moves[sets[moves] == set_]
            rows[these] = self.source_rows[set_].allocate(len(these))
        inexact = add_histograms(
            wire, points, lines, sets, rows, self.source_rows, self.accumulator_rows, self._shared, self._sources.records,
            self._accumulators.records,
        )  # fmt: skip
        left = moves[had[moves] >= 0]
        for set_ in np.unique(had[left]).tolist():
            self.source_rows[set_].release(had_row[left[had[left] == set_]])
        return inexact

    def _accumulator_sets(self, target: I32, sets: I32) -> None:
        """An accumulator that has no set of bounds takes that of its first line."""
        column, row = self._accumulators.column("set"), self._accumulators.column("row")
        unset = (target >= 0) & (column[target] < 0)
        if unset.any():
            first = target[unset][::-1]
            column[first] = sets[unset][::-1]
            fresh = np.unique(first)
            for set_ in np.unique(column[fresh]).tolist():
                these = fresh[column[fresh] == set_]
                row[these] = self.accumulator_rows[set_].allocate(len(these))

    def _shared(self, set_: int, into: int) -> tuple[I32, bool]:
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

    # Sets of bounds.

    def _sets_of(
        self, wire: bytes, points: npt.NDArray[np.void], lines: npt.NDArray[np.void], *, may_grow: bool
    ) -> I32:
        """(n,) number of each line's set of bounds."""
        starts, lengths, fits = bounds_of(points, lines)
        codes, first = dictionary(wire, starts, lengths)
        numbers = np.empty(len(first) + 2, np.int32)
        for code, row in enumerate(first.tolist()):
            start, length = int(starts[row]), int(lengths[row])
            numbers[code] = self._set(wire[start : start + length], length // 8 + 1, may_grow=may_grow)
        none = numbers[-1] = self._set(*_NO_BUCKETS, may_grow=True)
        numbers[-2] = self._set(b"", 1, may_grow=True)
        places = np.where(codes >= 0, codes, np.where(fits, len(first), len(first) + 1))
        sets: I32 = numbers[places]
        wrong = wrong_buckets(
            wire, points, lines, np.array([self._keys[number][1] for number in numbers.tolist()], np.int32)[places]
        )
        sets[wrong] = none
        return sets

    def _set(self, bounds: bytes, width: int, *, may_grow: bool) -> int:
        """The number of these bounds; of no buckets at all where they are none or there is no room for more of them."""
        number = self._numbers.get((bounds, width))
        if number is not None:
            return number
        values = np.frombuffer(bounds, "<f8")
        if bounds and (
            width > _BOUNDS_MAX + 1 or not may_grow or not np.isfinite(values).all() or not (np.diff(values) > 0).all()
        ):
            return self._set(*_NO_BUCKETS, may_grow=True)
        store = Rows(cells=(np.uint64, (2 + width,)))  # count, sum and buckets
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
