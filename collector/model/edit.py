"""Collects changes to a batch; one pass then writes them (``rewrite``). Nothing is written before ``apply``.

A change says which rows it is for; the last one for a row wins. Changes of attributes are kept as a log, which one
kernel plays for each
row: many ``set`` on one table cost one pass. A key repeated on a row counts as one attribute: setting it
replaces the last and deletes the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, Self, TypeVar

import numpy as np

from collector.model.attributes import AttributeColumn, merge_columns
from collector.model.changes import MODES, UNTOUCHED, FieldChange, TableChange, Values, mask_of
from collector.model.columns import StringColumn
from collector.model.fields import field_of
from collector.model.rewrite import written
from collector.model.table import ITEM
from collector.wire.splice.attributes import DELETE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.model.batch import Batch
    from collector.model.columns import Array
    from collector.model.values import AttributeValue

__all__ = ["Edit"]

B = TypeVar("B", bound="Batch")


class Edit(Generic[B]):
    """Changes to one batch. Methods return the edit itself; ``where`` is bool[n] over the table's rows, None = all."""

    def __init__(self, batch: B) -> None:
        """Use ``Batch.edit``."""
        self._batch = batch
        self._changes: dict[str, TableChange] = {}

    def attribute(self, key: str, table: str = ITEM, inherit: bool = False) -> AttributeColumn:
        """As ``Batch.attribute``, with the changes collected so far."""
        table = self._batch.table_name(table)
        column = self._own_attribute(key, table)
        if inherit:
            for ancestor in ("scopes", "resources"):
                if ancestor in self._batch.tables_above(table):
                    column = column.fill(self._own_attribute(key, ancestor).take(self._batch.ancestor(ancestor, table)))
        return column

    def set(
        self,
        key: str,
        values: AttributeValue | AttributeColumn | StringColumn | Array,
        where: Array | None = None,
        *,
        table: str = ITEM,
        mode: Literal["insert", "update", "upsert"] = "upsert",
    ) -> Self:
        """Set an attribute: one value, or a column with one value a row, whose absent rows are left alone.

        ``insert``: only where it is absent; ``update``: only where it is there. numpy ints become INT, floats DOUBLE,
        bools BOOL.

        Raises:
            TypeError: no attribute value.
            ValueError: a column or a mask of another length.
        """
        table = self._batch.table_name(table)
        if table in {"metrics", "quantiles"}:
            raise KeyError(f"{table} have no attributes")
        change = self._change(table)
        count = change.row_count
        given, mask = Values(values, count), mask_of(where, count)
        if count and (mask is None or b"\1" in mask.tobytes()):  # several times as fast as any() on short masks
            change.add(key, MODES[mode], mask, given)
        return self

    def delete(self, keys: str | Iterable[str], where: Array | None = None, *, table: str = ITEM) -> Self:
        """Delete attributes."""
        table = self._batch.table_name(table)
        change = self._change(table)
        mask = mask_of(where, change.row_count)
        if mask is None or mask.any():
            for key in [keys] if isinstance(keys, str) else keys:
                change.add(key, DELETE, mask, None)
        return self

    def delete_attributes(self, rows: Array, *, table: str = ITEM) -> Self:
        """Delete the attributes of a mask, bool[m] over ``attributes(table)`` of the batch.

        What a row shows of a key goes with all that it hid.
        """
        return self._change_rows(rows, None, table)

    def replace_attributes(self, rows: Array, values: StringColumn, *, table: str = ITEM) -> Self:
        """Give the attributes of a mask, bool[m] over ``attributes(table)`` of the batch, a text: ``values`` has m rows."""
        return self._change_rows(rows, values, table)

    def rename(self, old: str, new: str, *, table: str = ITEM) -> Self:
        """Give an attribute another key; one that has that key already is replaced."""
        column = self.attribute(old, table)
        if old == new or not column.present.any():
            return self
        return self.set(new, column, table=table).delete(old, table=table)

    def set_field(
        self,
        name: str,
        values: AttributeValue | AttributeColumn | StringColumn | Array,
        where: Array | None = None,
        *,
        table: str = ITEM,
    ) -> Self:
        """Set a field: one value, or a column with one value a row; absent rows of a column are left alone. 0 unsets a number or an id.

        Raises:
            KeyError: no such field, or one that cannot be set.
            TypeError, ValueError: values that are not this field's.
        """
        table = self._batch.table_name(table)
        known = field_of(table, name)
        if not known.number:
            raise KeyError(f"the field {name} of {table} cannot be set")
        count = self._change(table).row_count
        mask = np.ones(count, np.bool_) if where is None else np.array(where, np.bool_)
        if len(mask) != count:
            raise ValueError(f"a mask of {len(mask)} for {count} rows")
        change = self._change(table).fields.setdefault(name, FieldChange(known, np.full(count, UNTOUCHED, np.int32)))
        column = change.column(values, count)
        if isinstance(column, AttributeColumn | StringColumn):
            mask = mask & column.present
        change.winner[mask] = len(change.columns)
        change.columns.append(column)
        return self

    def apply(self) -> B:
        """The changed batch, its index carried over; the same object if nothing changed."""
        return written(self._batch, self._changes) if self._changes else self._batch

    def _change(self, table: str) -> TableChange:
        change = self._changes.get(table)
        if change is None:
            change = self._changes[table] = TableChange(self._batch.table(table).row_count)
        return change

    def _own_attribute(self, key: str, table: str) -> AttributeColumn:
        column = self._batch.attribute(key, table)
        pending = self._changes.get(table)
        if pending is None or not pending.concerns(key):
            return column
        changes = pending.of_key(key)
        winner, at = pending.read_log(
            self._batch.table(table).rows, self._batch.attributes(table), key, changes
        ).resolve(0)
        if not len(winner) or winner.max() == winner.min() == UNTOUCHED:
            return column
        parts = [((winner == UNTOUCHED) & column.present, column)]
        for number in np.unique(winner[winner >= 0]).tolist():
            values = changes[number].values
            assert values is not None
            parts.append((winner == number, values.column.take(np.where(winner == number, at, 0))))
        return merge_columns(len(column), parts)

    def _change_rows(self, rows: Array, values: StringColumn | None, table: str) -> Self:
        table = self._batch.table_name(table)
        count = self._batch.attributes(table).row_count
        mask = np.asarray(rows, np.bool_)
        if len(mask) != count or (values is not None and len(values) != count):
            raise ValueError(
                f"{count} attributes: a mask of {len(mask)}"
                + (f" and {len(values)} values" if values is not None else "")
            )
        if mask.any():
            self._change(table).add_by_attribute(
                mask_of(mask, count), None if values is None else Values(values, count)
            )
        return self
