"""Patches of a request in the making: what to put where, and the messages around it whose lengths follow.

Rules of patches and frames: ``collector.wire.splice``.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from collector.model.columns import Array
from collector.wire.splice import rewrite, take_rows

if TYPE_CHECKING:
    from collector.model.batch import Batch

__all__ = ["Note", "Patches"]

Note: TypeAlias = Callable[[Array, dict[str, Array]], None]
"""Told where patches stand in the new request (int32) and its tables (writable)."""


class Patches:
    """Patches in the making, the frames around them, and what is to be noted in the index once it is known where they stand."""

    def __init__(self, batch: "Batch") -> None:
        self.batch = batch
        self._offsets: list[Array] = []
        self._deleted: list[Array] = []
        self._sources: list[Array] = []
        self._lengths: list[Array] = []
        self._payload: list[bytes] = []
        self._payload_bytes = 0
        self.count = 0
        self._frames: dict[str, Array] = {}  # table → bool[n]: rows that hold patches
        self._more_frames: list[tuple[Array, Array, str]] = []
        self._notes: list[tuple[int, int, Note]] = []

    def cut(self, starts: Array, ends: Array) -> None:
        """Delete these bytes."""
        nothing = np.zeros(len(starts), np.int64)
        self.put(starts, ends, b"", nothing, nothing)

    def put(
        self,
        starts: Array,
        ends: Array,
        payload: bytes,
        sources: Array,
        lengths: Array,
        note: Note | None = None,
    ) -> None:
        """Replace these bytes (none where start = end). ``note(placed, rows)`` is told where they stand and the new tables."""
        if note is not None:
            self._notes.append((self.count, self.count + len(starts), note))
        self._offsets.append(starts.astype(np.int64))
        self._deleted.append(ends.astype(np.int64) - starts)
        self._sources.append(sources + self._payload_bytes if self._payload_bytes else sources)
        self._lengths.append(lengths)
        self._payload.append(payload)
        self._payload_bytes += len(payload)
        self.count += len(starts)

    def around(self, table: str, rows: Array) -> None:
        """Frames: these rows (bool[n]), what is above them and, for resources and scopes, the message inside."""
        self._frames[table] = self._frames[table] | rows if table in self._frames else rows
        for above in self.batch.tables_above(table):
            self._frames[above] = np.ones(self.batch.table(above).row_count, np.bool_)

    def frame(self, starts: Array, starts_of_content: Array, ends: Array) -> None:
        """Further frames."""
        rows = np.empty(len(starts), [("start", np.int32), ("body", np.int32), ("end", np.int32)])
        rows["start"], rows["body"], rows["end"] = starts, starts_of_content, ends
        self._more_frames.append((rows, np.arange(len(starts)), "start"))

    def apply(self, without: str = "") -> tuple[bytes, dict[str, Array], Callable[[Array], Array]]:
        """The new bytes, all tables of the index but ``without`` with new offsets (writable), and what relocates further rows."""
        frames = list(self._more_frames)
        for table, mask in self._frames.items():
            rows, held = self.batch.table(table).rows, np.flatnonzero(mask)
            frames.append((rows, held, "start"))
            frames.extend((rows, held, name) for name in ("inner_start", "data_start") if name in (rows.dtype.names or ()))
        wire, shift, placed = rewrite(
            self.batch.wire,
            _joined(self._offsets),
            _joined(self._deleted),
            _joined(self._sources),
            _joined(self._lengths),
            b"".join(self._payload),
            frames,
        )
        tables = {name: take_rows(table, None, None, shift)[0] for name, table in self.batch.index.rows.items() if name != without}
        for first, last, note in self._notes:
            note(placed[first:last], tables)
        return wire, tables, shift.relocate


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
