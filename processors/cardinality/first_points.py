"""The first points of named series, kept so that their end can be written: one NO_RECORDED_VALUE when a slot is freed.

See docs/reference/cardinality.md, rule 8. The points are kept in a few batches, without a Python object per series.
Batches are merged like the segments of a log: small ones into larger ones, without the points that were removed.
"""

from typing import Final

import numpy as np

from collector.model import EMPTY_CONTEXT, Context, Metrics
from collector.model.arrays import I32, Indices
from collector.model.checkpoint import Part, Parts, part_of
from collector.otlp.semantics import NO_RECORDED_VALUE
from processors.cardinality.identity import context_of, context_part

__all__ = ["FirstPoints"]

_REMOVED: Final = -1
_MERGE_BELOW: Final = 2  # a part is merged with the next one unless it is more than so many times larger
_PART_MAX_BYTES: Final = 2**30  # offsets have 32 bits


class FirstPoints:
    """First points by slot of the table of named series."""

    def __init__(self) -> None:
        self._parts: list[tuple[Metrics, I32]] = []  # a batch, and the slot of each of its points or _REMOVED
        self._contexts: list[Context] = []

    @property
    def memory_bytes(self) -> int:
        """Memory of all batches."""
        return sum(batch.memory_bytes + slots.nbytes for batch, slots in self._parts)

    def add(self, batch: Metrics, rows: Indices, slots: I32, *, max_bytes: int) -> None:
        """Keep the points ``rows`` as the first ones of the series ``slots``, unless they exceed ``max_bytes``."""
        slot_of = np.full(batch.item_count, _REMOVED, np.int32)
        slot_of[rows] = slots
        is_kept = slot_of >= 0
        kept = batch.select(is_kept)
        exemplar_count = kept.table("exemplars").row_count
        if exemplar_count:
            kept = kept.select(np.zeros(exemplar_count, bool), "exemplars")
        if kept.size_bytes > max_bytes:
            return
        self._parts.append((kept.without_index(), slot_of[is_kept]))
        self._contexts.append(batch.context)
        self._merge()

    def take_end_markers(self, slots: I32, now_unix_nano: int) -> list[Metrics]:
        """One NO_RECORDED_VALUE for each series of ``slots`` whose first point is known; the points are removed."""
        markers = []
        for number, (batch, slots_of_part) in enumerate(self._parts):
            ends = np.isin(slots_of_part, slots) & (slots_of_part >= 0)
            if not ends.any():
                continue
            ended = batch.select(ends)
            times = np.full(ended.item_count, now_unix_nano, np.uint64)
            flags = np.full(ended.item_count, NO_RECORDED_VALUE, np.uint32)
            edit = ended.edit().set_field("time_unix_nano", times, table="points")
            edit.set_field("flags", flags, table="points")
            markers.append(edit.apply().with_context(self._contexts[number]))
            self._parts[number] = batch.without_index(), np.where(ends, _REMOVED, slots_of_part).astype(np.int32)
        return markers

    def remove(self, slots: I32) -> None:
        """Forget series whose end was received."""
        for number, (batch, slots_of_part) in enumerate(self._parts):
            ends = np.isin(slots_of_part, slots)
            if ends.any():
                self._parts[number] = batch, np.where(ends, _REMOVED, slots_of_part).astype(np.int32)

    def compact(self) -> None:
        """Write parts anew of which more than half was removed."""
        kept = [
            (part, context) for part, context in zip(self._parts, self._contexts, strict=True) if (part[1] >= 0).any()
        ]
        self._parts = [_without_removed(*part) if np.mean(part[1] >= 0) < 0.5 else part for part, _ in kept]
        self._contexts = [context for _, context in kept]

    def parts(self) -> dict[str, Part]:
        """The points, for a checkpoint."""
        parts: dict[str, Part] = {"contexts": [context_part(context) for context in self._contexts]}
        for number, (batch, slots) in enumerate(self._parts):
            parts |= {f"batch {number}": batch.wire, f"slots {number}": slots}
        return parts

    def restore(self, parts: Parts) -> None:
        """Continue from ``parts``.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such an object.
        """
        self._contexts = [context_of(part) for part in parts["contexts"]]
        self._parts = []
        for number in range(len(self._contexts)):
            batch = Metrics.from_wire(parts[f"batch {number}"])
            self._parts.append((batch, part_of(parts, f"slots {number}", np.int32, batch.item_count).copy()))

    def _merge(self) -> None:
        while len(self._parts) > 1 and self._contexts[-1] == self._contexts[-2]:
            (older, older_slots), (newer, newer_slots) = self._parts[-2:]
            size_bytes = older.size_bytes + newer.size_bytes
            if older.size_bytes > _MERGE_BELOW * newer.size_bytes or size_bytes > _PART_MAX_BYTES:
                return
            joined = Metrics.concat([older.with_context(EMPTY_CONTEXT), newer.with_context(EMPTY_CONTEXT)])
            self._parts[-2:] = [_without_removed(joined, np.concatenate((older_slots, newer_slots)))]
            self._contexts.pop()


def _without_removed(batch: Metrics, slots: I32) -> tuple[Metrics, I32]:
    is_kept = slots >= 0
    return (batch if is_kept.all() else batch.select(is_kept)).without_index(), slots[is_kept]
