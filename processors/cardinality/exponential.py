"""Exponential histograms (rule 5): merged at the lower scale, 160 buckets a side at most, the larger zero threshold.

Buckets are entries (line, side, index, count) at the scale of their accumulator, wherever they come from: the points,
what sources had, what accumulators have. Source: OpenTelemetry metrics data model, "ExponentialHistogram" (a bucket of
scale s is two of scale s + 1; index i covers (base**i, base**(i + 1)], so the index halves, rounded down).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from collector.model import PRESENT_SUM, KeyTable, groups
from collector.model.arrays import F64, I32, I64, U64, Indices, Mask
from processors.cardinality._fold import add_totals
from processors.cardinality.histograms import place, put_place
from processors.cardinality.stores import Rows, chosen, previous

__all__ = ["ExponentialHistograms", "ExponentialPoints"]

SIDE_MAX: Final = 160  # buckets a side: the SDK specification's default
_WIDTHS: Final = (8, 32, SIDE_MAX)  # of what is remembered of sources
_ZERO: Final = 2  # the "side" of the zero bucket
_SCALE_MIN, _SCALE_MAX = -10, 20  # of the SDK specification; other scales are hostile
_EXPONENT_MAX: Final = 1023.0  # of a double's buckets; 1100 with the smallest ones and some room


@dataclass(slots=True)
class Entries:
    """Buckets that are not empty."""

    line: I64
    side: I64
    """0 positive, 1 negative, 2 zero."""
    index: I64
    count: I64

    def take(self, mask: npt.NDArray[np.generic]) -> "Entries":
        """Some of them."""
        return Entries(self.line[mask], self.side[mask], self.index[mask], self.count[mask])

    def at(self, line: I64) -> "Entries":
        """The same of other lines."""
        return Entries(line, self.side, self.index, self.count)

    @classmethod
    def joined(cls, *parts: "Entries") -> "Entries":
        """All of them."""
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("line", "side", "index", "count"))
        )


@dataclass(slots=True)
class ExponentialPoints:
    """What is written of accumulators: arrays (n,), buckets (n, 2, 160) from ``offsets`` (n, 2) on."""

    scales: I32
    thresholds: F64
    zero_counts: U64
    offsets: I64
    counts: U64

    def side(self, number: int) -> tuple[I32, tuple[U64, I64]]:
        """Offsets and (counts, splits) of a side, as ``MetricsBuilder.exponential_histogram`` takes them."""
        counts = self.counts[:, number]
        filled = counts > 0
        some = filled.any(axis=1)
        begin = np.where(some, filled.argmax(axis=1), 0)
        end = np.where(some, SIDE_MAX - filled[:, ::-1].argmax(axis=1), 0)
        columns = np.arange(SIDE_MAX)
        inside = (columns >= begin[:, None]) & (columns < end[:, None])
        splits = np.concatenate(([0], np.cumsum(end - begin)))
        return np.where(some, self.offsets[:, number] + begin, 0).astype(np.int32), (counts[inside], splits)


class ExponentialHistograms:
    """Buckets of sources, by class of width, and of accumulators."""

    def __init__(self, sources: KeyTable, accumulators: KeyTable) -> None:
        self._sources, self._accumulators = sources, accumulators
        self._source_rows = [
            Rows(counts=(np.int64, (2, width)), offsets=(np.int64, (2,)), scale=np.int32, threshold=np.float64, zeros=np.int64,
                 count=np.uint64, sum=np.float64)
            for width in _WIDTHS
        ]  # fmt: skip
        self._rows = Rows(
            counts=(np.uint64, (2, SIDE_MAX)),
            offsets=(np.int64, (2,)),
            scale=np.int32,
            threshold=np.float64,
            zeros=np.uint64,
        )

    @property
    def nbytes(self) -> int:
        """Memory of buckets."""
        return self._rows.nbytes + sum(rows.nbytes for rows in self._source_rows)

    @staticmethod
    def valid(wire: bytes, points: npt.NDArray[np.void]) -> Mask:
        """(n,) points whose buckets add up to their count, at a scale and indexes that exist."""
        found = (points["scale"] >= _SCALE_MIN) & (points["scale"] <= _SCALE_MAX)
        found &= (
            np.isfinite(points["zero_threshold"])
            & (points["zero_threshold"] >= 0)
            & (points["zero_count"] <= points["count"])
        )
        total = points["zero_count"].astype(np.float64)
        for name in ("positive", "negative"):
            values, line, _ = _varints(wire, points[name], points[f"{name}_len"])
            np.add.at(total, line, values.astype(np.float64))
            reach = np.abs(points[f"{name}_offset"].astype(np.float64)) + np.where(
                points[name] >= 0, points[f"{name}_len"], 0
            )
            found &= (points[f"{name}_len"] == 0) | (
                reach <= np.ldexp(1100.0, np.clip(points["scale"], _SCALE_MIN, _SCALE_MAX)) + 160
            )
        valid: Mask = found & (total == points["count"].astype(np.float64))
        return valid

    def add(self, wire: bytes, every: npt.NDArray[np.void], lines: npt.NDArray[np.void]) -> None:
        """Adds the gains of ``lines`` (``stores.LINE``) of the points ``every``; theirs are ``valid``."""
        points, targets = chosen(every, lines["row"]), lines["target"]
        first, fresh, full, cumulative = lines["first"], lines["fresh"], lines["full"], lines["cumulative"]
        self._allocate(targets)
        now, scales = _entries_of(wire, points)
        thresholds = points["zero_threshold"].astype(np.float64)
        has_sum = (points["present"] & PRESENT_SUM != 0) & np.isfinite(points["sum"])
        sums = np.where(has_sum, points["sum"], 0.0)
        was, was_scale, was_threshold, was_count, was_sum = self._stored(lines)
        counts = points["count"]
        before_count, before_sum = previous(counts, was_count, first), previous(sums, was_sum, first)
        whole = ~cumulative | (fresh & full) | lines["overwrites"]
        whole |= ~fresh & (lines["started_anew"] | (counts < before_count))
        adds = (targets >= 0) & ~(cumulative & fresh & ~full & ~lines["overwrites"])
        if adds.any():
            # What each line's source had before it: the entries of the line above, or what is stored.
            follows = np.append(~first[1:], False)
            above = now.take(follows[now.line])
            before = Entries.joined(above.at(above.line + 1), was)
            before_scale = previous(scales, was_scale, first)
            before_threshold = previous(thresholds, was_threshold, first)
            scale, threshold = self._agree(targets, adds, whole, scales, before_scale, thresholds, before_threshold)
            mine = _moved(now.take(adds[now.line]), scales, scale, threshold)
            base = _moved(before.take((adds & ~whole)[before.line]), before_scale, scale, threshold)
            gains = _difference(mine, base)
            fell = np.zeros(len(counts), bool)
            fell[gains.line[gains.count < 0]] = True  # a bucket that fell is a restart, whatever the count says
            if fell.any():
                whole |= fell
                gains = Entries.joined(gains.take(~fell[gains.line]), mine.take(fell[mine.line]))
            self._accumulate(gains.at(targets[gains.line].astype(np.int64)))
            base_count, base_sum = np.where(whole, np.uint64(0), before_count), np.where(whole, 0.0, before_sum)
            add_totals(
                every, chosen(lines, adds), self._accumulators.records, (counts - base_count)[adds], (sums - base_sum)[adds],
                has_sum[adds].view(np.uint8),
            )  # fmt: skip
        self._remember(lines, counts, now, scales, thresholds, sums)

    def written(self, slots: I32) -> ExponentialPoints:
        """What the accumulators ``slots`` have; each has been added to."""
        rows = self._accumulators.column("row")[slots]
        store = self._rows
        return ExponentialPoints(
            store["scale"][rows],
            store["threshold"][rows],
            store["zeros"][rows],
            store["offsets"][rows],
            store["counts"][rows],
        )

    def clear(self, slots: I32) -> None:
        """Delta: begin the next interval with nothing, at full resolution."""
        rows = self._accumulators.column("row")[slots]
        for name in ("counts", "offsets", "zeros", "threshold"):
            self._rows[name][rows] = 0
        self._rows["scale"][rows] = _SCALE_MAX

    def release_sources(self, slots: I32) -> None:
        """Sources that are forgotten give their rows back."""
        classes, rows = place(self._sources, slots)
        for number in np.unique(classes[classes >= 0]).tolist():
            self._source_rows[number].release(rows[classes == number])

    def release_accumulators(self, slots: I32) -> None:
        """Accumulators that are forgotten give their rows back."""
        rows = self._accumulators.column("row")[slots]
        self._rows.release(rows[self._accumulators.column("set")[slots] >= 0])

    # Accumulators.

    def _allocate(self, target: I32) -> None:
        """Rows for accumulators that have none."""
        column = self._accumulators.column
        used = np.unique(target[target >= 0])
        fresh = used[column("set")[used] < 0]
        if len(fresh):
            column("set")[fresh] = 0
            column("row")[fresh] = self._rows.allocate(len(fresh))
            self._rows["scale"][column("row")[fresh]] = _SCALE_MAX

    def _agree(
        self, target: I32, adds: Mask, whole: Mask, scales: I64, before_scale: I64,
        thresholds: F64, before_threshold: F64,
    ) -> tuple[I64, F64]:  # fmt: skip
        """(n,) the scale and threshold at which each line's accumulator takes it: the lowest, and the largest; its own from now on."""
        column = self._accumulators.column
        used = np.unique(target[adds])
        rows = column("row")[target]
        old_scale, old_threshold = self._rows["scale"].astype(np.int64), self._rows["threshold"].copy()
        scale, threshold = old_scale.copy(), old_threshold.copy()
        diffs = adds & ~whole
        np.minimum.at(scale, rows[adds], scales[adds])
        np.minimum.at(scale, rows[diffs], before_scale[diffs])
        np.maximum.at(threshold, rows[adds], thresholds[adds])
        np.maximum.at(threshold, rows[diffs], before_threshold[diffs])
        mixed = np.zeros(len(scale), bool)
        mixed[rows[adds & (thresholds != threshold[rows])]] = True
        mixed[rows[diffs & (before_threshold != threshold[rows])]] = True
        mine = column("row")[used]
        mixed[mine] |= (threshold[mine] != old_threshold[mine]) & (
            self._rows["zeros"][mine] + self._rows["counts"][mine].sum(axis=(1, 2)) > 0
        )
        # A threshold inside a bucket is moved to the bucket's upper bound: a bucket is in the zero bucket whole or not
        # at all.
        moves = mine[mixed[mine] & (threshold[mine] > 0)]
        exponents = _first_index_above(threshold[moves], scale[moves]) * np.exp2(-scale[moves].astype(np.float64))
        threshold[moves] = np.exp2(np.minimum(exponents, _EXPONENT_MAX))
        changed = mine[(scale[mine] != old_scale[mine]) | (threshold[mine] != old_threshold[mine])]
        if len(changed):
            self._rescale(changed, scale, threshold)
        return scale[rows], np.where(mixed[rows], threshold[rows], 0.0)

    def _rescale(self, rows: Indices, scale: I64, threshold: F64) -> None:
        """Brings rows of the store to ``scale`` and ``threshold`` (indexed by row)."""
        store = self._rows
        entries = _dense_entries(
            store["counts"][rows].astype(np.int64), store["offsets"][rows], store["zeros"][rows].astype(np.int64)
        )
        moved = _moved(entries, store["scale"][rows].astype(np.int64), scale[rows], threshold[rows])
        store["counts"][rows], store["zeros"][rows], store["offsets"][rows] = 0, 0, 0
        store["scale"][rows], store["threshold"][rows] = scale[rows], threshold[rows]
        self._put(rows, moved)

    def _accumulate(self, entries: Entries) -> None:
        """Adds entries (their line is an accumulator slot), at the accumulator's scale; it falls until the buckets fit."""
        slots = np.unique(entries.line)
        if not len(slots):
            return
        rows = self._accumulators.column("row")[slots]
        store = self._rows
        have = _dense_entries(
            store["counts"][rows].astype(np.int64), store["offsets"][rows], store["zeros"][rows].astype(np.int64)
        )
        every = Entries.joined(have, entries.at(np.searchsorted(slots, entries.line).astype(np.int64)))
        shift = _shift_to_fit(every, len(slots))
        every.index >>= np.where(every.side == _ZERO, 0, shift[every.line])
        store["scale"][rows] -= shift.astype(np.int32)
        store["counts"][rows], store["zeros"][rows], store["offsets"][rows] = 0, 0, 0
        self._put(rows, every)

    def _put(self, rows: Indices | I32, entries: Entries) -> None:
        """Writes entries (their line is an index of ``rows``), which fit, into empty rows."""
        store = self._rows
        zero = entries.side == _ZERO
        np.add.at(store["zeros"], rows[entries.line[zero]], entries.count[zero].astype(np.uint64))
        entries = entries.take(~zero)
        offsets = _lowest(entries, len(rows))
        store["offsets"][rows] = offsets
        at = (
            (rows[entries.line].astype(np.int64) * 2 + entries.side) * SIDE_MAX
            + entries.index
            - offsets[entries.line, entries.side]
        )
        np.add.at(store["counts"].reshape(-1), at, entries.count.astype(np.uint64))

    # Sources.

    def _stored(self, lines: npt.NDArray[np.void]) -> tuple[Entries, I64, F64, U64, F64]:
        """What is stored of the sources of first lines: entries, and (n,) scale, threshold, count, sum."""
        classes, rows = place(self._sources, lines["slot"])
        count = len(classes)
        scale, threshold = np.full(count, _SCALE_MAX, np.int64), np.zeros(count)
        counts, sums = np.zeros(count, np.uint64), np.zeros(count)
        parts = [_no_entries()]
        for number in np.unique(classes[classes >= 0]).tolist():
            here = np.flatnonzero((classes == number) & lines["first"])
            store, mine = self._source_rows[number], rows[here]
            found = _dense_entries(store["counts"][mine], store["offsets"][mine], store["zeros"][mine])
            parts.append(found.at(here[found.line].astype(np.int64)))
            scale[here], threshold[here] = store["scale"][mine], store["threshold"][mine]
            counts[here], sums[here] = store["count"][mine], store["sum"][mine]
        return Entries.joined(*parts), scale, threshold, counts, sums

    def _remember(
        self, lines: npt.NDArray[np.void], counts: U64, now: Entries, scales: I64, thresholds: F64,
        sums: F64,
    ) -> None:  # fmt: skip
        keep = np.flatnonzero(lines["last"] & lines["cumulative"])
        if not len(keep):
            return
        number_of = np.full(len(lines), -1, np.int64)
        number_of[keep] = np.arange(len(keep))
        entries = now.take(number_of[now.line] >= 0)
        entries = entries.at(number_of[entries.line])
        buckets = entries.take(entries.side != _ZERO)
        low = _lowest(buckets, len(keep))
        extent = np.zeros((len(keep), 2), np.int64)
        np.maximum.at(extent, (buckets.line, buckets.side), buckets.index - low[buckets.line, buckets.side] + 1)
        wanted = np.searchsorted(np.array(_WIDTHS), extent.max(axis=1)).astype(np.int32)
        slots = lines["slot"][keep]
        had, had_row = place(self._sources, slots)
        zeros = np.zeros(len(keep), np.int64)
        np.add.at(zeros, entries.line[entries.side == _ZERO], entries.count[entries.side == _ZERO])
        for number in np.unique(wanted).tolist():
            here = np.flatnonzero(wanted == number)
            store, width = self._source_rows[number], _WIDTHS[number]
            moved = slots[here[had[here] != number]]
            put_place(self._sources, moved, number, store.allocate(len(moved)))
            rows = place(self._sources, slots[here])[1]
            store["counts"][rows] = 0
            at_row = np.full(len(keep), -1, np.int64)
            at_row[here] = rows
            mine = buckets.take(at_row[buckets.line] >= 0)
            at = (at_row[mine.line] * 2 + mine.side) * width + mine.index - low[mine.line, mine.side]
            np.add.at(store["counts"].reshape(-1), at, mine.count)
            store["offsets"][rows], store["scale"][rows], store["threshold"][rows] = (
                low[here],
                scales[keep[here]],
                thresholds[keep[here]],
            )
            store["zeros"][rows], store["count"][rows], store["sum"][rows] = (
                zeros[here],
                counts[keep[here]],
                sums[keep[here]],
            )
        gone = (had >= 0) & (had != wanted)
        for number in np.unique(had[gone]).tolist():
            self._source_rows[number].release(had_row[gone & (had == number)])


