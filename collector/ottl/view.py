"""A batch seen from the rows of one table: the columns that statements and conditions read, and what they write."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from collector.ottl.contexts import TABLES, Context
from collector.ottl.draft import Draft
from collector.ottl.values import Kind, Values

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.model import Batch
    from collector.model.arrays import Mask
    from collector.ottl.direct import DirectCondition

__all__ = ["View", "every_scalar", "failing", "spread"]


class View:
    """The rows of one context. It caches the columns that have been read until something changes them."""

    def __init__(self, batch: Batch | Draft, context: Context) -> None:
        self.batch = batch
        self.table = TABLES[context]
        self.row_count = batch.table(self.table).row_count
        self.cache: dict[str, tuple[Values, Mask]] = {}
        """The path ``cache``: of each key the values and the rows that have it."""
        self.keeps_order = False
        """Whether a later statement depends on the order of attributes, which is then the Collector's."""
        self._read: dict[Any, Values] = {}

    @property
    def draft(self) -> Draft:
        """The batch, which may be changed."""
        assert isinstance(self.batch, Draft)
        return self.batch

    def column(self, key: tuple[Any, ...], table: str, make: Callable[[Any], Values]) -> Values:
        """The values that ``make`` reads from ``table``, one for each row of this view.

        ``key`` starts with the table and the first name of the path.
        """
        values = self._read.get(key)
        if values is None:
            values = make(self.batch)
            if table != self.table:
                values = values.take(self.batch.ancestor(table, self.table))
            self._read[key] = values
        return values

    def forget(self, table: str, key: str | None = None) -> None:
        """Read the columns of a table again: all attributes and fields, or all attributes that depend on a key."""
        name = None if key is None else repr(key)
        for read in [read for read in self._read if read[0] == table]:
            is_attribute = read[1] == "attributes"
            if name is None or (is_attribute and (len(read) < 3 or read[2] in {name, ""})):
                del self._read[read]

    def direct(self, condition: DirectCondition) -> tuple[Mask, int] | None:
        """``condition.mask`` of the batch; None if it has to be evaluated by columns, also because of changes."""
        batch = self.batch
        if isinstance(batch, Draft):
            unchanged = batch.unchanged(condition.read)
            return None if unchanged is None else condition.mask(unchanged)
        return condition.mask(batch)

    def lowered(self, table: str, values: Values, rows: Mask) -> tuple[Values, Mask]:
        """Values of this view's rows as values of the rows of ``table``, the view's own or one above it.

        Of several rows under one row of ``table`` the last counts, as when each is written in turn.
        """
        if table == self.table:
            return values, rows
        last = np.full(self.batch.table(table).row_count, -1, np.int64)
        chosen = np.flatnonzero(rows)
        last[self.batch.ancestor(table, self.table)[chosen]] = chosen
        is_written = last >= 0
        return (values if len(values) == 1 else values.take(np.where(is_written, last, 0))), is_written

    def nothing(self) -> Mask:
        """bool[n]: no row."""
        return np.zeros(self.row_count, np.bool_)


def failing(values: Values, rows: Mask) -> Mask:
    """bool[n]: those of ``rows`` on which the value could not be evaluated."""
    failed: Mask = rows & (values.kind == Kind.FAILED)
    return failed


def spread(values: Values, row_count: int) -> Values:
    """The values with one row for each row of a table."""
    return values if len(values) == row_count else values.take(np.zeros(row_count, np.int64))


def every_scalar(values: Values) -> list[Any]:
    """One Python value for each row."""
    codes, distinct = values.scalars()
    return [distinct[code] for code in codes.tolist()]
