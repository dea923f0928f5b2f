"""The first points of named series, kept so that their end can be written: NO_RECORDED_VALUE once, when a slot is freed (rule 8).

A few batches of one point a series, no object a series. Parts are merged like a log: little ones into larger ones, the
dead left out.
"""

from typing import Final

import numpy as np

from collector.model import EMPTY_CONTEXT, Context, Metrics
from collector.model.arrays import I32, Indices
from collector.otlp.semantics import NO_RECORDED_VALUE

__all__ = ["Births"]

_MERGE_BELOW: Final = 2  # a part less than so many times its successor is merged with it
_BYTES_MAX: Final = 2**30  # of a part: offsets are of 32 bits


class Births:
    """First points, by slot of the table of named series."""

    def __init__(self) -> None:
        self._parts: list[tuple[Metrics, I32]] = []  # a batch, and the slot of each of its points; -1: gone
        self._contexts: list[Context] = []

    @property
    def memory_bytes(self) -> int:
        """What is held."""
        return sum(batch.memory_bytes + slots.nbytes for batch, slots in self._parts)

    def add(self, batch: Metrics, rows: Indices, slots: I32) -> None:
        """The points ``rows`` are the first of the series ``slots``."""
        slot_of = np.full(batch.item_count, -1, np.int32)
        slot_of[rows] = slots
        mask = slot_of >= 0
        small = batch.select(mask)
        exemplars = small.table("exemplars").row_count
        if exemplars:
            small = small.select(np.zeros(exemplars, bool), "exemplars")
        self._parts.append((small.without_index(), slot_of[mask]))
        self._contexts.append(batch.context)
        self._merge()

    def end(self, slots: I32, now_unix_nano: int) -> list[Metrics]:
        """One NO_RECORDED_VALUE for each series of ``slots`` that is known; they are forgotten."""
        found = []
        for number, (batch, mine) in enumerate(self._parts):
            dies = np.isin(mine, slots) & (mine >= 0)
            if not dies.any():
                continue
            ending = batch.select(dies)
            edit = ending.edit().set_field(
                "time_unix_nano", np.full(ending.item_count, now_unix_nano, np.uint64), table="points"
            )
            edit.set_field("flags", np.full(ending.item_count, NO_RECORDED_VALUE, np.uint32), table="points")
            found.append(edit.apply().with_context(self._contexts[number]))
            self._parts[number] = batch.without_index(), np.where(dies, -1, mine).astype(np.int32)
        return found

    def forget(self, slots: I32) -> None:
        """These series ended by themselves."""
        for number, (batch, mine) in enumerate(self._parts):
            dies = np.isin(mine, slots)
            if dies.any():
                self._parts[number] = batch, np.where(dies, -1, mine).astype(np.int32)

    def thin(self) -> None:
        """Parts of which half is gone are written anew."""
        kept = [
            (part, context) for part, context in zip(self._parts, self._contexts, strict=True) if (part[1] >= 0).any()
        ]
        self._parts = [_alive(*part) if 2 * np.count_nonzero(part[1] >= 0) < len(part[1]) else part for part, _ in kept]
        self._contexts = [context for _, context in kept]

    def _merge(self) -> None:
        while len(self._parts) > 1 and self._contexts[-1] == self._contexts[-2]:
            (older, older_slots), (newer, newer_slots) = self._parts[-2:]
            size = older.size_bytes + newer.size_bytes
            if older.size_bytes > _MERGE_BELOW * newer.size_bytes or size > _BYTES_MAX:
                return
            joined = Metrics.concat([older.with_context(EMPTY_CONTEXT), newer.with_context(EMPTY_CONTEXT)])
            self._parts[-2:] = [_alive(joined, np.concatenate((older_slots, newer_slots)))]
            self._contexts.pop()


def _alive(batch: Metrics, slots: I32) -> tuple[Metrics, I32]:
    alive = slots >= 0
    return (batch if alive.all() else batch.select(alive)).without_index(), slots[alive]
