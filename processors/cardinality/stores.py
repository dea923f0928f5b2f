"""Rows of arrays beside the key tables: buckets of histograms, whose number differs from metric to metric.

A store holds everything of one shape (one set of bounds; one class of widths), so that a batch's rows are read and written by one
fancy index each.
"""

from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["I32", "I64", "U64", "Lines", "Mask", "Rows", "add_rows", "previous"]

I32: TypeAlias = npt.NDArray[np.int32]
I64: TypeAlias = npt.NDArray[np.int64]
U64: TypeAlias = npt.NDArray[np.uint64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_GROWTH: Final = 1.25  # memory is bounded by what is allocated, so little is allocated ahead


class Rows:
    """Columns with rows to give out and take back."""

    def __init__(self, **columns: Any) -> None:
        """``columns``: name to dtype, or to ``(dtype, shape)``."""
        self._columns = {name: np.zeros((1, *np.dtype(spec).shape), np.dtype(spec).base) for name, spec in columns.items()}
        self.used = 0
        self._free: list[I32] = []

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._columns[name]

    @property
    def nbytes(self) -> int:
        """Memory, used or not."""
        return sum(column.nbytes for column in self._columns.values())

    @property
    def free_count(self) -> int:
        """Rows given back and not yet in use again."""
        return sum(len(rows) for rows in self._free)

    def allocate(self, count: int) -> I32:
        """Rows, zero; those given back first."""
        given: list[I32] = []
        needed = count
        while needed and self._free:
            rows = self._free.pop()
            if len(rows) > needed:
                self._free.append(rows[needed:])
                rows = rows[:needed]
            given.append(rows)
            needed -= len(rows)
        given.append(np.arange(self.used, self.used + needed, dtype=np.int32))
        self.used += needed
        rows = np.concatenate(given)
        for name, column in self._columns.items():
            if self.used > len(column):
                grown = np.zeros((max(self.used, int(_GROWTH * len(column))), *column.shape[1:]), column.dtype)
                grown[: len(column)] = column
                self._columns[name] = column = grown  # noqa: PLW2901 - the column is the new one from here on
            column[rows] = 0
        return rows

    def release(self, rows: I32) -> None:
        """Give rows back. With the last one, all memory."""
        if len(rows):
            self._free.append(rows)
        if self.used and self.free_count == self.used:
            self._columns = {name: np.zeros((1, *column.shape[1:]), column.dtype) for name, column in self._columns.items()}
            self.used, self._free = 0, []


class Lines:
    """Points of known sources, ordered by source and then by time: what the types add up. All arrays are (n,)."""

    __slots__ = (
        "cumulative", "first", "fresh", "full", "last", "metric", "overwrites", "points", "rows", "slots", "started_anew", "target",
    )  # fmt: skip

    slots: I32
    """Source slots."""
    rows: npt.NDArray[np.intp]
    """Rows of the batch's points."""
    points: npt.NDArray[np.void]
    metric: npt.NDArray[np.void]
    target: I32
    """Accumulator slots; -1: followed, not added up (the series has its name)."""
    first: Mask
    """The first line of its source in this batch."""
    last: Mask
    fresh: Mask
    """The first line ever of its source."""
    full: Mask
    """Rule 2: a fresh line counts with its whole value."""
    overwrites: Mask
    """The first line that goes into the series of its own name: with its whole value, which that name shows already."""
    started_anew: Mask
    cumulative: Mask

    def take(self, mask: Mask) -> "Lines":
        """Some of the lines; whole sources."""
        taken = Lines()
        for name in self.__slots__:
            setattr(taken, name, getattr(self, name)[mask])
        return taken


def previous(values: npt.NDArray[Any], stored: npt.NDArray[Any], first: Mask) -> npt.NDArray[Any]:
    """What each line's source had before it: the line above, or what is stored."""
    shifted = np.empty_like(values)
    shifted[1:] = values[:-1]
    shifted[:1] = values[:1]
    wide = first.reshape(-1, *([1] * (values.ndim - 1)))
    return np.where(wide, stored, shifted)


def add_rows(into: npt.NDArray[Any], rows: npt.NDArray[Any], gains: npt.NDArray[Any]) -> None:
    """``into[rows] += gains`` for (n, width) gains, rows standing more than once."""
    if not len(rows):
        return
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    into[ordered[starts]] += np.add.reduceat(gains[order], starts, axis=0)
