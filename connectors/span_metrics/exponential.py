"""Exponential histograms of many series at once, each at the finest scale that holds its values in ``max_size`` buckets.

A value's index is computed at scale 20, the finest; coarser ones are that index shifted right, so the scale of a series
follows from its smallest and largest index alone, and no order of values changes the result. A series' buckets are a
ring: index modulo size.
Source: OpenTelemetry metrics data model, "Exponential Histogram"; buckets are (base^i, base^(i+1)].
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model import KeyTable
from collector.model.arrays import F64, I32, I64, U64, Array

__all__ = ["MAX_SCALE", "ExponentialBuckets", "Points", "index_at_max_scale"]

MAX_SCALE: Final = 20
_UNITS: Final = float(1 << MAX_SCALE)


def index_at_max_scale(values: F64) -> I64:
    """The bucket of each value > 0 at scale 20, exact for powers of two."""
    mantissas, exponents = np.frexp(values)  # in [0.5, 1)
    fractions = np.ceil(np.log2(mantissas) * _UNITS)
    index: I64 = (exponents.astype(np.int64) << MAX_SCALE) + fractions.astype(np.int64) - 1
    return index


@dataclass(frozen=True, slots=True)
class Points:
    """The buckets of some series, as a builder takes them."""

    scales: I32
    offsets: I32
    counts: U64
    """All series' buckets, one after the other."""
    splits: I64
    """I64[k+1]: where each series' buckets begin."""


class ExponentialBuckets:
    """Columns of a table that hold the buckets; all methods work on many slots."""

    def __init__(self, size: int) -> None:
        """``size``: buckets of a series at most."""
        self._size = size

    def columns(self) -> dict[str, Any]:
        """What the table needs. ``low`` and ``high`` are indices at scale 20 of what was seen; none was while ``positive`` is 0."""
        return {
            "low": np.int64,
            "high": np.int64,
            "shift": np.int64,
            "positive": np.int64,
            "ring": (np.int64, (self._size,)),
        }

    def add(self, table: KeyTable, slots: Array, values: F64, counts: I64) -> None:
        """Add each value > 0 ``counts`` times to the series of its slot."""
        if not len(slots):
            return
        index = index_at_max_scale(values)
        low, high, shift, positive = (table.column(name) for name in ("low", "high", "shift", "positive"))
        ring = table.column("ring")
        touched = np.unique(slots)
        fresh = touched[positive[touched] == 0]
        low[fresh], high[fresh], shift[fresh] = np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0
        before = low[touched].copy()
        np.minimum.at(low, slots, index)
        np.maximum.at(high, slots, index)
        wanted = self._shifts(low[touched], high[touched], shift[touched])
        coarser = (wanted != shift[touched]) & (positive[touched] > 0)
        if coarser.any():
            self._coarsen(ring, touched[coarser], before[coarser], shift[touched[coarser]], wanted[coarser])
        shift[touched] = wanted
        np.add.at(ring.reshape(-1), slots.astype(np.int64) * self._size + (index >> shift[slots]) % self._size, counts)
        np.add.at(positive, slots, counts)

    def _shifts(self, low: I64, high: I64, shift: I64) -> I64:
        """The least shifts from ``shift`` up at which low to high fit."""
        shift = shift.copy()
        while (wide := (high >> shift) - (low >> shift) >= self._size).any():
            shift[wide] += 1
        return shift

    def _coarsen(self, ring: I64, slots: Array, low: I64, shift: I64, wanted: I64) -> None:
        """Move the counts of series to a coarser scale. ``low`` from before what is being added."""
        start = (low >> shift)[:, None]
        index = start + np.arange(self._size)  # what each ring holds, from its lowest on
        counts = np.take_along_axis(ring[slots], index % self._size, axis=1)
        moved = np.zeros_like(counts)
        rows = np.arange(len(slots))[:, None]
        np.add.at(moved, (rows, (index >> (wanted - shift)[:, None]) % self._size), counts)
        ring[slots] = moved

    def clear(self, table: KeyTable, slots: Array) -> None:
        """Forget what the series have counted."""
        table.column("ring")[slots] = 0
        table.column("positive")[slots] = 0

    def points(self, table: KeyTable, slots: Array) -> Points:
        """The series' buckets from the lowest seen to the highest."""
        shift, is_empty = table.column("shift")[slots], table.column("positive")[slots] == 0
        first, last = (np.where(is_empty, 0, table.column(name)[slots] >> shift) for name in ("low", "high"))
        lengths = np.where(is_empty, 0, last - first + 1)
        splits = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        owner = np.repeat(np.arange(len(slots)), lengths)
        index = first[owner] + np.arange(splits[-1]) - splits[:-1][owner]
        counts = table.column("ring")[np.asarray(slots)[owner], index % self._size]
        return Points((MAX_SCALE - shift).astype(np.int32), first.astype(np.int32), counts.astype(np.uint64), splits)
