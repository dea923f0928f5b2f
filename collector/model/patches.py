"""The patches of a request while they are collected, and the index of the request that they produce.

A patch replaces some bytes by others; the *frames* are the messages around patches, whose lengths change with them.
The rules for both are in ``collector.wire.splice.rewrite``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from collector.model.arrays import I32, I64, Array, Mask
from collector.model.index import Lazy, LazyAttributes, LazyRows, resolve
from collector.wire.splice.relocate import OffsetMap, take_rows
from collector.wire.splice.rewrite import rewrite

if TYPE_CHECKING:
    from collector.model.tables import Tables

__all__ = ["Patches", "Rewritten", "RowUpdate"]

_INNER_FRAMES: Final = {"resources": "inner_start", "scopes": "inner_start", "metrics": "data_start"}
"""The nested message of a row, which is a frame too."""

RowUpdate: TypeAlias = Callable[[I32, Array], None]
"""Brings the index up to date, given the new offsets of its patches and the writable new rows of its table."""


class Patches:
    """Patches of one request, the frames around them, and the updates that the index needs after the rewrite."""

    def __init__(self, batch: Tables) -> None:
        self.batch = batch
        self._offsets: list[I64] = []
        self._deleted: list[I64] = []
        self._sources: list[I64] = []
        self._lengths: list[I64] = []
        self._payload: list[bytes] = []
        self._payload_bytes = 0
        self.count = 0
        self._frames: dict[str, Mask] = {}  # by table: the rows that hold patches
        self._whole: set[str] = set()  # tables all of whose rows are frames
        self._more_frames: list[tuple[Array, Array, str]] = []
        self._updates: dict[str, list[tuple[int, int, RowUpdate]]] = {}

    def cut(self, starts: Array, ends: Array) -> None:
        """Deletes these bytes."""
        nothing = np.zeros(len(starts), np.int64)
        self.extend(starts.astype(np.int64), ends.astype(np.int64) - starts, nothing, nothing, b"")

    def add(
        self,
        table: str,
        starts: Array,
        ends: Array,
        payload: bytes,
        sources: I64,
        lengths: I64,
        update: RowUpdate | None = None,
    ) -> None:
        """Replaces the bytes from ``starts`` to ``ends`` by slices of ``payload``; where they are equal it inserts.

        ``update`` is called with the rows of ``table``.
        """
        first, last = self.extend(starts.astype(np.int64), ends.astype(np.int64) - starts, sources, lengths, payload)
        if update is not None:
            self.add_update(table, first, last, update)

    def extend(self, offsets: I64, deleted: I64, sources: I64, lengths: I64, payload: bytes) -> tuple[int, int]:
        """Adds patches in the form ``splice.rewrite`` takes; returns the first one's number and one past the last's."""
        first = self.count
        self._offsets.append(offsets)
        self._deleted.append(deleted)
        self._sources.append(sources + self._payload_bytes if self._payload_bytes else sources)
        self._lengths.append(lengths)
        self._payload.append(payload)
        self._payload_bytes += len(payload)
        self.count += len(offsets)
        return first, self.count

    def add_update(self, table: str, first: int, last: int, update: RowUpdate) -> None:
        """Calls ``update`` with the offsets of the patches ``first`` to ``last`` and the rows of ``table``."""
        self._updates.setdefault(table, []).append((first, last, update))

    def add_frames_around(self, table: str, rows: Mask) -> None:
        """Makes these rows of a table frames, with their nested messages and everything above them."""
        self._frames[table] = self._frames[table] | rows if table in self._frames else rows
        self._whole.update(self.batch.tables_above(table))

    def add_frames(self, starts: Array, bodies: Array, ends: Array) -> None:
        """Makes the messages from ``starts`` to ``ends``, whose contents begin at ``bodies``, frames."""
        rows = np.empty(len(starts), [("start", np.int32), ("body", np.int32), ("end", np.int32)])
        rows["start"], rows["body"], rows["end"] = starts, bodies, ends
        self._more_frames.append((rows, np.arange(len(starts)), "start"))

    def apply(self, source: bytes | None = None) -> Rewritten:
        """Writes the new request.

        ``source``: the bytes to change, if some of the batch's have been overwritten by others of the same length.
        """
        frames = []
        # From the top down they are already in order, except in batches of several resources or scopes.
        for table in self.batch.tables:
            if table in self._whole or table in self._frames:
                rows = self.batch.table(table).rows
                which = np.arange(len(rows)) if table in self._whole else self._frames[table].nonzero()[0]
                frames.append((rows, which, "start"))
                if table in _INNER_FRAMES:
                    frames.append((rows, which, _INNER_FRAMES[table]))
        frames += self._more_frames
        wire, offset_map, placed = rewrite(
            self.batch.wire if source is None else source,
            _joined(self._offsets),
            _joined(self._deleted),
            _joined(self._sources),
            _joined(self._lengths),
            self._payload[0] if len(self._payload) == 1 else b"".join(self._payload),
            frames,
        )
        return Rewritten(wire, offset_map, placed, self._updates)


@dataclass(slots=True)
class Rewritten:
    """A request after its patches were applied, and the way from the old index to the new one."""

    wire: bytes
    offset_map: OffsetMap
    placed: I32
    """I32[p]: the offset of each patch's bytes in the new request."""
    updates: dict[str, list[tuple[int, int, RowUpdate]]]

    def rows(self, table: str, old: LazyRows) -> Lazy[Array]:
        """The new rows of a table that lost none."""
        offset_map = self.offset_map
        updates = [(self.placed[first:last], update) for first, last, update in self.updates.get(table, ())]

        def make() -> Array:
            rows = take_rows(resolve(old), None, None, offset_map)[0]
            for placed, update in updates:
                update(placed, rows)
            return rows

        return Lazy(make, old)

    def attributes(self, old: LazyAttributes) -> Lazy[tuple[Array, list[bytes]]]:
        """The new rows of the attributes of a table, none of which changed."""
        offset_map = self.offset_map

        def make() -> tuple[Array, list[bytes]]:
            rows, keys = resolve(old)
            return offset_map.relocate(rows), keys

        return Lazy(make, old if isinstance(old, Lazy) else old[0])


def _joined(parts: list[I64]) -> I64:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
