"""Batches held as they came, each row with the slot of its trace.

Held are the bytes and one slot per row; indexes are built again for the rows that are released. Small batches are
joined, and batches of which more than half has left are rewritten. Only the latest arrivals keep their index until they
are read.
"""

from collections import deque
from typing import Final, Generic, TypeVar

import numpy as np

from collector.model import EMPTY_CONTEXT, Batch, Context
from collector.model.arrays import I32, Mask

__all__ = ["HeldRows", "UnreadRows", "join_parts", "runs_by_context"]

B = TypeVar("B", bound=Batch)

_SEGMENT_ROWS: Final = 8192
_SEGMENT_BYTES: Final = 8 << 20
_PART_BYTES: Final = 400  # what a part that is not joined yet costs in addition to its bytes and slots
_RUN_BYTES: Final = 64 << 20  # of one batch that is released; a batch can have 2 GiB at most


class HeldRows(Generic[B]):
    """Rows that wait for the decision on their trace."""

    def __init__(self) -> None:
        self._segments: deque[_Segment[B]] = deque()
        self._unjoined: dict[Context, _Unjoined[B]] = {}
        self.size_bytes = 0
        self.item_count = 0

    def add(self, batch: B, slots: I32) -> None:
        """Hold the rows whose slot is not negative."""
        waiting = slots >= 0
        count = int(np.count_nonzero(waiting))
        if not count:
            return
        if count * 2 < len(slots):
            batch, slots = batch.select(waiting), slots[waiting]
        elif count == len(slots):
            slots = slots.copy()
        else:
            slots = np.where(waiting, slots, np.int32(-1))
        part = _Segment(batch.without_index(), slots)
        self.item_count += count
        self.size_bytes += part.size_bytes
        unjoined = self._unjoined.get(batch.context)
        if unjoined is None:
            unjoined = self._unjoined[batch.context] = _Unjoined()
        unjoined.parts.append(part)
        unjoined.row_count += len(slots)
        unjoined.size_bytes += part.batch.size_bytes
        if unjoined.row_count >= _SEGMENT_ROWS or unjoined.size_bytes >= _SEGMENT_BYTES:
            del self._unjoined[batch.context]
            self._join(unjoined)

    def oldest(self) -> list[tuple[I32, int]]:
        """Part by part, oldest first: the slots of the waiting rows, and the bytes freed when these rows have left."""
        parts = [*self._segments, *(part for unjoined in self._unjoined.values() for part in unjoined.parts)]
        return [(part.slots[part.slots >= 0], part.size_bytes) for part in parts]

    def take(self, kept: Mask, dropped: Mask) -> tuple[list[tuple[B, I32]], I32]:
        """Remove the rows of decided traces.

        Args:
            kept: bool over slots: whose rows are returned. One more row (False) at the end stands for slot -1.
            dropped: bool over slots, likewise: whose rows are discarded.

        Returns:
            The kept rows as (batch, slots) parts, oldest first, and the slots of the discarded rows.
        """
        for unjoined in self._unjoined.values():
            self._join(unjoined)
        self._unjoined.clear()
        decided = kept | dropped
        taken: list[tuple[B, I32]] = []
        discarded: list[I32] = [_NO_SLOTS]
        remaining: deque[_Segment[B]] = deque()
        for segment in self._segments:
            leaves = decided[segment.slots]
            count = int(np.count_nonzero(leaves))
            if count:
                chosen = kept[segment.slots]
                if chosen.any():
                    taken.append((segment.batch.select(chosen), segment.slots[chosen]))
                    segment.batch = segment.batch.without_index()
                discarded.append(segment.slots[leaves & ~chosen])
                self.item_count -= count
                self.size_bytes -= segment.size_bytes
                segment.remove(leaves, count)
                self.size_bytes += segment.size_bytes if segment.waiting_count else 0
            if segment.waiting_count:
                remaining.append(segment)
        self._segments = remaining
        return taken, np.concatenate(discarded)

    def take_all(self) -> list[tuple[B, I32]]:
        """Remove all rows and return them as (batch, slots) parts, oldest first."""
        slots = [part_slots for part_slots, _ in self.oldest()]
        everything = np.zeros(max((int(part.max()) for part in slots), default=0) + 2, np.bool_)
        everything[:-1] = True
        return self.take(everything, np.zeros_like(everything))[0]

    def _join(self, unjoined: "_Unjoined[B]") -> None:
        parts = unjoined.parts
        segment = parts[0]
        if len(parts) > 1:
            batch = type(segment.batch).concat([part.batch for part in parts])
            segment = _Segment(batch.without_index(), np.concatenate([part.slots for part in parts]))
        self.size_bytes += segment.size_bytes - sum(part.size_bytes for part in parts)
        self._segments.append(segment)


