"""Histograms with bounds: equal bounds add up, others are merged at the bounds that both share, and counted.

See docs/reference/cardinality.md, rule 5.

A written histogram keeps the bounds of its first source. A count in a bucket that it does not have goes up to the next
bound that both share, at last into +Inf: cumulative counts at shared bounds stay exact, at other bounds they are too
small, never too large.
"""

from typing import Final

import numpy as np

from collector.model import KeyTable
from collector.model.arrays import F64, I32, Records
from collector.model.checkpoint import CheckpointError, Part, Parts, nested, within
from collector.wire.hash import dictionary
from processors.cardinality._histograms import add_histograms, bounds_of, wrong_buckets
from processors.cardinality.row_pool import RowPool

__all__ = ["Histograms", "bucket_places", "set_bucket_places"]

_SET_BYTES: Final = 512  # about what the objects of one set of bounds take
_BOUNDS_MAX: Final = 4096  # of a histogram; of one with more only count and sum are kept
_NO_BUCKETS: Final = (b"", 0)
_MAPPINGS_MAX: Final = 4096  # pairs of sets of bounds whose mapping is cached


def bucket_places(sources: KeyTable, slots: I32) -> tuple[I32, I32]:
    """(set, row) of the buckets of each source, (-1, -1) before it has any; kept where sums have their value."""
    pairs = sources.column("value")[slots].view(np.int32).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def set_bucket_places(sources: KeyTable, slots: I32, number: int, rows: I32) -> None:
    """Set what ``bucket_places`` returns."""
    pairs = np.column_stack((np.full(len(rows), number, np.int32), rows))
    sources.column("value")[slots] = pairs.view(np.int64)[:, 0]


