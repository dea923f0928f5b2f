"""Columns whose rows are allocated and released: buckets of sources and accumulators, all of one shape."""

from typing import Any, Final

import numpy as np

from collector.model.arrays import I32, Array
from collector.model.checkpoint import CheckpointError, Part, Parts, part_of

__all__ = ["RowPool"]

_GROWTH: Final = 1.25  # the bound on memory applies to what is allocated, so little is allocated in advance


class RowPool:
    """Rows of some columns."""

    def __init__(self, **columns: Any) -> None:
        """``columns``: name to dtype, or to ``(dtype, shape)``."""
        self._columns = {
            name: np.zeros((1, *np.dtype(spec).shape), np.dtype(spec).base) for name, spec in columns.items()
        }
        self.used = 0
        """Rows that were allocated at some time since the pool was last empty."""
        self._free: list[I32] = []

    def __getitem__(self, name: str) -> Array:
        return self._columns[name]

    @property
    def size_bytes(self) -> int:
        """The memory of all rows, used or not."""
        return sum(column.nbytes for column in self._columns.values())

    @property
    def _free_count(self) -> int:
        return sum(len(rows) for rows in self._free)

    def allocate(self, count: int) -> I32:
        """Rows that are zero; released rows are used first."""
        parts: list[I32] = []
        needed = count
        while needed and self._free:
            rows = self._free.pop()
            if len(rows) > needed:
                self._free.append(rows[needed:])
                rows = rows[:needed]
            parts.append(rows)
            needed -= len(rows)
        parts.append(np.arange(self.used, self.used + needed, dtype=np.int32))
        self.used += needed
        rows = np.concatenate(parts)
        for name in self._columns:
            self._grow(name)
            self._columns[name][rows] = 0
        return rows

    def _grow(self, name: str) -> None:
        column = self._columns[name]
        if self.used > len(column):
            grown = np.zeros((max(self.used, int(_GROWTH * len(column))), *column.shape[1:]), column.dtype)
            grown[: len(column)] = column
            self._columns[name] = grown

    def parts(self) -> dict[str, Part]:
        """All rows, for a checkpoint."""
        free = np.concatenate(self._free) if self._free else np.zeros(0, np.int32)
        return {"free": free, **{name: column[: self.used] for name, column in self._columns.items()}}

    def restore(self, parts: Parts) -> None:
        """Become the pool of which ``parts`` are.

        Raises:
            CheckpointError: They are those of another pool.
        """
        free = part_of(parts, "free", np.int32)
        restored = {name: part_of(parts, name, column.dtype) for name, column in self._columns.items()}
        used = {len(column) for column in restored.values()}
        if len(used) != 1 or any(
            column.shape[1:] != self._columns[name].shape[1:] for name, column in restored.items()
        ):
            raise CheckpointError("the rows of a pool have another shape")
        [self.used] = used
        if len(free) and not (0 <= free.min() <= free.max() < self.used):
            raise CheckpointError("a free row of a pool is not in it")
        self._free = [free.copy()] if len(free) else []
        self._columns = {
            name: column.copy() if self.used else np.zeros((1, *column.shape[1:]), column.dtype)
            for name, column in restored.items()
        }

    def release(self, rows: I32) -> None:
        """Give rows back; when none is in use any more, all memory is freed."""
        if len(rows):
            self._free.append(rows)
        if self.used and self._free_count == self.used:
            self._columns = {
                name: np.zeros((1, *column.shape[1:]), column.dtype) for name, column in self._columns.items()
            }
            self.used, self._free = 0, []
