"""Collects changes to a batch, which one pass then writes (``rewrite``). Nothing is written before ``apply``.

Each change states the rows it applies to; the last change of a row wins. Attribute changes are kept as a log that one
kernel plays for each row, so many ``set`` on one table cost one pass. A key that is repeated on a row counts as one
attribute: setting it replaces its last occurrence and deletes the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

import numpy as np

from collector.model.attributes import AttributeColumn, merge_columns
from collector.model.changes import (
    MODES,
    UNTOUCHED,
    FieldChange,
    NewValues,
    TableChange,
    as_mask,
    as_mask_bytes,
)
from collector.model.columns import StringColumn
from collector.model.fields import field_spec
from collector.model.rewrite import apply_changes
from collector.model.schema import ITEM
from collector.model.tables import Tables
from collector.wire.splice.attribute_log import DELETE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.model.arrays import Array, Mask
    from collector.model.values import AttributeValue

__all__ = ["Edit"]

B = TypeVar("B", bound=Tables)


class Edit(Generic[B]):
    """Changes to one batch, made with ``Batch.edit``.

    Methods return the edit itself, so calls can be chained. ``where`` is bool[n] over the rows of the table; None means
    all rows.

    >>> is_server = traces.field("kind") == 2
    >>> edited = traces.edit().set("tier", "front", where=is_server).delete("http.status").apply()
    >>> edited.attribute("tier").text.to_list()
    ['front', None, 'front']
    """

    def __init__(self, batch: B) -> None:
        """Called by ``Batch.edit``."""
        self._batch = batch
        self._changes: dict[str, TableChange] = {}

    def attribute(self, key: str, table: str = ITEM, inherit: bool = False) -> AttributeColumn:
        """Like ``Batch.attribute``, including the changes collected so far.

        >>> traces.edit().set("http.status", 500).attribute("http.status").int.tolist()
        [500, 500, 500]
        """
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
        where: Mask | None = None,
        *,
        table: str = ITEM,
        mode: Literal["insert", "update", "upsert"] = "upsert",
    ) -> Self:
        """Sets an attribute to one value, or to a column with one value per row, whose absent rows are left alone.

        With mode ``insert`` only rows without the attribute are changed, with ``update`` only rows that have it.
        numpy integers become INT, floats DOUBLE and bools BOOL.

        >>> is_error = traces.attribute("http.status").int >= 500
        >>> edited = traces.edit().set("error", True, is_error).apply()
        >>> edited.attribute("error").bool.tolist()
        [False, False, True]
        >>> edited = traces.edit().set("duration", np.array([9, 5, 1]), mode="insert").apply()
        >>> edited.attribute("duration").int.tolist()
        [9, 5, 1]

        Raises:
            TypeError: The values cannot be attribute values.
            ValueError: The column or the mask has another length.
            KeyError: The table does not exist or has no attributes.
        """
        table = self._batch.table_name(table)
        if table in {"metrics", "quantiles"}:
            raise KeyError(f"rows of {table!r} have no attributes")
        change = self._change(table)
        count = change.row_count
        new_values, mask = NewValues(values, count), as_mask_bytes(where, count)
        if count and (mask is None or b"\1" in mask.tobytes()):  # several times as fast as any() on short masks
            change.add(key, MODES[mode], mask, new_values)
        return self

    def delete(self, keys: str | Iterable[str], where: Mask | None = None, *, table: str = ITEM) -> Self:
        """Deletes attributes.

        >>> edited = traces.edit().delete(["http.status", "db.system"]).apply()
        >>> edited.attributes().row_count
        0
        """
        table = self._batch.table_name(table)
        change = self._change(table)
        mask = as_mask_bytes(where, change.row_count)
        if mask is None or mask.any():
            for key in [keys] if isinstance(keys, str) else keys:
                change.add(key, DELETE, mask, None)
        return self

    def set_field(
        self,
        name: str,
        values: AttributeValue | AttributeColumn | StringColumn | Array,
        where: Mask | None = None,
        *,
        table: str = ITEM,
    ) -> Self:
        """Sets a field to one value, or to a column with one value per row, whose absent rows are left alone.

        0 unsets a number or an id.

        >>> edited = traces.edit().set_field("name", traces.field("name").map(str.lower)).set_field("kind", 1).apply()
        >>> edited.field("name").to_list()
        ['get /users', 'select users', 'get /health']

        Raises:
            KeyError: There is no such field, or it cannot be set.
            TypeError: The values are not of the field's type.
            ValueError: The column or the mask has another length.
        """
        table = self._batch.table_name(table)
        spec = field_spec(table, name)
        if not spec.number:
            raise KeyError(f"field {name!r} of table {table!r} cannot be set")
        count = self._change(table).row_count
        mask = as_mask(where, count)
        change = self._change(table).fields.setdefault(name, FieldChange(spec, np.full(count, UNTOUCHED, np.int32)))
        column = change.column(values, count)
        if isinstance(column, AttributeColumn | StringColumn):
            mask = mask & column.present
        change.winner[mask] = len(change.columns)
        change.columns.append(column)
        return self

    def field(self, name: str, table: str = ITEM) -> Any:
        """Like ``Batch.field``, including the changes collected so far.

        >>> traces.edit().set_field("kind", 1).field("kind").tolist()
        [1, 1, 1]
        """
        table = self._batch.table_name(table)
        column = self._batch.field(name, table)
        pending = self._changes.get(table)
        change = None if pending is None else pending.fields.get(name)
        return column if change is None else change.over(column)

    def apply(self) -> B:
        """The changed batch with its index carried over, or the original batch if nothing changed."""
        return apply_changes(self._batch, self._changes) if self._changes else self._batch

    def _change(self, table: str) -> TableChange:
        change = self._changes.get(table)
        if change is None:
            change = self._changes[table] = TableChange(self._batch.table(table).row_count)
        return change

    def _own_attribute(self, key: str, table: str) -> AttributeColumn:
        column = self._batch.attribute(key, table)
        pending = self._changes.get(table)
        changes = [] if pending is None else pending.changes_of(key)
        if pending is None or not changes:
            return column
        log = pending.attribute_log_of(key, changes, self._batch.table(table).rows, self._batch.attributes(table))
        winner = log.winners(0)
        if not len(winner) or winner.max() == winner.min() == UNTOUCHED:
            return column
        parts = [((winner == UNTOUCHED) & column.present, column)]
        for number in np.unique(winner[winner >= 0]).tolist():
            values = changes[number].values
            assert values is not None
            parts.append((winner == number, values.column))
        return merge_columns(len(column), parts)
