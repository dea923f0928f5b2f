"""Maps 128-bit keys to slots, with numpy columns for the state of each slot. All stateful components and caches use it.

The table does not expire anything: its owner keeps a column of times and removes the slots that are too old. It is
not thread-safe.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from collector.model.arrays import I32, U64, Array, Mask, Records
from collector.model.checkpoint import CheckpointError, Parts, part_of
from collector.wire.hash import SlotTable, clear_rows

__all__ = ["KeyTable"]

_SLOTS_MAX = 2**30 - 1
_SPARSE_FROM_SLOTS = 8192
_RECORDS = ""  # the one column of a table of records
# Bytes per slot of the compiled table: key 16, live flag 1, free list 4, and up to 4 places of 4 bytes right after the
# table doubled.
_TABLE_BYTES_PER_SLOT = 37


class KeyTable:
    """Maps ``U64[n,2]`` keys to slots ``I32[n]``; freed slots are reused.

    >>> from collector.model import KeyTable
    >>> table = KeyTable({"count": np.int64})
    >>> slots, is_new = table.insert(traces.field("trace_id"))
    >>> slots.tolist(), is_new.tolist()
    ([0, 0, 1], [True, False, True])
    >>> np.add.at(table.column("count"), slots, 1)
    >>> table.column("count")[table.live()].tolist()
    [2, 1]
    >>> table.remove(slots[:1])
    >>> table.find(traces.field("trace_id")).tolist()
    [-1, -1, 1]
    """

    def __init__(
        self, columns: Mapping[str, Any] | np.dtype[np.void] | None = None, *, capacity: int = 1024, max_bytes: int = 0
    ) -> None:
        """Makes an empty table.

        Args:
            columns: The dtype of each column, or ``(dtype, shape)`` for several values per slot. Alternatively one
                record dtype: its fields are the columns, and the values of a slot are adjacent in memory (``records``).
                The values of a new key are zero.
            capacity: The initial number of slots; the table doubles when they are used up.
            max_bytes: The size that the table and its columns may grow to; 0 = no limit. Keys beyond it get slot -1.

        Raises:
            ValueError: ``capacity`` is below 1, or ``max_bytes`` is too small for one slot.
        """
        self._is_record = isinstance(columns, np.dtype)
        specs = {_RECORDS: columns} if isinstance(columns, np.dtype) else columns or {}
        shapes = {name: _dtype_and_shape(spec) for name, spec in specs.items()}
        slot_bytes = _TABLE_BYTES_PER_SLOT + sum(
            dtype.itemsize * int(np.prod(shape)) for dtype, shape in shapes.values()
        )
        self._slot_limit = min(max_bytes // slot_bytes, _SLOTS_MAX) if max_bytes else _SLOTS_MAX
        if self._slot_limit < 1:
            raise ValueError(f"max_bytes must be at least {slot_bytes}, the size of one slot, got {max_bytes}")
        self._table = SlotTable(min(capacity, self._slot_limit))
        self._columns = {
            name: np.zeros((self._table.capacity, *shape), dtype) for name, (dtype, shape) in shapes.items()
        }

    def __len__(self) -> int:
        return len(self._table)

    @property
    def memory_bytes(self) -> int:
        """The size of the table and its columns, including unused slots."""
        return self._table.memory_bytes + sum(column.nbytes for column in self._columns.values())

    def find(self, keys: U64) -> I32:
        """The slot of each key, I32[n]; -1 if the key is not in the table."""
        return self._table.find(keys)

    def insert(self, keys: U64, limit: int = 0) -> tuple[I32, Mask]:
        """Finds or inserts each key and returns ``(slots I32[n], is_new bool[n])``.

        Rows are taken in order; a key that occurs twice in ``keys`` gets one slot and is new at its first row only.
        Arrays from ``column`` must not be used afterwards, because the columns may have grown.

        Args:
            keys: U64[n,2].
            limit: No key is inserted once this many slots are in use; 0 = no limit. Keys that this limit or
                ``max_bytes`` excludes get the slot -1.
        """
        slots, is_new, reused = self._table.insert(keys, limit or _SLOTS_MAX, self._slot_limit)
        if reused:
            clear_rows(list(self._columns.values()), slots[is_new])
        capacity = self._table.capacity
        for name, column in self._columns.items():
            if len(column) < capacity:
                grown = np.zeros((capacity, *column.shape[1:]), column.dtype)
                grown[: len(column)] = column
                self._columns[name] = grown
        return slots, is_new

    def remove(self, slots: I32) -> None:
        """Frees slots for other keys. -1 and slots that are already free are ignored.

        Raises:
            IndexError: A slot was never in use; nothing is removed then.
        """
        self._table.remove(np.asarray(slots, np.int32))

    @property
    def is_sparse(self) -> bool:
        """Whether less than a quarter of the slots are in use, so that ``compact`` would give back most memory."""
        return self._table.capacity > _SPARSE_FROM_SLOTS and 4 * len(self) < self._table.capacity

    def compact(self) -> I32:
        """Moves everything into a table of the size that it needs; returns the new slot of each old one.

        Slots keep their order; those that were free have -1. Arrays from ``column`` must not be used afterwards.
        """
        live, old_capacity = self.live(), self._table.capacity
        keys = self.keys(live)
        columns = {name: column[live] for name, column in self._columns.items()}
        self._become_empty(min(max(1024, len(live) + len(live) // 4), self._slot_limit))
        slots, _ = self.insert(keys)
        for name, values in columns.items():
            self._columns[name][slots] = values
        moved = np.full(old_capacity, -1, np.int32)
        moved[live] = slots
        return moved

    def column(self, name: str) -> Array:
        """The writable column with one row per slot, including unused ones; valid until the next ``insert``."""
        return self._columns[_RECORDS][name] if self._is_record else self._columns[name]

    @property
    def records(self) -> Records:
        """The records of all slots, in a table made with a record dtype; valid until the next ``insert``."""
        return self._columns[_RECORDS]

    def keys(self, slots: I32) -> U64:
        """The keys of slots, U64[k,2].

        Raises:
            IndexError: A slot is not in use.
        """
        return self._table.keys(np.asarray(slots, np.int32))

    def live(self) -> I32:
        """The slots in use, in ascending order."""
        return self._table.live()

    # Checkpoints.

    def snapshot(self) -> dict[str, Array]:
        """Copies of the keys and columns of the slots in use: parts of a checkpoint, for ``restore``."""
        live = self.live()
        columns = {f"column {name}": self.column(name)[live] for name in self._names()}
        return {"slots": live, "keys": self.keys(live), **columns}

    def restore(self, parts: Parts) -> None:
        """Become the table of which ``parts`` are the snapshot, with the same slots. What the table had is gone.

        Raises:
            CheckpointError: The parts are not the snapshot of a table with these columns; the table is empty then.
        """
        capacity = min(1024, self._slot_limit)
        self._become_empty(capacity)
        slots = part_of(parts, "slots", np.int32)
        keys = part_of(parts, "keys", np.uint64, len(slots))
        names = self._names()
        columns = {name: part_of(parts, f"column {name}", self.column(name).dtype, len(slots)) for name in names}
        if any(columns[name].shape[1:] != self.column(name).shape[1:] for name in names) or keys.shape[1:] != (2,):
            raise CheckpointError("the columns of a table have another shape")
        if not len(slots):
            return
        used = int(slots[-1]) + 1
        if slots[0] < 0 or (np.diff(slots) <= 0).any() or used > self._slot_limit:
            raise CheckpointError("the slots of a table are not in order")
        # Slots that were free get keys that nobody can have chosen, and are freed again.
        all_keys = np.empty((used, 2), np.uint64)
        all_keys[:, 0] = np.frombuffer(os.urandom(8), np.uint64)
        all_keys[:, 1] = np.arange(used, dtype=np.uint64)
        all_keys[slots] = keys
        _, is_new = self.insert(all_keys)
        if not is_new.all():
            self._become_empty(capacity)
            raise CheckpointError("a table has the same key twice")
        self.remove(np.setdiff1d(np.arange(used, dtype=np.int32), slots))
        for name in names:
            self.column(name)[slots] = columns[name]

    def _names(self) -> tuple[str, ...]:
        return (self.records.dtype.names or ()) if self._is_record else tuple(self._columns)

    def _become_empty(self, capacity: int) -> None:
        self._table = SlotTable(capacity)
        self._columns = {
            name: np.zeros((self._table.capacity, *column.shape[1:]), column.dtype)
            for name, column in self._columns.items()
        }


def _dtype_and_shape(
    spec: DTypeLike | tuple[DTypeLike, int | tuple[int, ...]],
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    dtype = np.dtype(spec)  # numpy itself reads (dtype, shape)
    return dtype.base, dtype.shape
