"""Collects changes to a batch; one pass then writes them (``rewrite``). Nothing is written before ``apply``.

A change says which rows it is for; the last one for a row wins. A key repeated on a row counts as one attribute: setting it
replaces the last and deletes the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Literal, Self, TypeVar

import numpy as np

from collector.model.attributes import AttributeColumn, as_column, merge_columns
from collector.model.columns import StringColumn
from collector.model.fields import field_of
from collector.model.rewrite import DELETED, UNTOUCHED, FieldChange, KeyChange, TableChange, written
from collector.model.table import ITEM
from collector.wire.splice_values import find_key

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

        ``insert``: only where it is absent; ``update``: only where it is there. numpy ints become INT, floats DOUBLE, bools BOOL.

        Raises:
            TypeError: no attribute value.
            ValueError: a column of another length.
        """
        table = self._batch.table_name(table)
        if table in {"metrics", "quantiles"}:
            raise KeyError(f"{table} have no attributes")
        column = as_column(values, self._row_count(table))
        mask = column.present if where is None else column.present & where
        if not mask.any():
            return self
        if mode != "upsert":
            present = self._present(key, table)
            mask = mask & (present if mode == "update" else ~present)
            if not mask.any():
                return self
        change = self._key(key, table)
        change.winner[mask] = len(change.columns)
        change.columns.append(column)
        return self

    def delete(self, keys: str | Iterable[str], where: Array | None = None, *, table: str = ITEM) -> Self:
        """Delete attributes."""
        table = self._batch.table_name(table)
        for key in [keys] if isinstance(keys, str) else keys:
            if key not in self._change(table).keys and self._batch.attributes(table).code_of(key) < 0:
                continue
            mask = self._present(key, table)
            self._key(key, table).winner[mask if where is None else mask & where] = DELETED
        return self

    def delete_attributes(self, rows: Array, *, table: str = ITEM) -> Self:
        """Delete the attributes of a mask, bool[m] over ``attributes(table)`` of the batch.

        What a row shows of a key goes with all that it hid.
        """
        return self._change_rows(rows, None, self._batch.table_name(table))

    def replace_attributes(self, rows: Array, values: StringColumn, *, table: str = ITEM) -> Self:
        """Give the attributes of a mask, bool[m] over ``attributes(table)`` of the batch, a text: ``values`` has m rows."""
        return self._change_rows(rows, AttributeColumn.of_text(values), self._batch.table_name(table))

    def rename(self, old: str, new: str, *, table: str = ITEM) -> Self:
        """Give an attribute another key; one that has that key already is replaced."""
        column = self.attribute(old, table)
        return self if old == new else self.set(new, column, table=table).delete(old, table=table)

    def set_field(
        self, name: str, values: AttributeValue | AttributeColumn | StringColumn | Array, where: Array | None = None, *, table: str = ITEM
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
        count = self._row_count(table)
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
        changes = {table: change for table, change in self._changes.items() if change.changes()}
        return written(self._batch, changes) if changes else self._batch

    def _row_count(self, table: str) -> int:
        return self._batch.table(table).row_count

    def _change(self, table: str) -> TableChange:
        return self._changes.setdefault(table, TableChange())

    def _own_attribute(self, key: str, table: str) -> AttributeColumn:
        column = self._batch.attribute(key, table)
        change = self._changes.get(table)
        if change is None:
            return column
        parts: list[tuple[Array, AttributeColumn]] = []
        kept = column.present.copy()
        if change.row_winner is not None:
            every = self._batch.attributes(table)
            index = find_key(every.rows, every.code_of(key), len(column))
            winner = np.append(change.row_winner, np.int32(UNTOUCHED))[index]
            kept &= winner == UNTOUCHED
            parts += [(winner == number, values.take(index)) for number, values in enumerate(change.row_columns)]
        if key in change.keys:
            winner = change.keys[key].winner
            parts = [(mask & (winner == UNTOUCHED), values) for mask, values in parts]
            kept &= winner == UNTOUCHED
            parts += [(winner == number, values) for number, values in enumerate(change.keys[key].columns)]
        return merge_columns(len(column), [(kept, column), *parts]) if parts or not kept.all() else column

    def _present(self, key: str, table: str) -> Array:
        """bool[n]: which rows have the attribute after the changes."""
        every = self._batch.attributes(table)
        index = find_key(every.rows, every.code_of(key), self._row_count(table))
        present: Array = index >= 0
        change = self._change(table)
        if change.row_winner is not None:
            present &= np.append(change.row_winner, np.int32(UNTOUCHED))[index] != DELETED
        if key in change.keys:
            winner = change.keys[key].winner
            present = np.where(winner == UNTOUCHED, present, winner >= 0)
        return present

    def _key(self, key: str, table: str) -> KeyChange:
        keys = self._change(table).keys
        if key not in keys:
            keys[key] = KeyChange(np.full(self._row_count(table), UNTOUCHED, np.int32))
        return keys[key]

    def _change_rows(self, rows: Array, column: AttributeColumn | None, table: str) -> Self:
        every = self._batch.attributes(table)
        rows = np.asarray(rows, np.bool_)
        if len(rows) != every.row_count or (column is not None and len(column) != every.row_count):
            raise ValueError(
                f"{every.row_count} attributes: a mask of {len(rows)}" + (f" and {len(column)} values" if column is not None else "")
            )
        if column is not None:
            rows = rows & column.present
        if not rows.any():
            return self
        change = self._change(table)
        if change.row_winner is None:
            change.row_winner = np.full(every.row_count, UNTOUCHED, np.int32)
        number = DELETED if column is None else len(change.row_columns)
        change.row_winner[rows] = number
        if column is not None:
            change.row_columns.append(column)
        for key, by_key in change.keys.items():  # what was set by key before: this comes later and wins
            index = find_key(every.rows, every.code_of(key), len(by_key.winner))
            owners = (index >= 0) & np.append(rows, False)[index] & (by_key.winner != UNTOUCHED)
            if column is None:
                by_key.winner[owners] = DELETED
            else:
                by_key.winner[owners] = len(by_key.columns)
                by_key.columns.append(column.take(index))
        return self
