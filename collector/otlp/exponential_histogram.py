"""Exponential histograms in the columns of a ``KeyTable``: one per slot, filled with all values of a batch at once.

Values are 0 or greater. The bucket of a value is computed at scale 20, the finest, and a coarser scale is that index
shifted right. So the scale of a histogram follows from its lowest and its highest index alone, and the order of the
values does not change the result. The buckets of a histogram are a ring (index modulo size): nothing is moved when the
range grows at either end.

Source: OpenTelemetry metrics data model, "ExponentialHistogram" (bucket i holds (base^i, base^(i+1)]; a bucket of scale
s is two of scale s + 1); SDK specification, "Base2 Exponential Bucket Histogram Aggregation" (scales -10 to 20).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from collector.model import KeyTable
from collector.model.arrays import F64, I32, I64, U64, Array, Mask, offsets_of

__all__ = [
    "SCALE_MAX",
    "SCALE_MIN",
    "ExponentialHistogramColumns",
    "ExponentialPoints",
    "finest_index",
    "shifts_to_fit",
]

SCALE_MIN: Final = -10
SCALE_MAX: Final = 20
_SIZE_MIN: Final = 2  # any two values fit in two buckets at some scale, but not always in one (1 and 2 never do)
_COUNT_MAX: Final = 2.0**60


@dataclass(frozen=True, slots=True)
class ExponentialPoints:
    """Some histograms in the form that ``MetricsBuilder.exponential_histogram`` takes."""

    counts: I64
    """I64[n]: values of each histogram, zeros included."""
    zero_counts: I64
    scales: I32
    """I32[n]; the finest scale where no value was greater than 0."""
    offsets: I32
    bucket_counts: U64
    """The buckets of all histograms, one histogram after the other."""
    splits: I64
    """I64[n + 1]: where the buckets of each histogram begin."""


class ExponentialHistogramColumns:
    """The columns ``<prefix>…`` of a table. Each histogram has the finest scale at which its values fit its buckets."""

    def __init__(self, table: KeyTable, prefix: str, max_size: int) -> None:
        """``table`` was made with ``columns(prefix, max_size, …)``."""
        self._table, self._prefix, self._size = table, prefix, max(max_size, _SIZE_MIN)

    @staticmethod
    def columns(prefix: str, max_size: int, count_type: type[np.int64 | np.float64]) -> dict[str, Any]:
        """The columns that the table needs.

        Args:
            prefix: The beginning of their names.
            max_size: The buckets that a histogram may have; less than 2 means 2.
            count_type: ``np.float64`` if values have fractional weights; such counts are rounded when they are read.
        """
        return {
            f"{prefix}low": np.int64,  # indices at the finest scale
            f"{prefix}high": np.int64,
            f"{prefix}shift": np.int64,  # SCALE_MAX - scale
            f"{prefix}has_buckets": np.bool_,
            f"{prefix}zero_count": count_type,
            f"{prefix}buckets": (count_type, (max(max_size, _SIZE_MIN),)),
        }

    def _column(self, name: str) -> Array:
        return self._table.column(self._prefix + name)

    def is_empty(self, slots: Array) -> Mask:
        """bool[n]: the histogram has no value."""
        empty: Mask = ~self._column("has_buckets")[slots] & (self._column("zero_count")[slots] == 0)
        return empty

    def add(self, slots: Array, values: F64, weights: Array) -> None:
        """Add each value (finite, not negative) to the histogram of its slot, as often as its weight says."""
        is_zero = values <= 0
        if is_zero.any():
            np.add.at(self._column("zero_count"), slots[is_zero], weights[is_zero])
            slots, values, weights = slots[~is_zero], values[~is_zero], weights[~is_zero]
        if not len(slots):
            return
        index = finest_index(values)
        low, high, shift, buckets = (self._column(name) for name in ("low", "high", "shift", "buckets"))
        touched = np.unique(slots)
        had_buckets = self._column("has_buckets")[touched]
        new = touched[~had_buckets]
        low[new], high[new], shift[new] = np.iinfo(np.int64).max, np.iinfo(np.int64).min, 0
        old_low, old_shift = low[touched], shift[touched]
        np.minimum.at(low, slots, index)
        np.maximum.at(high, slots, index)
        more = shifts_to_fit(low[touched] >> old_shift, high[touched] >> old_shift, self._size)
        is_coarser = (more > 0) & had_buckets
        if is_coarser.any():
            self._coarsen(touched[is_coarser], (old_low >> old_shift)[is_coarser], more[is_coarser])
        shift[touched] = old_shift + more
        self._column("has_buckets")[touched] = True
        places = slots.astype(np.int64) * self._size + (index >> shift[slots]) % self._size
        np.add.at(buckets.reshape(-1), places, weights)

    def _coarsen(self, slots: Array, low: I64, more: I64) -> None:
        """Merge buckets, ``2 ** more`` into one. ``low``: the lowest index that each histogram had."""
        buckets = self._column("buckets")
        index = low[:, None] + np.arange(self._size)  # of each place of the ring, from the lowest on
        counts = np.take_along_axis(buckets[slots], index % self._size, axis=1)
        merged = np.zeros_like(counts)
        rows = np.arange(len(slots))[:, None]
        np.add.at(merged, (rows, (index >> more[:, None]) % self._size), counts)
        buckets[slots] = merged

    def clear(self, slots: Array) -> None:
        """Empty the histograms."""
        for name in ("buckets", "zero_count", "has_buckets", "shift"):
            self._column(name)[slots] = 0

    def points(self, slots: Array) -> ExponentialPoints:
        """The histograms of ``slots``, each from its lowest bucket to its highest."""
        slots = np.asarray(slots)
        has_buckets, shift = self._column("has_buckets")[slots], self._column("shift")[slots]
        first, last = (np.where(has_buckets, self._column(name)[slots] >> shift, 0) for name in ("low", "high"))
        lengths = np.where(has_buckets, last - first + 1, 0)
        splits = offsets_of(lengths)
        owner = np.repeat(np.arange(len(slots)), lengths)
        index = (first - splits[:-1])[owner] + np.arange(splits[-1])
        counts = _whole(self._column("buckets")[slots[owner], index % self._size])
        zero_counts = _whole(self._column("zero_count")[slots])
        totals = zero_counts.copy()
        np.add.at(totals, owner, counts)
        return ExponentialPoints(
            counts=totals,
            zero_counts=zero_counts,
            scales=np.where(has_buckets, SCALE_MAX - shift, SCALE_MAX).astype(np.int32),
            offsets=first.astype(np.int32),
            bucket_counts=counts.astype(np.uint64),
            splits=splits,
        )


def finest_index(values: F64) -> I64:
    """The bucket of each value (greater than 0) at scale 20: ceil(log2(value) · 2^20) - 1; powers of two are exact."""
    mantissa, exponent = np.frexp(values)  # value = 2·mantissa · 2^(exponent - 1), 2·mantissa in [1, 2)
    within = np.ceil(np.log2(2 * mantissa) * (1 << SCALE_MAX)).astype(np.int64)
    inner = np.clip(within, 1, 1 << SCALE_MAX)  # rounding may not carry a value over a power of two
    index: I64 = ((exponent.astype(np.int64) - 1) << SCALE_MAX) + np.where(mantissa == 0.5, 0, inner) - 1
    return index


def shifts_to_fit(low: I64, high: I64, size: int) -> I64:
    """I64[n]: by how many scales indices from ``low`` to ``high`` must become coarser to fit in ``size`` buckets."""
    shifts = np.zeros(len(low), np.int64)
    while (is_too_wide := (high >> shifts) - (low >> shifts) >= size).any():
        shifts += is_too_wide
    return shifts


def _whole(counts: Array) -> I64:
    """Counts as whole numbers. Rounding keeps the order, so a count that never falls still never falls."""
    whole: I64 = counts if counts.dtype == np.int64 else np.rint(np.minimum(counts, _COUNT_MAX)).astype(np.int64)
    return whole
