"""Exponential histograms: merged at the lower scale, at most 160 buckets per side, the larger zero threshold.

See docs/reference/cardinality.md, rule 5.

Each accumulator has a scale and a zero threshold. The buckets of every update are brought to them before they are
added; if an update requires a lower scale or a larger threshold, the accumulator is brought to it first.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.model import PRESENT_SUM, KeyTable
from collector.model.arrays import F64, I32, I64, U64, Indices, Mask, Records, offsets_of, take_records
from collector.model.checkpoint import Part, Parts, nested, within
from collector.otlp.exponential_buckets import first_index_above, read_varints
from collector.otlp.exponential_histogram import SCALE_MAX, SCALE_MIN
from processors.cardinality._updates import add_totals
from processors.cardinality.exponential_buckets import (
    SIDE_MAX,
    SIDES,
    ZERO,
    Buckets,
    buckets_of_points,
    dense_buckets,
)
from processors.cardinality.histograms import bucket_places, set_bucket_places
from processors.cardinality.records import previous_of_source
from processors.cardinality.row_pool import RowPool

__all__ = ["ExponentialHistograms", "WrittenBuckets"]

_WIDTHS: Final = (8, 32, SIDE_MAX)  # buckets per side that are stored of a source: one pool for each
_DOUBLE_EXPONENTS: Final = 1100.0  # binary exponents of all doubles, with some room
_EXPONENT_MAX: Final = 1023.0  # of the largest power of two


@dataclass(slots=True)
class WrittenBuckets:
    """The buckets of some accumulators: (n,) arrays, and (n, 2, 160) counts from ``offsets`` (n, 2) on."""

    scales: I32
    thresholds: F64
    zero_counts: U64
    offsets: I64
    counts: U64

    def side(self, number: int) -> tuple[I32, tuple[U64, I64]]:
        """Offsets and (counts, splits) of a side, as ``MetricsBuilder.exponential_histogram`` takes them."""
        counts = self.counts[:, number]
        filled = counts > 0
        has_buckets = filled.any(axis=1)
        begin = np.where(has_buckets, filled.argmax(axis=1), 0)
        end = np.where(has_buckets, SIDE_MAX - filled[:, ::-1].argmax(axis=1), 0)
        columns = np.arange(SIDE_MAX)
        is_inside = (columns >= begin[:, None]) & (columns < end[:, None])
        offsets = np.where(has_buckets, self.offsets[:, number] + begin, 0).astype(np.int32)
        return offsets, (counts[is_inside], offsets_of(end - begin))


@dataclass(slots=True)
class _Values:
    """Values of some histograms: points, or what their sources had before. All but ``buckets`` are (n,) arrays."""

    buckets: Buckets
    scales: I64
    thresholds: F64
    counts: U64
    sums: F64


class ExponentialHistograms:
    """Buckets of sources, in one pool for each width, and of accumulators."""

    def __init__(self, sources: KeyTable, accumulators: KeyTable) -> None:
        self._sources, self._accumulators = sources, accumulators
        self._source_pools = [
            RowPool(
                counts=(np.int64, (2, width)),
                offsets=(np.int64, (2,)),
                scale=np.int32,
                threshold=np.float64,
                zeros=np.int64,
                count=np.uint64,
                sum=np.float64,
            )
            for width in _WIDTHS
        ]
        self._pool = RowPool(
            counts=(np.uint64, (2, SIDE_MAX)),
            offsets=(np.int64, (2,)),
            scale=np.int32,
            threshold=np.float64,
            zeros=np.uint64,
        )

    @property
    def size_bytes(self) -> int:
        """Memory of all buckets."""
        return self._pool.size_bytes + sum(pool.size_bytes for pool in self._source_pools)

    def parts(self) -> dict[str, Part]:
        """All buckets, for a checkpoint."""
        parts = nested("accumulators", self._pool.parts())
        for number, pool in enumerate(self._source_pools):
            parts |= nested(f"sources {number}", pool.parts())
        return parts

    def restore(self, parts: Parts) -> None:
        """Continue from ``parts``.

        Raises:
            CheckpointError: They are not those of such an object.
        """
        self._pool.restore(within("accumulators", parts))
        for number, pool in enumerate(self._source_pools):
            pool.restore(within(f"sources {number}", parts))

    @staticmethod
    def valid(wire: bytes, points: Records) -> Mask:
        """(n,) points whose scale and indices exist and whose buckets add up to their count."""
        scales, thresholds = points["scale"], points["zero_threshold"]
        is_valid = (scales >= SCALE_MIN) & (scales <= SCALE_MAX)
        is_valid &= np.isfinite(thresholds) & (thresholds >= 0) & (points["zero_count"] <= points["count"])
        total = points["zero_count"].astype(np.float64)
        for name in SIDES:
            counts, owner, _ = read_varints(wire, points[name], points[f"{name}_len"])
            np.add.at(total, owner, counts.astype(np.float64))
            length = points[f"{name}_len"]
            reach = np.abs(points[f"{name}_offset"].astype(np.float64)) + np.where(points[name] >= 0, length, 0)
            reach_max = np.ldexp(_DOUBLE_EXPONENTS, np.clip(scales, SCALE_MIN, SCALE_MAX)) + SIDE_MAX
            is_valid &= (length == 0) | (reach <= reach_max)
        valid: Mask = is_valid & (total == points["count"].astype(np.float64))
        return valid

    def add(self, wire: bytes, points: Records, updates: Records) -> None:
        """Add the gains of ``updates`` (UPDATE records); their points, rows of ``points``, are ``valid``."""
        rows = take_records(points, updates["point"])
        buckets, scales = buckets_of_points(wire, rows)
        has_sum = (rows["present"] & PRESENT_SUM != 0) & np.isfinite(rows["sum"])
        thresholds = rows["zero_threshold"].astype(np.float64)
        now = _Values(buckets, scales, thresholds, rows["count"], np.where(has_sum, rows["sum"], 0.0))
        is_baseline = updates["is_cumulative"] & updates["is_new"] & ~updates["counts_in_full"] & ~updates["overwrites"]
        has_gain = (updates["accumulator"] >= 0) & ~is_baseline
        self._allocate(updates["accumulator"])
        if has_gain.any():
            counts, sums = self._add_buckets(updates, has_gain, now)
            add_totals(
                points,
                take_records(updates, has_gain),
                self._accumulators.records,
                counts[has_gain],
                sums[has_gain],
                has_sum[has_gain].view(np.uint8),
            )
        self._store(updates, now)

    def _add_buckets(self, updates: Records, has_gain: Mask, now: _Values) -> tuple[U64, F64]:
        """Add the gains of the buckets of those updates that have a gain; returns (n,) the gains of count and sum."""
        targets, is_new = updates["accumulator"], updates["is_new"]
        before = self._before(now, updates)
        is_whole = ~updates["is_cumulative"] | (is_new & updates["counts_in_full"]) | updates["overwrites"]
        is_whole |= ~is_new & (updates["restarted"] | (now.counts < before.counts))
        scale, threshold = self._agree(targets, has_gain, is_whole, now, before)
        added = now.buckets.take(has_gain[now.buckets.owner]).at_scale(now.scales, scale, threshold)
        subtracted = before.buckets.take((has_gain & ~is_whole)[before.buckets.owner])
        gains = added.minus(subtracted.at_scale(before.scales, scale, threshold))
        fell = np.zeros(len(updates), bool)
        fell[gains.owner[gains.count < 0]] = True  # a bucket that fell means a restart, whatever the count says
        if fell.any():
            is_whole |= fell
            gains = Buckets.joined(gains.take(~fell[gains.owner]), added.take(fell[added.owner]))
        self._accumulate(gains.with_owner(targets[gains.owner].astype(np.int64)))
        base_counts = np.where(is_whole, np.uint64(0), before.counts)
        return now.counts - base_counts, now.sums - np.where(is_whole, 0.0, before.sums)

    def written(self, slots: I32) -> WrittenBuckets:
        """The buckets of accumulators to which something was added."""
        rows, pool = self._accumulators.column("row")[slots], self._pool
        return WrittenBuckets(
            pool["scale"][rows],
            pool["threshold"][rows],
            pool["zeros"][rows],
            pool["offsets"][rows],
            pool["counts"][rows],
        )

    def clear(self, slots: I32) -> None:
        """Delta: the next interval begins empty and with the highest resolution."""
        rows = self._accumulators.column("row")[slots]
        for name in ("counts", "offsets", "zeros", "threshold"):
            self._pool[name][rows] = 0
        self._pool["scale"][rows] = SCALE_MAX

    def release_sources(self, slots: I32) -> None:
        """Release the buckets of sources that are forgotten."""
        pools, rows = bucket_places(self._sources, slots)
        for number in np.unique(pools[pools >= 0]).tolist():
            self._source_pools[number].release(rows[pools == number])

    def release_accumulators(self, slots: I32) -> None:
        """Release the buckets of accumulators that are forgotten."""
        rows = self._accumulators.column("row")[slots]
        self._pool.release(rows[self._accumulators.column("set")[slots] >= 0])

    # Accumulators.

    def _allocate(self, targets: I32) -> None:
        """Rows for accumulators that have none."""
        column = self._accumulators.column
        used = np.unique(targets[targets >= 0])
        new = used[column("set")[used] < 0]
        if len(new):
            column("set")[new] = 0
            column("row")[new] = self._pool.allocate(len(new))
            self._pool["scale"][column("row")[new]] = SCALE_MAX

    def _agree(self, targets: I32, has_gain: Mask, is_whole: Mask, now: _Values, before: _Values) -> tuple[I64, F64]:
        """(n,) scale and threshold at which each update is added: the lowest and the largest that are involved.

        Its accumulator is brought to them. A threshold of 0 means that the buckets need not be compared with it.
        """
        column, pool = self._accumulators.column, self._pool
        rows = column("row")[targets]
        old_scale, old_threshold = pool["scale"].astype(np.int64), pool["threshold"].copy()
        scale, threshold = old_scale.copy(), old_threshold.copy()
        subtracts = has_gain & ~is_whole
        for values, used in ((now, has_gain), (before, subtracts)):
            np.minimum.at(scale, rows[used], values.scales[used])
            np.maximum.at(threshold, rows[used], values.thresholds[used])
        # Only where histograms with different thresholds meet, buckets have to move into the zero bucket.
        is_mixed = np.zeros(len(scale), bool)
        for values, used in ((now, has_gain), (before, subtracts)):
            is_mixed[rows[used & (values.thresholds != threshold[rows])]] = True
        touched = column("row")[np.unique(targets[has_gain])]
        has_values = pool["zeros"][touched] + pool["counts"][touched].sum(axis=(1, 2)) > 0
        is_mixed[touched] |= (threshold[touched] != old_threshold[touched]) & has_values
        # A threshold inside a bucket is moved to the bucket's upper bound: a bucket is in the zero bucket as a whole or
        # not at all.
        moved = touched[is_mixed[touched] & (threshold[touched] > 0)]
        exponents = first_index_above(threshold[moved], scale[moved]) * np.exp2(-scale[moved].astype(np.float64))
        threshold[moved] = np.exp2(np.minimum(exponents, _EXPONENT_MAX))
        is_changed = (scale[touched] != old_scale[touched]) | (threshold[touched] != old_threshold[touched])
        if is_changed.any():
            self._rescale(touched[is_changed], scale, threshold)
        return scale[rows], np.where(is_mixed[rows], threshold[rows], 0.0)

    def _rescale(self, rows: Indices, scale: I64, threshold: F64) -> None:
        """Bring rows of the pool to ``scale`` and ``threshold`` (indexed by row)."""
        pool = self._pool
        rescaled = self._buckets_in(rows).at_scale(pool["scale"][rows].astype(np.int64), scale[rows], threshold[rows])
        pool["scale"][rows], pool["threshold"][rows] = scale[rows], threshold[rows]
        self._replace(rows, rescaled)

    def _accumulate(self, gains: Buckets) -> None:
        """Add buckets, whose owners are slots of accumulators; an accumulator's scale falls until its buckets fit."""
        slots = np.unique(gains.owner)
        if not len(slots):
            return
        rows = self._accumulators.column("row")[slots]
        added = gains.with_owner(np.searchsorted(slots, gains.owner).astype(np.int64))
        buckets = Buckets.joined(self._buckets_in(rows), added)
        self._pool["scale"][rows] -= buckets.fit(len(slots)).astype(np.int32)
        self._replace(rows, buckets)

    def _buckets_in(self, rows: Indices | I32) -> Buckets:
        """The buckets in rows of the pool; their owners are indices of ``rows``."""
        pool = self._pool
        zeros = pool["zeros"][rows].astype(np.int64)
        return dense_buckets(pool["counts"][rows].astype(np.int64), pool["offsets"][rows], zeros)

    def _replace(self, rows: Indices | I32, buckets: Buckets) -> None:
        """Replace the contents of rows by buckets that fit; their owners are indices of ``rows``."""
        pool = self._pool
        pool["counts"][rows], pool["zeros"][rows] = 0, 0
        is_zero = buckets.side == ZERO
        np.add.at(pool["zeros"], rows[buckets.owner[is_zero]], buckets.count[is_zero].astype(np.uint64))
        buckets = buckets.take(~is_zero)
        offsets = buckets.lowest_index(len(rows))
        pool["offsets"][rows] = offsets
        places = (rows[buckets.owner].astype(np.int64) * 2 + buckets.side) * SIDE_MAX
        places += buckets.index - offsets[buckets.owner, buckets.side]
        np.add.at(pool["counts"].reshape(-1), places, buckets.count.astype(np.uint64))

    # Sources.

    def _before(self, now: _Values, updates: Records) -> _Values:
        """What the source of each update had before: the values of the update above, or what is stored."""
        stored, is_first = self._stored(updates), updates["is_first"]
        is_followed = np.append(~is_first[1:], False)
        above = now.buckets.take(is_followed[now.buckets.owner])
        return _Values(
            Buckets.joined(above.with_owner(above.owner + 1), stored.buckets),
            previous_of_source(now.scales, stored.scales, is_first),
            previous_of_source(now.thresholds, stored.thresholds, is_first),
            previous_of_source(now.counts, stored.counts, is_first),
            previous_of_source(now.sums, stored.sums, is_first),
        )

    def _stored(self, updates: Records) -> _Values:
        """What is stored of the sources of first updates."""
        pools, rows = bucket_places(self._sources, updates["source"])
        n = len(pools)
        scales, thresholds = np.full(n, SCALE_MAX, np.int64), np.zeros(n)
        counts, sums = np.zeros(n, np.uint64), np.zeros(n)
        parts = [Buckets.none()]
        for number in np.unique(pools[pools >= 0]).tolist():
            at = np.flatnonzero((pools == number) & updates["is_first"])
            pool, pool_rows = self._source_pools[number], rows[at]
            buckets = dense_buckets(pool["counts"][pool_rows], pool["offsets"][pool_rows], pool["zeros"][pool_rows])
            parts.append(buckets.with_owner(at[buckets.owner].astype(np.int64)))
            scales[at], thresholds[at] = pool["scale"][pool_rows], pool["threshold"][pool_rows]
            counts[at], sums[at] = pool["count"][pool_rows], pool["sum"][pool_rows]
        return _Values(Buckets.joined(*parts), scales, thresholds, counts, sums)

    def _store(self, updates: Records, now: _Values) -> None:
        """Store the last values of cumulative sources, each in the pool with the least width that has room for it."""
        last = np.flatnonzero(updates["is_last"] & updates["is_cumulative"])
        if not len(last):
            return
        number_of = np.full(len(updates), -1, np.int64)
        number_of[last] = np.arange(len(last))
        buckets = now.buckets.take(number_of[now.buckets.owner] >= 0)
        buckets = buckets.with_owner(number_of[buckets.owner])
        is_zero = buckets.side == ZERO
        zeros = np.zeros(len(last), np.int64)
        np.add.at(zeros, buckets.owner[is_zero], buckets.count[is_zero])
        buckets = buckets.take(~is_zero)
        low = buckets.lowest_index(len(last))
        place_in_side = buckets.index - low[buckets.owner, buckets.side]
        extent = np.zeros((len(last), 2), np.int64)
        np.maximum.at(extent, (buckets.owner, buckets.side), place_in_side + 1)
        wanted = np.searchsorted(np.array(_WIDTHS), extent.max(axis=1)).astype(np.int32)
        slots = updates["source"][last]
        old_pools, old_rows = bucket_places(self._sources, slots)
        for number in np.unique(wanted).tolist():
            at = np.flatnonzero(wanted == number)
            pool, width = self._source_pools[number], _WIDTHS[number]
            moved = slots[at[old_pools[at] != number]]
            set_bucket_places(self._sources, moved, number, pool.allocate(len(moved)))
            rows = bucket_places(self._sources, slots[at])[1]
            pool["counts"][rows] = 0
            row_of = np.full(len(last), -1, np.int64)
            row_of[at] = rows
            is_here = row_of[buckets.owner] >= 0
            here = buckets.take(is_here)
            places = (row_of[here.owner] * 2 + here.side) * width + place_in_side[is_here]
            np.add.at(pool["counts"].reshape(-1), places, here.count)
            updates_at = last[at]
            pool["offsets"][rows], pool["zeros"][rows] = low[at], zeros[at]
            pool["scale"][rows], pool["threshold"][rows] = now.scales[updates_at], now.thresholds[updates_at]
            pool["count"][rows], pool["sum"][rows] = now.counts[updates_at], now.sums[updates_at]
        is_left = (old_pools >= 0) & (old_pools != wanted)
        for number in np.unique(old_pools[is_left]).tolist():
            self._source_pools[number].release(old_rows[is_left & (old_pools == number)])