def _no_entries() -> Entries:
    return Entries(*(np.zeros(0, np.int64) for _ in range(4)))


def _varints(wire: bytes, starts: I32, lengths: I32) -> tuple[U64, I64, I64]:
    """Packed varints of n slices: values U64[m], the slice each is of, and its number within it. Longer than 64 bits: the low bits."""
    lengths = np.where(starts >= 0, lengths, 0).astype(np.int64)
    total = int(lengths.sum())
    if not total:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    begin = np.cumsum(lengths) - lengths
    slice_of = np.repeat(np.arange(len(lengths)), lengths)
    octets = np.frombuffer(wire, np.uint8)[np.arange(total) - begin[slice_of] + starts[slice_of]]
    ends = octets < 0x80
    first = np.flatnonzero(np.concatenate(([True], ends[:-1])))
    number = np.cumsum(np.concatenate(([0], ends[:-1]))).astype(np.int64)
    shift = np.minimum(7 * (np.arange(total) - first[number]), 63).astype(np.uint64)
    values = np.add.reduceat((octets & 0x7F).astype(np.uint64) << shift, first)
    line = slice_of[first].astype(np.int64)
    before = np.searchsorted(line, line)  # the number of the first value of each value's slice
    return values, line, np.arange(len(values)) - before


def _entries_of(wire: bytes, points: npt.NDArray[np.void]) -> tuple[Entries, I64]:
    """The points' buckets, and (n,) their scales, lowered until a side has room for them."""
    parts = []
    for side, name in enumerate(("positive", "negative")):
        counts, line, at = _varints(wire, points[name], points[f"{name}_len"])
        entries = Entries(
            line,
            np.full(len(line), side),
            at + points[f"{name}_offset"][line].astype(np.int64),
            counts.astype(np.int64),
        )
        parts.append(entries.take(entries.count > 0))
    zero = np.flatnonzero(points["zero_count"] > 0).astype(np.int64)
    parts.append(
        Entries(
            zero, np.full(len(zero), _ZERO), np.zeros(len(zero), np.int64), points["zero_count"][zero].astype(np.int64)
        )
    )
    every = Entries.joined(*parts)
    shift = _shift_to_fit(every, len(points))
    every.index >>= np.where(every.side == _ZERO, 0, shift[every.line])
    return every, points["scale"].astype(np.int64) - shift


