"""Facts about traces computed from facts about spans: one sort of a batch's rows, then reductions over its runs.

``ufunc.at`` does the same an order of magnitude slower.
"""

from functools import cached_property

import numpy as np

from collector.model.arrays import I32, Array, Indices

__all__ = ["ByTrace"]


class ByTrace:
    """The rows of one batch, sorted by slot when that is first needed. Rows with slot -1 are left out."""

    row_slots: I32
    """The slot of each row, in the batch's order."""

    def __init__(self, row_slots: I32) -> None:
        self.row_slots = row_slots

    @cached_property
    def slots(self) -> I32:
        """The distinct slots, ascending."""
        return self.row_slots[self.first_rows()]

    @cached_property
    def counts(self) -> Indices:
        """The number of rows of each slot."""
        order, starts = self._runs
        counts: Indices = np.diff(starts, append=len(order))
        return counts

    @cached_property
    def _runs(self) -> tuple[Indices, Indices]:
        """The rows in order of their slots, and where the run of each slot begins."""
        order = np.argsort(self.row_slots, kind="stable")
        ordered = self.row_slots[order]
        if len(ordered) and ordered[0] < 0:
            first = np.searchsorted(ordered, 0)
            order, ordered = order[first:], ordered[first:]
        begins = np.ones(len(ordered), np.bool_)
        np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
        return order, np.flatnonzero(begins)

    def first_rows(self) -> Indices:
        """The first row of each slot, in the batch's order."""
        order, starts = self._runs
        return order[starts]

    def reduce(self, ufunc: np.ufunc, values: Array) -> Array:
        """One value per slot: ``np.add``, ``np.maximum``, ``np.bitwise_or`` … over its rows."""
        if not len(self.slots):
            return values[:0]
        order, starts = self._runs
        reduced: Array = ufunc.reduceat(values[order], starts)
        return reduced

    def fold(self, ufunc: np.ufunc, column: Array, values: Array) -> None:
        """Do what ``ufunc.at(column, slots, values)`` does."""
        if len(self.slots):
            column[self.slots] = ufunc(column[self.slots], self.reduce(ufunc, values))
