"""The identity of a series (docs/reference/cardinality.md, rule 11).

The order of attributes is irrelevant, and int 1 differs from "1". An empty attribute equals an absent one, because
exporters merge the two: Prometheus treats a label without a value as absent. Contexts (tenant, kept headers) keep data
apart that goes to different backends.
"""

from typing import Any, Final

import numpy as np

from collector.model import (
    EMPTY_CONTEXT,
    KIND_BOOL,
    KIND_DOUBLE,
    KIND_INT,
    Context,
    Metrics,
    StringColumn,
    combine_keys,
    hash_text,
)
from collector.model.arrays import U64
from collector.model.series import series_key
from collector.text.cache import TextCache
from processors.cardinality._updates import any_empty

__all__ = ["ContextKeys", "attributes_of", "context_of", "context_part", "series_of", "text_of"]

_TABLES: Final = ("points", "scopes", "resources")


def series_of(batch: Metrics) -> U64:
    """(points, 2) the identity of each point's series."""
    has_empty = any(any_empty(batch.attributes(table).rows) for table in _TABLES)
    return series_key(batch, empty_is_absent=True) if has_empty else batch.series_key()


class ContextKeys:
    """A 128-bit key for each context: a bounded cache, because a key that was forgotten is computed the same again."""

    def __init__(self) -> None:
        self._keys = TextCache[U64 | None](max_entry_bytes=16 * 1024)

    def key(self, context: Context) -> tuple[Context, U64 | None]:
        """The context of what is written, and a key to xor with the keys of its series; None: they are unchanged."""
        # Where the sender runs says nothing about whose data it is.
        context = Context(context.metadata, context.tenant, context.claims)
        if context == EMPTY_CONTEXT:
            return EMPTY_CONTEXT, None
        parts = (context.metadata, context.tenant, context.claims)
        key = self._keys.get(parts, None)
        if key is None:
            key = combine_keys(hash_text(StringColumn.constant(repr(context), 1)))[0]
            self._keys.put(parts, key)
        return context, key


def context_part(context: Context) -> list[Any]:
    """A context as part of a checkpoint; without the claims, which are secrets of senders."""
    return [[[name, list(values)] for name, values in context.metadata], context.tenant]


def context_of(part: list[Any]) -> Context:
    """What ``context_part`` returned, as a context.

    Raises:
        TypeError, ValueError: It is something else.
    """
    metadata, tenant = part
    return Context(
        tuple((str(name), tuple(map(str, values))) for name, values in metadata),
        None if tenant is None else str(tenant),
    )


def text_of(batch: Metrics, field: str, table: str, row: int) -> str:
    """The text of a field in one row; empty if it is absent."""
    column = batch.field(field, table)
    return column.distinct[column.codes[row]] if column.codes[row] >= 0 else ""


def attributes_of(batch: Metrics, table: str, row: int) -> dict[str, Any]:
    """The attributes of one row without empty ones; the last of equal keys counts. For rows that are read once."""
    attributes = batch.attributes(table)
    texts = attributes.as_text()
    begin, end = np.searchsorted(attributes.owner, [row, row + 1]).tolist()
    values: dict[str, Any] = {}
    for i in range(begin, end):
        kind = int(attributes.kind[i])
        value: Any = texts.distinct[texts.codes[i]] if texts.codes[i] >= 0 else ""
        if kind == KIND_INT:
            value = int(attributes.int[i])
        elif kind == KIND_DOUBLE:
            value = float(attributes.double[i])
        elif kind == KIND_BOOL:
            value = bool(attributes.bool[i])
        values[attributes.key.distinct[attributes.key.codes[i]]] = value
    return {key: value for key, value in values.items() if value != ""}
