"""A batch while statements change it: reads see the changes, which are written in as few passes as possible.

Attributes and most fields are changed through the model's edits. What the index of a batch does not have (buckets of
histograms, counts of dropped attributes, the type of a metric) is read and changed in protobuf messages; between the
two the request is written once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.api import RetryableError
from collector.model import ITEM, AttributeColumn, Batch, Signal, StringColumn
from collector.model.arrays import every
from collector.ottl.values import EvaluationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collector.model import AttributeTable, AttributeValue, Edit, Table
    from collector.model.arrays import I32, Array, Mask

__all__ = ["GROWTH_BYTES", "Draft"]

GROWTH_BYTES: Final = 64 * 1024 * 1024
"""How many bytes statements may add to one batch that has no memory budget."""
_GROWTH_MAX_BYTES: Final = 1024 * 1024 * 1024  # with a budget: offsets into a request have 32 bits
_COPIES: Final = 2  # of what is added: it is encoded, and then written into the new request
_UNCOUNTED_BYTES: Final = 1024 * 1024
_REQUESTS: Final[dict[Signal, Any]] = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}


class Draft:
    """The reading methods are those of a batch; ``finished`` is the changed batch."""

    def __init__(self, batch: Batch, reserve: Callable[[int], object] | None = None) -> None:
        """``reserve`` is called with a number of bytes before they are added.

        It raises RetryableError if the memory budget does not have them.
        """
        self._batch = batch
        self._edit: Edit[Batch] | None = None
        self._fields: set[tuple[str, str]] = set()
        self._tables: dict[str, dict[str, int]] = {}  # by table and key: the longest text that was set, in bytes
        self._request: Any = None
        self._rows: dict[str, list[Any]] = {}
        self._is_request_changed = False
        self._reserve = reserve
        self._growth_limit = GROWTH_BYTES if reserve is None else _GROWTH_MAX_BYTES
        self._growth = 0
        self._added: list[tuple[int, int, Any]] = []
        self.signal = batch.signal

    def unchanged(self, read: Iterable[tuple[str, str, str]]) -> Batch | None:
        """The batch, as written so far, if no later change is about what is ``read``; else None.

        ``read`` has tables, fields ("" for attributes) and keys of attributes.
        """
        batch = self._current()
        if self._edit is None:
            return batch
        for table, field, key in read:
            if (table, field) in self._fields if field else key in self._tables.get(table, ()):
                return None
        return batch

    # What a batch has.

    def table(self, name: str = ITEM) -> Table:
        """The rows of a table; their counts of attributes are those before the changes."""
        return self._current().table(name)

    def table_name(self, table: str) -> str:
        """The table's own name."""
        return self._batch.table_name(table)

    def ancestor(self, ancestor: str, table: str = ITEM) -> I32:
        """The row above each row."""
        return self._current().ancestor(ancestor, table)

    def field(self, name: str, table: str = ITEM) -> Any:
        """A field with the changes."""
        batch = self._current()
        table = batch.table_name(table)
        if self._edit is not None and (table, name) in self._fields:
            return self._edit.field(name, table)
        return batch.field(name, table)

    def attribute(self, key: str, table: str = ITEM) -> AttributeColumn:
        """An attribute with the changes."""
        batch = self._current()
        table = batch.table_name(table)
        if self._edit is not None and table in self._tables:
            return self._edit.attribute(key, table)
        return batch.attribute(key, table)

    def attributes(self, table: str = ITEM) -> AttributeTable:
        """All attributes of a table; the changes are written first."""
        if table in self._tables:
            self._write_edit()
        return self._current().attributes(table)

    def unwritten_keys(self, table: str) -> dict[str, int]:
        """The keys of attributes that have been set or deleted since ``attributes_before``.

        Of each the length in bytes of the longest text that it may have been set to.
        """
        return self._tables.get(table, {})

    def attributes_before(self, table: str) -> AttributeTable:
        """The attributes of a table without the changes of ``unwritten_keys``."""
        return self._current().attributes(table)

    # Changes.

    def set(
        self,
        key: str,
        values: AttributeValue | AttributeColumn | StringColumn | Array,
        where: Mask,
        table: str,
    ) -> None:
        """Set an attribute.

        Raises:
            EvaluationError: the batch would grow too much.
        """
        longest = self._grow(values, where)
        self._editing().set(key, values, None if every(where) else where, table=table)
        keys = self._tables.setdefault(table, {})
        keys[key] = max(keys.get(key, 0), longest)

    def delete(self, keys: list[str], where: Mask, table: str) -> None:
        """Delete attributes."""
        if keys:
            self._editing().delete(keys, None if every(where) else where, table=table)
            changed = self._tables.setdefault(table, {})
            for key in keys:
                changed.setdefault(key, 0)

    def set_field(self, name: str, values: Any, where: Mask, table: str) -> None:
        """Set a field.

        Raises:
            EvaluationError: the batch would grow too much.
        """
        self._grow(values, where)
        self._editing().set_field(name, values, where, table=table)
        self._fields.add((table, name))

    def messages(self, table: str) -> list[Any]:
        """The protobuf message of each row of a table; call ``changed`` after changing one.

        The messages must not be changed any more after a column has been read.
        """
        if self._request is None:
            self._write_edit()
            self._request = _REQUESTS[self.signal].FromString(self._batch.wire)
            self._rows = {}
        if table not in self._rows:
            self._rows[table] = _messages(self, table)
        return self._rows[table]

    @property
    def request(self) -> Any:
        """The request as a protobuf message; call ``changed`` after changing it."""
        self.messages("resources")
        return self._request

    def changed(self, growth_bytes: int = 0) -> None:
        """Say that messages have been changed.

        Raises:
            EvaluationError: the batch would grow too much.
        """
        assert self._request is not None, "columns were read between reading and changing the messages"
        self._is_request_changed = True
        self.charge(growth_bytes)

    def add_metric(self, scope: int, row: int, metric: Any) -> None:
        """Add a metric to a scope, given by its row; ``row`` is what it was made of. See ``write_added``.

        Raises:
            EvaluationError: the batch would grow too much.
        """
        self.charge(metric.ByteSize())
        self._added.append((row, scope, metric))

    def write_added(self) -> None:
        """Write the added metrics at the end of their scopes, in the order of the rows that they were made of."""
        if self._added:
            scopes = self.messages("scopes")
            for _, scope, metric in sorted(self._added, key=lambda added: added[0]):
                scopes[scope].metrics.append(metric)
            self._added = []
            self._is_request_changed = True

    def charge(self, growth_bytes: int) -> None:
        """Count bytes that are added.

        Raises:
            EvaluationError: the batch would grow too much.
        """
        if self._growth + growth_bytes > self._growth_limit:
            raise EvaluationError("too_large")
        if self._reserve is not None and growth_bytes > 0:
            try:
                self._reserve(_COPIES * growth_bytes)
            except RetryableError:
                raise EvaluationError("too_large") from None
        self._growth += growth_bytes

    @property
    def growth_bytes(self) -> int:
        """About how many bytes the changes add."""
        return self._growth

    def finished(self) -> Batch:
        """The batch with all changes so far; the same object if nothing changed."""
        self._current()
        self._write_edit()
        return self._batch

    def _current(self) -> Batch:
        if self._request is not None and self._is_request_changed:
            self._batch = type(self._batch)(self._request.SerializeToString(), self._batch.context)
            self._is_request_changed = False
            self._request = None
            self._rows = {}
        return self._batch

    def _editing(self) -> Edit[Batch]:
        batch = self._current()
        self._request = None
        if self._edit is None:
            self._edit = batch.edit()
        return self._edit

    def _write_edit(self) -> None:
        if self._edit is not None:
            self._batch = self._edit.apply()
            self._edit = None
            self._fields.clear()
            self._tables.clear()

    def _grow(self, values: Any, where: Mask) -> int:
        """Count the bytes of new values, where they may be many, and return the size of the largest."""
        if isinstance(values, StringColumn):
            largest = max(map(len, values.distinct_bytes), default=0)
        elif isinstance(values, AttributeColumn):
            largest = int(values.rows["any_len"].max(initial=0))
        elif isinstance(values, str | bytes | list | dict | tuple):
            largest = _size(values)
        else:
            return 0
        if largest * len(where) > _UNCOUNTED_BYTES:
            self.charge(_total(values, where, largest))
        return largest


