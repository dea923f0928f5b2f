"""Batches as they came, each row with the slot of its trace. Small batches are joined, half-empty ones rewritten without what left.

What is held is bytes and one slot a row: indexes are built again for what leaves. Only the latest arrivals keep theirs
until they are read.
"""

from collections import deque
from typing import Any, Final, Generic, TypeVar

import numpy as np

from collector.model import EMPTY_CONTEXT, Batch, Context
from collector.model.arrays import I32, Mask

__all__ = ["Arrivals", "HeldRows", "together"]

B = TypeVar("B", bound=Batch)

_SEGMENT_ROWS: Final = 8192
_SEGMENT_BYTES: Final = 8 << 20
_PART_BYTES: Final = 400  # what a part that waits to be joined costs beside its bytes and slots


class _Segment(Generic[B]):
    """One batch, its rows' slots (-1: gone) and how many wait."""

    __slots__ = ("batch", "slots", "waiting_count")

    def __init__(self, batch: B, slots: I32) -> None:
        self.batch: B = batch
        self.slots = slots
        self.waiting_count = int(np.count_nonzero(slots >= 0))

    @property
    def size_bytes(self) -> int:
        return self.batch.size_bytes + self.slots.nbytes + _PART_BYTES


class _Open(Generic[B]):
    """Parts of one context that are to be joined."""

    __slots__ = ("parts", "row_count", "size_bytes")

    def __init__(self) -> None:
        self.parts: list[_Segment[B]] = []
        self.row_count = self.size_bytes = 0


class Arrivals(Generic[B]):
    """What came and was not read yet, in order, with its indexes: reading many batches as one costs little more than reading one."""

    def __init__(self) -> None:
        self._parts: list[tuple[B, I32]] = []
        self._row_count = self.item_count = self.size_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to read them."""
        return self._row_count >= _SEGMENT_ROWS or self.size_bytes >= _SEGMENT_BYTES

    def add(self, batch: B, slots: I32) -> None:
        """Note the rows whose slot is not negative. ``slots`` is not copied."""
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
        """All of it."""
        parts, self._parts = self._parts, []
        self._row_count = self.item_count = self.size_bytes = 0
        return parts


def together(parts: list[tuple[B, I32]]) -> tuple[B, I32]:
    """The parts as one. Where their contexts differ it is in the empty one: to be looked at, not passed on."""
    batch, slots = parts[0]
    if len(parts) == 1:
        return batch, slots
    alike = all(part.context == batch.context for part, _ in parts)
    batches = [part if alike else part.with_context(EMPTY_CONTEXT) for part, _ in parts]
    return type(batch).concat(batches), np.concatenate([slots for _, slots in parts])


class HeldRows(Generic[B]):
    """See the module."""

    def __init__(self) -> None:
        self._segments: deque[_Segment[B]] = deque()
        self._open: dict[Context, _Open[B]] = {}
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
        kind = self._open.get(batch.context)
        if kind is None:
            kind = self._open[batch.context] = _Open()
        kind.parts.append(part)
        kind.row_count += len(slots)
        kind.size_bytes += part.batch.size_bytes
        if kind.row_count >= _SEGMENT_ROWS or kind.size_bytes >= _SEGMENT_BYTES:
            del self._open[batch.context]
            self._seal(kind)

    def oldest(self) -> list[tuple[I32, int]]:
        """The slots that wait and the bytes they hold up, part by part, oldest first."""
        parts = [*self._segments, *(part for kind in self._open.values() for part in kind.parts)]
        return [(part.slots[part.slots >= 0], part.size_bytes) for part in parts]

    def take(self, wanted: Mask, gone: Mask) -> tuple[list[tuple[B, I32]], int]:
        """What of the traces marked ``wanted`` waits, with its slots, oldest first; what of those marked ``gone`` does is forgotten.

        Args:
            wanted: bool over slots, and one more row (False) at its end.
            gone: likewise.

        Returns:
            The parts taken and how many rows were forgotten.
        """
        for kind in self._open.values():
            self._seal(kind)
        self._open.clear()
        leaving = wanted | gone
        taken: list[tuple[B, I32]] = []
        forgotten = 0
        remaining: deque[_Segment[B]] = deque()
        for segment in self._segments:
            leaves = leaving[segment.slots]
            count = int(np.count_nonzero(leaves))
            if count:
                self._part(segment, wanted, taken)
                forgotten += count
                self.item_count -= count
                self.size_bytes -= segment.size_bytes
                segment.slots[leaves] = -1
                segment.waiting_count -= count
                self._shrink(segment)
                self.size_bytes += segment.size_bytes if segment.waiting_count else 0
            if segment.waiting_count:
                remaining.append(segment)
        self._segments = remaining
        return taken, forgotten - sum(len(slots) for _, slots in taken)

    @staticmethod
    def _part(segment: _Segment[B], wanted: Mask, taken: list[tuple[B, I32]]) -> None:
        chosen = wanted[segment.slots]
        if chosen.any():
            taken.append((segment.batch.select(chosen), segment.slots[chosen]))
            segment.batch = segment.batch.without_index()

    def _shrink(self, segment: _Segment[B]) -> None:
        if 0 < segment.waiting_count * 2 < len(segment.slots):
            waiting = segment.slots >= 0
            segment.batch = segment.batch.select(waiting).without_index()
            segment.slots = segment.slots[waiting]

    def _seal(self, kind: _Open[B]) -> None:
        parts = kind.parts
        joined: Any = parts[0]
        if len(parts) > 1:
            batch = type(parts[0].batch).concat([part.batch for part in parts])
            joined = _Segment(batch.without_index(), np.concatenate([part.slots for part in parts]))
        self.size_bytes += joined.size_bytes - sum(part.size_bytes for part in parts)
        self._segments.append(joined)
