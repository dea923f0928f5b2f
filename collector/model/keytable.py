"""KeyTable: 128-bit keys to slots, with numpy columns a slot. Every stateful component and cache keeps its state in one.

It knows nothing of time: who wants expiry keeps a column of times and removes the slots that are too old. Not for
several threads.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from collector.model.arrays import I32, U64, Array, Mask
from collector.wire.hash import SlotTable, clear_rows

__all__ = ["KeyTable"]

_SLOTS_MAX = 2**30 - 1
_RECORDS = ""  # the one column of a table of records
# What the compiled table holds a slot: key 16, live flag 1, free list 4, and up to 4 places of 4 bytes right after a
# doubling.
_TABLE_BYTES_PER_SLOT = 37


class KeyTable:
    """``U64[n,2]`` keys to slots ``I32[n]``; freed slots are used again."""

    def __init__(
        self, columns: Mapping[str, Any] | np.dtype[np.void] | None = None, *, capacity: int = 1024, max_bytes: int = 0
    ) -> None:
        """An empty table.

        Args:
            columns: Name to dtype, or to ``(dtype, shape)`` for several values a slot. A new key's values are zero. Or
                one record dtype:
                its fields are the columns, and a slot's values stand together (``records``).
            capacity: How many slots to have room for at first; the table doubles when they are used up.
            max_bytes: What table and columns together may grow to; 0 = no limit. Keys beyond it get slot -1.

        Raises:
            ValueError: ``capacity`` is below 1, or ``max_bytes`` does not hold one slot.
        """
        self._is_record = isinstance(columns, np.dtype)
        specs = {_RECORDS: columns} if isinstance(columns, np.dtype) else columns or {}
        shapes = {name: _normal(spec) for name, spec in specs.items()}
        slot_bytes = _TABLE_BYTES_PER_SLOT + sum(
            dtype.itemsize * int(np.prod(shape)) for dtype, shape in shapes.values()
        )
        self._slot_limit = min(max_bytes // slot_bytes, _SLOTS_MAX) if max_bytes else _SLOTS_MAX
        if self._slot_limit < 1:
            raise ValueError(f"max_bytes {max_bytes} does not hold one slot of {slot_bytes} bytes")
        self._table = SlotTable(min(capacity, self._slot_limit))
        self._columns = {
            name: np.zeros((self._table.capacity, *shape), dtype) for name, (dtype, shape) in shapes.items()
        }

    def __len__(self) -> int:
        return len(self._table)

    @property
    def memory_bytes(self) -> int:
        """What the table and its columns hold, used or not."""
        return self._table.memory_bytes + sum(column.nbytes for column in self._columns.values())

    def find(self, keys: U64) -> I32:
        """The slot of each key, I32[n]; -1 = not there."""
        return self._table.find(keys)

    def insert(self, keys: U64, limit: int = 0) -> tuple[I32, Mask]:
        """Finds each key's slot or gives it one: ``(slots I32[n], is_new bool[n])``.

        A key that stands twice in ``keys`` gets one slot and is new at its first row. Rows are taken in order. Views
        from ``column`` are not to be used after it: the columns may have grown.

        Args:
            keys: U64[n,2].
            limit: No new key once so many slots are in use; 0 = no limit. Keys that it or ``max_bytes`` turns away get
                -1.
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
        """Frees slots for other keys; -1 and slots that are free already are passed over.

        Raises:
            IndexError: a slot was never given; nothing was removed.
        """
        self._table.remove(np.asarray(slots, np.int32))

    def column(self, name: str) -> Array:
        """The writable column, one row a slot, used or not; valid until the next ``insert``."""
        return self._columns[_RECORDS][name] if self._is_record else self._columns[name]

    @property
    def records(self) -> NDArray[np.void]:
        """The slots' records, of a table made with a record dtype; valid until the next ``insert``."""
        return self._columns[_RECORDS]

    def keys(self, slots: I32) -> U64:
        """The keys of slots in use, U64[k,2].

        Raises:
            IndexError: a slot is not in use.
        """
        return self._table.keys(np.asarray(slots, np.int32))

    def live(self) -> I32:
        """The slots in use, ascending."""
        return self._table.live()


def _normal(spec: DTypeLike | tuple[DTypeLike, int | tuple[int, ...]]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    dtype = np.dtype(spec)  # numpy itself reads (dtype, shape)
    return dtype.base, dtype.shape
