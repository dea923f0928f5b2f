"""Patches of a request in the making: what to put where, and the messages around it whose lengths follow.

Rules of patches and frames: ``collector.wire.splice.rewrite``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from collector.model.columns import Array
from collector.model.index import Later, now
from collector.wire.splice.rewrite import Shift, rewrite, take_rows

if TYPE_CHECKING:
    from collector.model.batch import Batch

__all__ = ["Note", "Patches", "Spliced"]

_INNER_FRAMES: Final = {"resources": "inner_start", "scopes": "inner_start", "metrics": "data_start"}
"""The message inside, whose length follows as well."""
Note: TypeAlias = Callable[[Array, Array], None]
"""Told where its patches stand in the new request (int32) and the new rows of its table (writable)."""


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
        self._whole: set[str] = set()  # tables all of whose rows are frames
        self._more_frames: list[tuple[Array, Array, str]] = []
        self._notes: dict[str, list[tuple[int, int, Note]]] = {}

    def cut(self, starts: Array, ends: Array) -> None:
        """Delete these bytes."""
        nothing = np.zeros(len(starts), np.int64)
        self.add(starts.astype(np.int64), ends.astype(np.int64) - starts, nothing, nothing, b"")

    def put(
        self,
        table: str,
        starts: Array,
        ends: Array,
        payload: bytes,
        sources: Array,
        lengths: Array,
        note: Note | None = None,
    ) -> None:
        """Replace these bytes (none where start = end); ``note`` is told of the table's rows."""
        if note is not None:
            self._notes.setdefault(table, []).append((self.count, self.count + len(starts), note))
        self.add(starts.astype(np.int64), ends.astype(np.int64) - starts, sources, lengths, payload)

    def add(self, offsets: Array, deleted: Array, sources: Array, lengths: Array, payload: bytes) -> tuple[int, int]:
        """As ``splice.rewrite`` takes them; returns which patches they are: first and one past the last."""
        first = self.count
        self._offsets.append(offsets)
        self._deleted.append(deleted)
        self._sources.append(sources + self._payload_bytes if self._payload_bytes else sources)
        self._lengths.append(lengths)
        self._payload.append(payload)
        self._payload_bytes += len(payload)
        self.count += len(offsets)
        return first, self.count

    def note(self, table: str, first: int, last: int, note: Note) -> None:
        """``note`` is told where these patches stand."""
        self._notes.setdefault(table, []).append((first, last, note))

    def around(self, table: str, rows: Array) -> None:
        """Frames: these rows (bool[n]), what is above them and, for resources and scopes, the message inside."""
        self._frames[table] = self._frames[table] | rows if table in self._frames else rows
        self._whole.update(self.batch.tables_above(table))

    def frame(self, starts: Array, starts_of_content: Array, ends: Array) -> None:
        """Further frames."""
        rows = np.empty(len(starts), [("start", np.int32), ("body", np.int32), ("end", np.int32)])
        rows["start"], rows["body"], rows["end"] = starts, starts_of_content, ends
        self._more_frames.append((rows, np.arange(len(starts)), "start"))

    def apply(self) -> "Spliced":
        """The new bytes, and how to make the index of them."""
        frames = []
        # from the top: then they are in order, but for batches of several resources or scopes
        for table in self.batch.tables:
            if table in self._whole or table in self._frames:
                rows = self.batch.table(table).rows
                held = np.arange(len(rows)) if table in self._whole else self._frames[table].nonzero()[0]
                frames.append((rows, held, "start"))
                if table in _INNER_FRAMES:
                    frames.append((rows, held, _INNER_FRAMES[table]))
        frames += self._more_frames
        wire, shift, placed = rewrite(
            self.batch.wire,
            _joined(self._offsets),
            _joined(self._deleted),
            _joined(self._sources),
            _joined(self._lengths),
            self._payload[0] if len(self._payload) == 1 else b"".join(self._payload),
            frames,
        )
        return Spliced(wire, shift, placed, self._notes)


@dataclass(slots=True)
class Spliced:
    """New bytes, and what the old rows become over them."""

    wire: bytes
    shift: Shift
    placed: Array
    """int32[p]: where each patch's bytes stand."""
    notes: dict[str, list[tuple[int, int, Note]]]

    def rows(self, table: str, held: "Array | Later[Array]") -> Later[Array]:
        """The new rows of a table none of whose rows was cut."""
        shift, notes = self.shift, [(self.placed[first:last], note) for first, last, note in self.notes.get(table, ())]

        def make() -> Array:
            rows = take_rows(now(held), None, None, shift)[0]
            for placed, note in notes:
                note(placed, rows)
            return rows

        return Later(make, held)

    def attributes(
        self, held: "tuple[Array, list[bytes]] | Later[tuple[Array, list[bytes]]]"
    ) -> Later[tuple[Array, list[bytes]]]:
        """The attributes of a table none of which was changed."""
        shift = self.shift

        def make() -> tuple[Array, list[bytes]]:
            rows, keys = now(held)
            return shift.relocate(rows), keys

        return Later(make, held if isinstance(held, Later) else held[0])


def _joined(parts: list[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