class Histograms:
    """Buckets of sources and of accumulators, in one pool of rows for each set of bounds."""

    def __init__(self, sources: KeyTable, accumulators: KeyTable) -> None:
        self._sources, self._accumulators = sources, accumulators
        self._set_numbers: dict[tuple[bytes, int], int] = {}
        """(bounds as bytes, number of buckets) → number of the set of bounds."""
        self._free_numbers: list[int] = []
        self._keys: list[tuple[bytes, int]] = []
        self.bounds: list[F64] = []
        self.source_pools: list[RowPool] = []
        self.accumulator_pools: list[RowPool] = []
        self._mappings: dict[tuple[int, int], tuple[I32, bool]] = {}
        self._bounds_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Memory of buckets and bounds."""
        return self._bounds_bytes + sum(pool.size_bytes for pool in (*self.source_pools, *self.accumulator_pools))

    def add(self, wire: bytes, points: Records, updates: Records, *, may_grow: bool) -> int:
        """Add the gains of updates; returns how many are not counted in every bucket they belong to."""
        sets = self._sets_of(wire, points, updates, may_grow=may_grow)
        self._choose_sets(updates["accumulator"], sets)
        old_sets, old_rows = bucket_places(self._sources, updates["source"])
        rows = old_rows.copy()
        moves = np.flatnonzero(updates["is_last"] & updates["is_cumulative"] & (old_sets != sets))
        for set_ in np.unique(sets[moves]).tolist():
            into_set = moves[sets[moves] == set_]
            rows[into_set] = self.source_pools[set_].allocate(len(into_set))
        inexact = add_histograms(
            wire,
            points,
            updates,
            sets,
            rows,
            self.source_pools,
            self.accumulator_pools,
            self._mapping,
            self._sources.records,
            self._accumulators.records,
        )
        left = moves[old_sets[moves] >= 0]
        for set_ in np.unique(old_sets[left]).tolist():
            self.source_pools[set_].release(old_rows[left[old_sets[left] == set_]])
        return inexact

    def _choose_sets(self, target: I32, sets: I32) -> None:
        """Accumulators that have no set of bounds get that of their first update."""
        column, row = self._accumulators.column("set"), self._accumulators.column("row")
        unset = (target >= 0) & (column[target] < 0)
        if unset.any():
            first = target[unset][::-1]
            column[first] = sets[unset][::-1]
            chosen = np.unique(first)
            for set_ in np.unique(column[chosen]).tolist():
                with_set = chosen[column[chosen] == set_]
                row[with_set] = self.accumulator_pools[set_].allocate(len(with_set))

    def _mapping(self, set_: int, into: int) -> tuple[I32, bool]:
        """Into which bucket of ``into`` each bucket of ``set_`` goes, and whether all those of ``into`` stay exact."""
        mapping = self._mappings.get((set_, into))
        if mapping is None:
            if len(self._mappings) >= _MAPPINGS_MAX:
                self._mappings.clear()
            bounds, into_bounds = self.bounds[set_], self.bounds[into]
            shared = np.intersect1d(bounds, into_bounds)
            upper = np.searchsorted(shared, bounds)  # the index of the shared bound at or above each bound
            places = np.append(np.searchsorted(into_bounds, shared), len(into_bounds))[np.append(upper, len(shared))]
            mapping = self._mappings[set_, into] = places.astype(np.int32), len(shared) == len(into_bounds)
        return mapping

    # Sets of bounds.

    def _sets_of(self, wire: bytes, points: Records, updates: Records, *, may_grow: bool) -> I32:
        """(n,) the number of the set of bounds of each update."""
        starts, lengths, fits = bounds_of(points, updates)
        codes, first = dictionary(wire, starts, lengths)
        numbers = np.empty(len(first) + 2, np.int32)
        for code, row in enumerate(first.tolist()):
            start, length = int(starts[row]), int(lengths[row])
            numbers[code] = self._set(wire[start : start + length], length // 8 + 1, may_grow=may_grow)
        numbers[-2] = self._set(b"", 1, may_grow=True)
        no_buckets = numbers[-1] = self._set(*_NO_BUCKETS, may_grow=True)
        places = np.where(codes >= 0, codes, np.where(fits, len(first), len(first) + 1))
        sets: I32 = numbers[places]
        widths = np.array([self._keys[number][1] for number in numbers.tolist()], np.int32)
        sets[wrong_buckets(wire, points, updates, widths[places])] = no_buckets
        return sets

    def _set(self, bounds: bytes, width: int, *, may_grow: bool) -> int:
        """The number of these bounds; that of no buckets at all where they are invalid or there is no room for more."""
        number = self._set_numbers.get((bounds, width))
        if number is not None:
            return number
        values = np.frombuffer(bounds, "<f8")
        if bounds and (
            width > _BOUNDS_MAX + 1 or not may_grow or not np.isfinite(values).all() or not (np.diff(values) > 0).all()
        ):
            return self._set(*_NO_BUCKETS, may_grow=True)
        source_pool, accumulator_pool = _pools(width)
        if self._free_numbers:
            number = self._free_numbers.pop()
            self.bounds[number], self._keys[number] = values, (bounds, width)
            self.source_pools[number], self.accumulator_pools[number] = source_pool, accumulator_pool
        else:
            number = len(self._keys)
            self.bounds.append(values)
            self._keys.append((bounds, width))
            self.source_pools.append(source_pool)
            self.accumulator_pools.append(accumulator_pool)
        self._set_numbers[bounds, width] = number
        if bounds:
            self._bounds_bytes += _SET_BYTES + 3 * len(bounds)
        return number

    def parts(self) -> dict[str, Part]:
        """All buckets and bounds, for a checkpoint."""
        parts: dict[str, Part] = {
            "bounds": [bounds for bounds, _ in self._keys],
            "widths": [width for _, width in self._keys],
            "free": self._free_numbers,
        }
        for number in range(len(self._keys)):
            parts |= nested(f"sources {number}", self.source_pools[number].parts())
            parts |= nested(f"accumulators {number}", self.accumulator_pools[number].parts())
        return parts

    def restore(self, parts: Parts) -> None:
        """Continue from ``parts``; nothing has been added yet.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such an object.
        """
        self._free_numbers = [int(number) for number in parts["free"]]
        self._keys = [(bounds, int(width)) for bounds, width in zip(parts["bounds"], parts["widths"], strict=True)]
        self.bounds, self.source_pools, self.accumulator_pools = [], [], []
        for number, (bounds, width) in enumerate(self._keys):
            source_pool, accumulator_pool = _pools(width)
            source_pool.restore(within(f"sources {number}", parts))
            accumulator_pool.restore(within(f"accumulators {number}", parts))
            self.bounds.append(np.frombuffer(bounds, "<f8"))
            self.source_pools.append(source_pool)
            self.accumulator_pools.append(accumulator_pool)
            if number not in self._free_numbers:
                self._set_numbers[bounds, width] = number
                self._bounds_bytes += (_SET_BYTES + 3 * len(bounds)) if bounds else 0
        if not set(self._free_numbers) <= set(range(len(self._keys))):
            raise CheckpointError("a free set of bounds is unknown")

    def release_sources(self, slots: I32) -> None:
        """Release the buckets of sources that are forgotten."""
        sets, rows = bucket_places(self._sources, slots)
        for set_ in np.unique(sets[sets >= 0]).tolist():
            self.source_pools[set_].release(rows[sets == set_])

    def release_accumulators(self, slots: I32) -> None:
        """Release the buckets of accumulators that are forgotten."""
        sets, rows = self._accumulators.column("set")[slots], self._accumulators.column("row")[slots]
        for set_ in np.unique(sets[sets >= 0]).tolist():
            self.accumulator_pools[set_].release(rows[sets == set_])

    def release_sets(self) -> None:
        """Forget sets of bounds that are not in use any more."""
        for (bounds, width), number in list(self._set_numbers.items()):
            if bounds and not self.source_pools[number].used and not self.accumulator_pools[number].used:
                del self._set_numbers[bounds, width]
                self._bounds_bytes -= _SET_BYTES + 3 * len(bounds)
                self._free_numbers.append(number)
                self._mappings = {pair: places for pair, places in self._mappings.items() if number not in pair}


def _pools(width: int) -> tuple[RowPool, RowPool]:
    """For the buckets of sources, with count and sum, and of accumulators."""
    if not 0 <= width <= _BOUNDS_MAX + 1:
        raise ValueError(f"a histogram cannot have {width} buckets")
    return RowPool(cells=(np.uint64, (2 + width,))), RowPool(counts=(np.uint64, (width,)))