def _dense_entries(counts: I64, offsets: I64, zeros: I64) -> Entries:
    line, side, at = (array.astype(np.int64) for array in np.nonzero(counts))
    zero = np.flatnonzero(zeros).astype(np.int64)
    filled = Entries(line, side, at + offsets[line, side], counts[line, side, at])
    return Entries.joined(filled, Entries(zero, np.full(len(zero), _ZERO), np.zeros(len(zero), np.int64), zeros[zero]))


def _lowest(entries: Entries, count: int) -> I64:
    """(count, 2) the lowest index of each line and side, 0 where there is none."""
    none = np.iinfo(np.int64).max
    low = np.full((count, 2), none)
    np.minimum.at(low, (entries.line, entries.side), entries.index)
    return np.where(low == none, 0, low)


def _shift_to_fit(entries: Entries, count: int) -> I64:
    """(count,) by how many scales each line's buckets must fall to fit ``SIDE_MAX`` a side."""
    buckets = entries.take(entries.side != _ZERO)
    low = _lowest(buckets, count)
    high = low.copy()
    np.maximum.at(high, (buckets.line, buckets.side), buckets.index)
    shift = np.zeros(count, np.int64)
    while (wide := ((high >> shift[:, None]) - (low >> shift[:, None]) >= SIDE_MAX).any(axis=1)).any():
        shift[wide] += 1
    return shift


