"""Buckets of exponential histograms as entries (owner, side, index, count), whatever they come from.

They come from points, from what sources had before, and from what accumulators have. The owner is a row number of the
caller's choice. Source: OpenTelemetry metrics data model, "ExponentialHistogram" (a bucket of scale s is two of scale
s + 1; index i covers (base**i, base**(i + 1)], so an index is halved, rounded down).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model import groups
from collector.model.arrays import F64, I64, Mask, Records
from collector.otlp.exponential_buckets import first_index_above, read_varints
from collector.otlp.exponential_histogram import shifts_to_fit

__all__ = [
    "SIDES",
    "SIDE_MAX",
    "ZERO",
    "Buckets",
    "buckets_of_points",
    "dense_buckets",
]

SIDE_MAX: Final = 160  # buckets per side: the default of the SDK specification
SIDES: Final = ("positive", "negative")
ZERO: Final = 2  # the "side" of the zero bucket


@dataclass(slots=True)
class Buckets:
    """Buckets that are not empty."""

    owner: I64
    side: I64
    """0 positive, 1 negative, 2 zero."""
    index: I64
    """At the scale of the owner."""
    count: I64

    @classmethod
    def none(cls) -> "Buckets":
        """No buckets."""
        return cls(*(np.zeros(0, np.int64) for _ in range(4)))

    @classmethod
    def joined(cls, *parts: "Buckets") -> "Buckets":
        """The buckets of all parts."""
        names = ("owner", "side", "index", "count")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def take(self, mask: Mask) -> "Buckets":
        """Some of the buckets."""
        return Buckets(self.owner[mask], self.side[mask], self.index[mask], self.count[mask])

    def with_owner(self, owner: I64) -> "Buckets":
        """The same buckets with other owners."""
        return Buckets(owner, self.side, self.index, self.count)

    def lowest_index(self, owner_count: int) -> I64:
        """(owners, 2) the lowest index of each owner and side, 0 where there is none. Without zero buckets."""
        none = np.iinfo(np.int64).max
        low = np.full((owner_count, 2), none)
        np.minimum.at(low, (self.owner, self.side), self.index)
        return np.where(low == none, 0, low)

    def fit(self, owner_count: int) -> I64:
        """Make each owner's buckets coarser until a side has room for them; returns (owners,) by how many scales."""
        sides = self.take(self.side != ZERO)
        low = sides.lowest_index(owner_count)
        high = low.copy()
        np.maximum.at(high, (sides.owner, sides.side), sides.index)
        shifts = np.maximum(*(shifts_to_fit(low[:, side], high[:, side], SIDE_MAX) for side in (0, 1)))
        self.index >>= np.where(self.side == ZERO, 0, shifts[self.owner])
        return shifts

    def at_scale(self, from_scale: I64, to_scale: I64, threshold: F64) -> "Buckets":
        """The buckets at a lower scale, those below the zero threshold in the zero bucket; all arguments (owners,)."""
        index = self.index >> np.where(self.side == ZERO, 0, (from_scale - to_scale)[self.owner])
        side = self.side
        thresholds = threshold[self.owner]
        has_threshold = thresholds > 0
        if has_threshold.any():
            first_kept = np.full(len(index), np.iinfo(np.int64).min)
            scales = to_scale[self.owner][has_threshold]
            first_kept[has_threshold] = first_index_above(thresholds[has_threshold], scales)
            side = np.where(index < first_kept, ZERO, side)
        return Buckets(self.owner, side, np.where(side == ZERO, 0, index), self.count)

    def minus(self, before: "Buckets") -> "Buckets":
        """The differences by owner, side and index; those that are 0 are left out."""
        both = Buckets.joined(self, before)
        both.count[len(self.count) :] *= -1
        if not len(both.count):
            return both
        found = groups(both.owner, both.side, both.index)
        sums = np.zeros(found.count, np.int64)
        np.add.at(sums, found.codes, both.count)
        is_filled = np.flatnonzero(sums)
        first = found.first[is_filled]
        return Buckets(both.owner[first], both.side[first], both.index[first], sums[is_filled])


def buckets_of_points(wire: bytes, points: Records) -> tuple[Buckets, I64]:
    """The buckets of points, and (n,) their scales, lowered until a side has room for them."""
    parts = []
    for side, name in enumerate(SIDES):
        counts, owner, number = read_varints(wire, points[name], points[f"{name}_len"])
        index = number + points[f"{name}_offset"][owner].astype(np.int64)
        buckets = Buckets(owner, np.full(len(owner), side), index, counts.astype(np.int64))
        parts.append(buckets.take(buckets.count > 0))
    buckets = Buckets.joined(*parts, _zero_buckets(points["zero_count"].astype(np.int64)))
    return buckets, points["scale"].astype(np.int64) - buckets.fit(len(points))


def dense_buckets(counts: I64, offsets: I64, zero_counts: I64) -> Buckets:
    """The buckets of (n, 2, width) ``counts`` from ``offsets`` (n, 2) on, and of (n,) ``zero_counts``."""
    owner, side, number = (array.astype(np.int64) for array in np.nonzero(counts))
    filled = Buckets(owner, side, number + offsets[owner, side], counts[owner, side, number])
    return Buckets.joined(filled, _zero_buckets(zero_counts))


def _zero_buckets(counts: I64) -> Buckets:
    owner = np.flatnonzero(counts > 0).astype(np.int64)
    return Buckets(owner, np.full(len(owner), ZERO), np.zeros(len(owner), np.int64), counts[owner])
