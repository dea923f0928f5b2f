"""Exponential histograms of the slots of a ``KeyTable``, filled with all observations of a batch at once.

Values are at least 0. A histogram starts at the finest scale, and its resolution is halved whenever its values span
more than ``max_size`` buckets. The position of a bucket is its index modulo ``max_size``, so nothing moves when the range
grows at either end.

Source: OpenTelemetry metrics data model, "ExponentialHistogram" (bucket i holds (base^i, base^(i+1)]); SDK
specification, "Base2 Exponential Bucket Histogram Aggregation" (maximum scale 20).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model import KeyTable
from collector.model.arrays import F64, I32, I64, U64, Array, offsets_of

__all__ = ["ExponentialColumns", "ExponentialPoints"]


_SCALE_MAX: Final = 20
SIZE_MIN: Final = 2  # any two values fit in two buckets at some scale; in one they need not (1 and 2 never do)


@dataclass(frozen=True, slots=True)
class ExponentialPoints:
    """What ``MetricsBuilder.exponential_histogram`` takes."""

    counts: I64
    zero_counts: I64
    scales: I32
    offsets: I32
    bucket_counts: U64
    """All points' buckets, one point after the other."""
    splits: I64
    """I64[n + 1]: where each point's begin."""


class ExponentialColumns:
    """The columns ``<prefix>_…`` of a table. Counts are sums of weights, which are rounded when read and never fall."""

    def __init__(self, table: KeyTable, prefix: str, max_size: int) -> None:
        """The table was made with ``columns(prefix, max_size)``; ``max_size`` below 2 means 2."""
        self._table = table
        self._prefix = prefix
        self._size = max(max_size, SIZE_MIN)

    @staticmethod
    def columns(prefix: str, max_size: int) -> dict[str, Any]:
        """The columns the table needs."""
        return {
            f"{prefix}_scale": np.int32,
            f"{prefix}_low": np.int64,
            f"{prefix}_high": np.int64,
            f"{prefix}_filled": np.bool_,
            f"{prefix}_zero": np.float64,
            f"{prefix}_buckets": (np.float64, (max(max_size, SIZE_MIN),)),
        }

    def _column(self, name: str) -> Array:
        return self._table.column(f"{self._prefix}_{name}")

    def add(self, slots: I32, values: F64, weights: F64) -> None:
        """Adds the values (finite, from 0 up), each as often as its weight says, to the histograms of ``slots``."""
        is_zero = values <= 0
        np.add.at(self._column("zero"), slots[is_zero], weights[is_zero])
        slots, values, weights = slots[~is_zero], values[~is_zero], weights[~is_zero]
        if not len(slots):
            return
        index = _finest_index(values)
        touched, row = np.unique(slots, return_inverse=True)
        low, high = np.full(len(touched), np.iinfo(np.int64).max), np.full(len(touched), np.iinfo(np.int64).min)
        np.minimum.at(low, row, index)
        np.maximum.at(high, row, index)
        scale = self._make_room(touched, low, high)
        index >>= _SCALE_MAX - scale[row]
        np.add.at(
            self._column("buckets").reshape(-1), slots.astype(np.int64) * self._size + index % self._size, weights
        )

    def _make_room(self, slots: I32, low: I64, high: I64) -> I64:
        """Widens the histograms to hold the finest indices ``low`` to ``high`` too; returns their scales."""
        filled = self._column("filled")[slots]
        before = np.where(filled, self._column("scale")[slots], _SCALE_MAX).astype(np.int64)
        old_low, old_high = self._column("low")[slots], self._column("high")[slots]
        low, high = low >> (_SCALE_MAX - before), high >> (_SCALE_MAX - before)
        low, high = np.where(filled, np.minimum(low, old_low), low), np.where(filled, np.maximum(high, old_high), high)
        halvings = np.zeros(len(slots), np.int64)
        while (too_wide := high - low >= self._size).any():
            low, high, halvings = low >> too_wide, high >> too_wide, halvings + too_wide
        coarser = np.flatnonzero(filled & (halvings > 0))
        if len(coarser):
            self._halve(slots[coarser], old_low[coarser], old_high[coarser], halvings[coarser])
        scale = before - halvings
        for name, values in (("low", low), ("high", high), ("scale", scale), ("filled", True)):
            self._column(name)[slots] = values
        return scale

    def _halve(self, slots: I32, low: I64, high: I64, halvings: I64) -> None:
        """Merges buckets, ``2 ** halvings`` into one."""
        buckets = self._column("buckets")
        index = low[:, None] + np.arange(self._size)
        rows = np.arange(len(slots))[:, None]
        counts = np.where(index <= high[:, None], buckets[slots[:, None], index % self._size], 0.0)
        merged = np.zeros((len(slots), self._size))
        np.add.at(merged, (rows, (index >> halvings[:, None]) % self._size), counts)
        buckets[slots] = merged

    def points(self, slots: I32) -> ExponentialPoints:
        """The histograms of ``slots``."""
        filled = self._column("filled")[slots]
        low, high = self._column("low")[slots], self._column("high")[slots]
        sizes = np.where(filled, high - low + 1, 0)
        splits = offsets_of(sizes)
        owner = np.repeat(np.arange(len(slots)), sizes)
        index = low[owner] + np.arange(splits[-1]) - splits[owner]
        counts = _rounded(self._column("buckets")[slots[owner], index % self._size])
        zero_counts = _rounded(self._column("zero")[slots])
        totals = zero_counts.copy()
        np.add.at(totals, owner, counts)
        return ExponentialPoints(
            counts=totals,
            zero_counts=zero_counts,
            scales=np.where(filled, self._column("scale")[slots], 0).astype(np.int32),
            offsets=np.where(filled, low, 0).astype(np.int32),
            bucket_counts=counts.astype(np.uint64),
            splits=splits,
        )


def _finest_index(values: F64) -> I64:
    """The bucket of each value at the finest scale: ceil(log2(value) · 2^20) - 1, powers of two exact."""
    mantissa, exponent = np.frexp(values)  # value = 2·mantissa · 2^(exponent - 1), 2·mantissa in [1, 2)
    within = np.ceil(np.log2(2 * mantissa) * (1 << _SCALE_MAX)).astype(np.int64)
    inner = np.clip(within, 1, 1 << _SCALE_MAX)  # rounding may not carry a value over a power of two
    index: I64 = ((exponent.astype(np.int64) - 1) << _SCALE_MAX) + np.where(mantissa == 0.5, 0, inner) - 1
    return index


def _rounded(counts: F64) -> I64:
    return np.rint(np.minimum(counts, float(2**60))).astype(np.int64)
