"""Batches as they came, each row with the slot of its trace. Small batches are joined, half-empty ones rewritten without what left.

What is held is bytes and one slot a row: indexes are built again for what leaves.
"""

from collections import deque
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from collector.model import Batch, Context

__all__ = ["HeldRows"]

B = TypeVar("B", bound=Batch)
I32 = NDArray[np.int32]
Mask = NDArray[np.bool_]

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