def _moved(entries: Entries, scales: I64, scale: I64, threshold: F64) -> Entries:
    """Entries at a lower scale (both (n,) by line), those below the threshold in the zero bucket."""
    index = entries.index >> np.where(entries.side == _ZERO, 0, (scales - scale)[entries.line])
    side = entries.side
    limits = threshold[entries.line]
    if (limits > 0).any():
        cut = np.full(len(index), np.iinfo(np.int64).min)
        some = limits > 0
        cut[some] = _first_index_above(limits[some], scale[entries.line][some])
        side = np.where(index < cut, _ZERO, side)
    return Entries(entries.line, side, np.where(side == _ZERO, 0, index), entries.count)


def _first_index_above(threshold: F64, scale: I64) -> I64:
    """The first bucket that lies above the threshold whole. Rounded so that a bound that came out of this comes out again."""
    exact = np.log2(threshold) * np.exp2(scale.astype(np.float64))
    near = np.rint(exact)
    # A bound is known to 2^-40 of itself at best; at the highest scale a bucket is 2^-20 wide.
    found: I64 = np.where(
        np.abs(exact - near) < 1e-6 * np.maximum(1.0, np.abs(exact) * 1e-6), near, np.ceil(exact)
    ).astype(np.int64)
    return found


def _difference(now: Entries, before: Entries) -> Entries:
    """Now - before by line, side and index; empty ones left out."""
    every = Entries.joined(now, before)
    every.count[len(now.count) :] *= -1
    if not len(every.count):
        return every
    found = groups(every.line, every.side, every.index)
    sums = np.zeros(found.count, np.int64)
    np.add.at(sums, found.codes, every.count)
    filled = np.flatnonzero(sums)
    first = found.first[filled]
    return Entries(every.line[first], every.side[first], every.index[first], sums[filled])
