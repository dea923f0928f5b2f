"""Streams of exponential histograms, to convert between cumulative and delta temporality. ``streams`` has the others.

A histogram that needs more than 640 buckets on a side is converted at a lower scale, and so are totals that need more
than 160; so the memory of a stream is bounded.
"""

from collections.abc import Callable
from typing import Final

import numpy as np

from collector.model import PRESENT_MAX, PRESENT_MIN, PRESENT_SUM, TEMPORALITY_DELTA, KeyTable, Metrics
from collector.model.arrays import U64, Indices, Records, offsets_of, take_records
from collector.model.checkpoint import CheckpointError, Part, Parts, nested, part_of, within
from collector.model.point_edit import PointEdit
from collector.otlp.exponential_buckets import SIDES, bucket_messages, zigzag
from collector.otlp.exponential_stream_kernel import BucketPool
from collector.otlp.stream_records import EXPONENTIAL_RESULT, EXPONENTIAL_STREAM, Verdict

__all__ = ["ExponentialStreams", "set_exponential"]

# Of what a checkpoint may hold: more buckets than the kernel ever keeps, scales of 32 bits, and offsets of those.
_MAX_LENGTH: Final = 4096
_MAX_SCALE: Final = 2**31
_MAX_OFFSET: Final = 2**40
_UNUSED_MIN: Final = 4096  # places of the pool
_SLOTS_MIN: Final = 16  # most processors have no such streams
_START, _COUNT, _SUM, _SCALE, _ZERO_COUNT, _MIN, _MAX, _ZERO_THRESHOLD = 2, 4, 5, 6, 7, 12, 13, 14


class ExponentialStreams:
    """The streams of exponential histograms of one processor."""

    def __init__(self) -> None:
        self._table = KeyTable(EXPONENTIAL_STREAM, capacity=_SLOTS_MIN)
        self._pool = BucketPool()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def memory_bytes(self) -> int:
        """The size of all streams."""
        return self._table.memory_bytes + self._pool.memory_bytes

    def update(
        self, batch: Metrics, rows: Indices, keys: U64, limit: int, compute: Callable[..., None]
    ) -> tuple[Records, U64]:
        """Results of the points, and the buckets that they refer to.

        Args:
            batch: The batch.
            rows: Points of exponential histograms.
            keys: U64[n,2]: the stream of each point.
            limit: How many streams there may be.
            compute: A function of the kernel.
        """
        slots, is_new = self._table.insert(keys, limit)
        results = np.zeros(len(rows), EXPONENTIAL_RESULT)
        buckets = BucketPool()
        compute(
            batch.wire,
            batch.table().rows,
            rows.astype(np.int64),
            slots,
            is_new.view(np.uint8),
            self._table.records,
            self._pool,
            results,
            buckets,
        )
        self._make_room()
        return results, buckets.counts()

    def parts(self) -> dict[str, Part]:
        """All streams, for a checkpoint."""
        self._pool.compact(self._table.records, self._table.live())
        return {"pool": self._pool.counts(), **nested("table", self._table.snapshot())}

    def restore(self, parts: Parts, elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to the times at which streams were seen.

        Raises:
            CheckpointError: They are not those of streams; there are none then.
        """
        self._pool = BucketPool()
        self._table.restore(within("table", parts))
        live, records = self._table.live(), self._table.records
        pool = part_of(parts, "pool", np.uint64)
        places, capacities, lengths = (records[name][live] for name in ("place", "capacity", "length"))
        is_whole = (lengths >= 0).all(axis=1) & (lengths <= _MAX_LENGTH).all(axis=1) & (places >= 0)
        is_whole &= (lengths.sum(axis=1) <= capacities) & (places <= len(pool) - capacities)
        is_whole &= (np.abs(records["scale"][live]) <= _MAX_SCALE) & (
            np.abs(records["offset"][live]) <= _MAX_OFFSET
        ).all(axis=1)
        if pool.ndim != 1 or not is_whole.all():
            self._table.remove(live)
            raise CheckpointError("the buckets of a stream are not among those that were saved")
        records["seen_s"][live] += elapsed_s
        self._pool.extend(np.ascontiguousarray(pool))

    def expire(self, before_s: float) -> int:
        """Remove the streams without a point since ``before_s``; returns how many."""
        live = self._table.live()
        stale = live[self._table.records["seen_s"][live] < before_s]
        self._table.remove(stale)
        self._make_room()
        return len(stale)

    def _make_room(self) -> None:
        """Give the places back that no stream uses any more, when they are more than half of the pool."""
        if self._pool.used_count <= _UNUSED_MIN:
            return
        live = self._table.live()
        if 2 * int(self._table.records["length"][live].sum()) < self._pool.used_count:
            self._pool.compact(self._table.records, live)


def set_exponential(
    edit: PointEdit, points: Records, rows: Indices, results: Records, buckets: U64, temporality: int
) -> None:
    """Writes results into the points ``rows``; ``points`` are their records."""
    changed = np.flatnonzero(results["verdict"] == Verdict.CHANGED)
    if temporality == TEMPORALITY_DELTA:
        # Extremes of all time say nothing about an interval.
        passed = rows[results["verdict"] <= Verdict.UNCHANGED]
        edit.remove(_MIN, passed)
        edit.remove(_MAX, passed)
    if not len(changed):
        return
    points, rows, results = take_records(points, changed), rows[changed], take_records(results, changed)
    edit.set_fixed64(_START, results["start_time"].copy(), rows, column="start_time")
    edit.set_fixed64(_COUNT, results["count"].copy(), rows, column="count")
    for number, name in ((_ZERO_COUNT, "zero_count"), (_ZERO_THRESHOLD, "zero_threshold")):
        differs = results[name] != points[name]
        edit.set_fixed64(number, results[name][differs], rows[differs], column=name)
    is_coarser = results["scale"] != points["scale"]
    edit.set_varint(_SCALE, zigzag(results["scale"][is_coarser]), rows[is_coarser])
    for side, (_, number) in enumerate(SIDES):
        _set_side(edit, number, rows, results, buckets, side)
    if temporality == TEMPORALITY_DELTA:
        has_sum = (points["present"] & PRESENT_SUM != 0) & ~np.isnan(points["sum"])
        edit.set_fixed64(_SUM, results["sum"][has_sum], rows[has_sum], column="sum")
        return
    for number, bit, name in ((_SUM, PRESENT_SUM, "sum"), (_MIN, PRESENT_MIN, "min"), (_MAX, PRESENT_MAX, "max")):
        is_present = results["present"] & bit != 0
        column = "sum" if number == _SUM else name
        edit.set_fixed64(number, results[name][is_present], rows[is_present], column=column)
        edit.remove(number, rows[~is_present])


def _set_side(edit: PointEdit, number: int, rows: Indices, results: Records, buckets: U64, side: int) -> None:
    lengths, offsets = results["length"][:, side], results["offset"][:, side]
    starts = offsets_of(lengths)
    owner = np.repeat(np.arange(len(rows)), lengths)
    within = np.arange(int(starts[-1])) - starts[:-1][owner]
    counts = buckets[results["place"][:, side][owner] + within]
    content, places, sizes = bucket_messages(offsets.copy(), owner, offsets[owner] + within, counts)
    has = lengths > 0
    edit.remove(number, rows[~has])
    edit.set_bytes(number, content, places[has], sizes[has], rows[has])
