"""What one series is, for the cap (rule 11): the order of attributes does not matter, int 1 is not "1", empty equals absent.

Empty equals absent because exporters merge them: to Prometheus a label without a value is no label. Contexts (tenant,
kept headers) keep what goes to different backends apart.
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
from processors.cardinality._fold import any_empty

__all__ = ["ContextKeys", "attributes_of", "has_empty", "series_of", "text_of"]

_CONTEXTS_MAX: Final = 1000
_TABLES: Final = ("points", "scopes", "resources")


def series_of(batch: Metrics) -> U64:
    """(points, 2) the identity of each point's series."""
    return series_key(batch, empty_is_absent=True) if has_empty(batch) else batch.series_key()


def has_empty(batch: Metrics) -> bool:
    """Whether any attribute has no value."""
    return any(any_empty(batch.attributes(table).rows) for table in _TABLES)


class ContextKeys:
    """A key of 128 bits for each context; a cache, and bounded: a key that is forgotten comes out the same."""

    def __init__(self) -> None:
        self._keys: dict[Context, U64] = {}

    def key(self, context: Context) -> tuple[Context, U64 | None]:
        """The context that what is folded of it gets, and what its series' keys are xored with (None: nothing)."""
        # where the sender runs is no part of whose data it is
        context = Context(context.metadata, context.tenant, context.claims)
        if context == EMPTY_CONTEXT:
            return context, None
        known = self._keys.get(context)
        if known is None:
            if len(self._keys) >= _CONTEXTS_MAX:
                self._keys.clear()
            known = self._keys[context] = combine_keys(hash_text(StringColumn.constant(repr(context), 1)))[0]
        return context, known


def text_of(batch: Metrics, field: str, table: str, row: int) -> str:
    """One text."""
    column = batch.field(field, table)
    return column.distinct[column.codes[row]] if column.codes[row] >= 0 else ""


def attributes_of(batch: Metrics, table: str, row: int) -> dict[str, Any]:
    """One row's attributes with their kinds, without empty ones; the last of a key counts. For what is looked at once."""
    every = batch.attributes(table)
    texts = every.as_text()
    begin, end = np.searchsorted(every.owner, [row, row + 1]).tolist()
    found: dict[str, Any] = {}
    for i in range(begin, end):
        kind = int(every.kind[i])
        value: Any = texts.distinct[texts.codes[i]] if texts.codes[i] >= 0 else ""
        if kind == KIND_INT:
            value = int(every.int[i])
        elif kind == KIND_DOUBLE:
            value = float(every.double[i])
        elif kind == KIND_BOOL:
            value = bool(every.bool[i])
        found[every.key.distinct[every.key.codes[i]]] = value
    return {key: value for key, value in found.items() if value != ""}