class UnreadRows(Generic[B]):
    """Batches that arrived and were not read yet, in order and with their indexes.

    Reading many batches as one costs little more than reading one of them.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[B, I32]] = []
        self._row_count = self.item_count = self.size_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether the batches have to be read now."""
        return self._row_count >= _SEGMENT_ROWS or self.size_bytes >= _SEGMENT_BYTES

    def add(self, batch: B, slots: I32) -> None:
        """Add the rows whose slot is not negative. ``slots`` is not copied."""
        count = int(np.count_nonzero(slots >= 0))
        if count * 2 < len(slots):
            waiting = slots >= 0
            batch, slots = batch.select(waiting), slots[waiting]
        if count:
            self._parts.append((batch, slots))
            self._row_count += len(slots)
            self.item_count += count
            self.size_bytes += batch.size_bytes + slots.nbytes + _PART_BYTES

    def take(self) -> list[tuple[B, I32]]:
        """Remove all batches and return them with their slots."""
        parts, self._parts = self._parts, []
        self._row_count = self.item_count = self.size_bytes = 0
        return parts


def join_parts(parts: list[tuple[B, I32]]) -> tuple[B, I32]:
    """The parts as one batch with its slots. If their contexts differ it has none and must not be passed on."""
    batch, slots = parts[0]
    if len(parts) == 1:
        return batch, slots
    have_one_context = all(part.context == batch.context for part, _ in parts)
    batches = [part if have_one_context else part.with_context(EMPTY_CONTEXT) for part, _ in parts]
    return type(batch).concat(batches), np.concatenate([slots for _, slots in parts])


def runs_by_context(parts: list[tuple[B, I32]]) -> list[list[tuple[B, I32]]]:
    """The parts grouped by context, in order; each group stays below the size that one released batch may have."""
    runs: list[list[tuple[B, I32]]] = []
    latest: dict[Context, tuple[list[tuple[B, I32]], int]] = {}
    for batch, slots in parts:
        run, size_bytes = latest.get(batch.context, ([], _RUN_BYTES))
        if size_bytes + batch.size_bytes > _RUN_BYTES:
            run, size_bytes = [], 0
            runs.append(run)
        run.append((batch, slots))
        latest[batch.context] = run, size_bytes + batch.size_bytes
    return runs


class _Segment(Generic[B]):
    """One batch, the slots of its rows (-1: the row has left), and the number of rows that wait."""

    __slots__ = ("batch", "slots", "waiting_count")

    def __init__(self, batch: B, slots: I32) -> None:
        self.batch: B = batch
        self.slots = slots
        self.waiting_count = int(np.count_nonzero(slots >= 0))

    @property
    def size_bytes(self) -> int:
        return self.batch.size_bytes + self.slots.nbytes + _PART_BYTES

    def remove(self, leaves: Mask, count: int) -> None:
        """Remove the ``count`` rows of a mask; rewrite the batch if less than half of its rows still wait."""
        self.slots[leaves] = -1
        self.waiting_count -= count
        if 0 < self.waiting_count * 2 < len(self.slots):
            waiting = self.slots >= 0
            self.batch = self.batch.select(waiting).without_index()
            self.slots = self.slots[waiting]


class _Unjoined(Generic[B]):
    """Parts of one context that are still to be joined."""

    __slots__ = ("parts", "row_count", "size_bytes")

    def __init__(self) -> None:
        self.parts: list[_Segment[B]] = []
        self.row_count = self.size_bytes = 0


_NO_SLOTS: Final = np.empty(0, np.int32)