def _total(values: Any, where: Mask, largest: int) -> int:
    """The bytes of new values on some rows, of which none has more than ``largest``."""
    if isinstance(values, StringColumn):
        sizes = np.fromiter(map(len, values.distinct_bytes), np.int64, values.distinct_count)
        return int(np.append(sizes, 0)[values.codes][where].sum())
    if isinstance(values, AttributeColumn):
        return int(values.rows["any_len"][where].sum(dtype=np.int64))
    return largest * int(np.count_nonzero(where))


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(len(key) + _size(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return sum(map(_size, value))
    return len(value.encode()) if isinstance(value, str) else len(value) if isinstance(value, bytes) else 9


_CHILDREN: Final = {
    ("scopes", Signal.TRACES): "scope_spans",
    ("scopes", Signal.METRICS): "scope_metrics",
    ("scopes", Signal.LOGS): "scope_logs",
    ("spans", Signal.TRACES): "spans",
    ("events", Signal.TRACES): "events",
    ("metrics", Signal.METRICS): "metrics",
    ("records", Signal.LOGS): "log_records",
}
_RESOURCES: Final = {
    Signal.TRACES: "resource_spans",
    Signal.METRICS: "resource_metrics",
    Signal.LOGS: "resource_logs",
}


def points(metric: Any) -> Any:
    """The points of a metric, empty if it has no type."""
    form = metric.WhichOneof("data")
    return getattr(metric, form).data_points if form else ()


def _messages(draft: Draft, table: str) -> list[Any]:
    if table == "resources":
        return list(getattr(draft._request, _RESOURCES[draft.signal]))  # noqa: SLF001 - part of the class
    above = draft.messages(draft._batch.schema.parents[table])  # noqa: SLF001
    if table == "points":
        return [point for metric in above for point in points(metric)]
    name = _CHILDREN[table, draft.signal]
    return [child for parent in above for child in getattr(parent, name)]
