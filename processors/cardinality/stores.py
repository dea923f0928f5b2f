"""What is remembered: records of sources and accumulators, and rows of arrays beside them for buckets.

The records are the columns of a ``KeyTable`` and C structs in ``_fold``: a source is one cache line or two, whatever is
asked of it. A store of rows holds everything of one shape (one set of bounds; one class of widths).
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from collector.model.arrays import I32, I64, U64, Array, Mask

__all__ = [
    "ACCUMULATOR",
    "ADDS",
    "ENDED",
    "FOLDS",
    "FREED",
    "I32",
    "I64",
    "LINE",
    "LIVE",
    "NEW",
    "REASONS",
    "SOURCE",
    "U64",
    "Mask",
    "Rows",
    "chosen",
    "previous",
]


SOURCE: Final = np.dtype([
    ("start", "<u8"), ("time", "<u8"), ("value", "<i8"), ("seen", "<f4"), ("accumulator", "<i4"), ("mark", "<i4"),
    ("status", "u1"), ("kind", "u1"), ("is_double", "u1"),
], align=True)  # fmt: skip
"""A source.

``start``, ``time``: of its last point, ns. ``value``: the last value's bits, a double's if ``is_double``; of histograms
(set, row) of their buckets as two int32. ``seen``: monotonic s. ``accumulator``: slot, -1: the series has its name.
``mark``: scratch. ``status``: see below. ``kind``: METRIC type.
"""
ACCUMULATOR: Final = np.dtype([
    ("int", "<i8"), ("double", "<f8"), ("count", "<u8"), ("sum", "<f8"), ("min", "<f8"), ("max", "<f8"), ("pending", "<u8"),
    ("start", "<u8"), ("seen", "<f8"), ("set", "<i4"), ("row", "<i4"), ("is_double", "u1"), ("touched", "u1"), ("fold", "u1"),
    ("kind", "u1"), ("lacks_sum", "u1"), ("lacks_range", "u1"),
], align=True)  # fmt: skip
"""A series that we write.

``int``, ``double``: the two parts of a sum. ``count`` to ``max``: of histograms. ``pending``: scratch. ``start``: ns.
``seen``: monotonic s. ``set``, ``row``: of buckets; set -1: none yet. ``touched``: since the last flush. ``fold``:
index of ``FOLDS``. ``kind``: METRIC type.
"""
LINE: Final = np.dtype([
    ("row", "<i4"), ("slot", "<i4"), ("target", "<i4"), ("kind", "u1"), ("first", "?"), ("last", "?"), ("fresh", "?"), ("full", "?"),
    ("overwrites", "?"), ("started_anew", "?"), ("cumulative", "?"),
], align=True)  # fmt: skip
"""A point of a known source; those of a source stand together, in order of time.

``row``: of the batch's points. ``slot``: its source. ``target``: accumulator slot; -1: followed, not added up (the
series has its name). ``kind``: METRIC type. ``first``, ``last``: of its source in this batch. ``fresh``: the first line
ever of its source. ``full``: rule 2, a fresh line counts with its whole value. ``overwrites``: the first line that goes
into the series of its own name: with its whole value, which that name shows already. ``started_anew``: under another
start time than the line before.
"""
NEW, LIVE, ENDED, FREED = range(4)
"""``status`` of a source: just inserted; known; said NO_RECORDED_VALUE; lost its name."""
FOLDS: Final = ("", "last", "sum", "max", "min", "mean")
"""``fold`` of an accumulator: 0 adds up, the others are made of the latest values of live sources."""
ADDS: Final = 0
REASONS: Final = ("", "not_finite", "out_of_range", "exponential", "state_full", "out_of_order")
"""Why a point was not folded."""

_GROWTH: Final = 1.25  # memory is bounded by what is allocated, so little is allocated ahead


class Rows:
    """Columns with rows to give out and take back."""

    def __init__(self, **columns: Any) -> None:
        """``columns``: name to dtype, or to ``(dtype, shape)``."""
        self._columns = {
            name: np.zeros((1, *np.dtype(spec).shape), np.dtype(spec).base) for name, spec in columns.items()
        }
        self.used = 0
        self._free: list[I32] = []

    def __getitem__(self, name: str) -> Array:
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
            self._columns = {
                name: np.zeros((1, *column.shape[1:]), column.dtype) for name, column in self._columns.items()
            }
            self.used, self._free = 0, []


def chosen(records: npt.NDArray[np.void], which: Array) -> npt.NDArray[np.void]:
    """``records[which]``, copied as whole records: numpy goes field by field, which takes ten times as long."""
    taken: npt.NDArray[np.void] = records.view(f"V{records.itemsize}")[which].view(records.dtype)
    return taken


def previous(values: Array, stored: Array, first: Mask) -> Array:
    """What each line's source had before it: the line above, or what is stored."""
    shifted = np.empty_like(values)
    shifted[1:] = values[:-1]
    shifted[:1] = values[:1]
    return np.where(first, stored, shifted)
