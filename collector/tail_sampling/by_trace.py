"""Facts about traces computed from facts about spans: one sort of a batch's rows, then reductions over its runs.

``ufunc.at`` does the same an order of magnitude slower.
"""

import numpy as np

from collector.model.arrays import I32, Array, Indices

__all__ = ["ByTrace", "by_trace"]


def by_trace(slots: I32) -> "ByTrace":
    """The rows of a batch grouped by ``slots``. Sampler and decider pass the same array, which is sorted once."""
    global _last  # noqa: PLW0603 - a cache of one entry
    if _last is None or _last[0] is not slots:
        _last = slots, ByTrace(slots)
    return _last[1]


class ByTrace:
    """The rows of one batch, sorted by slot. Rows with slot -1 are left out."""

    __slots__ = ("_order", "_starts", "counts", "slots")

    slots: I32
    """The distinct slots, ascending."""
    counts: Indices
    """The number of rows of each slot."""

    def __init__(self, slots: I32) -> None:
        order = np.argsort(slots, kind="stable")
        ordered = slots[order]
        if len(ordered) and ordered[0] < 0:
            order = order[np.searchsorted(ordered, 0) :]
            ordered = slots[order]
        begins = np.ones(len(ordered), np.bool_)
        np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
        starts = np.flatnonzero(begins)
        self._order, self._starts = order, starts
        self.slots = ordered[starts]
        self.counts = np.empty(len(starts), np.intp)
        if len(starts):
            np.subtract(starts[1:], starts[:-1], out=self.counts[:-1])
            self.counts[-1] = len(ordered) - starts[-1]

    def first_rows(self) -> Indices:
        """The first row of each slot, in the batch's order."""
        return self._order[self._starts]

    def reduce(self, ufunc: np.ufunc, values: Array) -> Array:
        """One value per slot: ``np.add``, ``np.maximum``, ``np.bitwise_or`` … over its rows."""
        if not len(self.slots):
            return values[:0]
        reduced: Array = ufunc.reduceat(values[self._order], self._starts)
        return reduced

    def fold(self, ufunc: np.ufunc, column: Array, values: Array) -> None:
        """Do what ``ufunc.at(column, slots, values)`` does."""
        if len(self.slots):
            column[self.slots] = ufunc(column[self.slots], self.reduce(ufunc, values))


_last: tuple[I32, ByTrace] | None = None
